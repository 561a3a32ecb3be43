//! The client of the budget service: finds the leader, keeps one session, sends the same operation again until it has an
//! answer or the time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use quorate_ledger::{Command, Outcome, ReservationId, TimestampMs};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admin_client::Admin;
use crate::budget::result::Kind;
use crate::budget::{Operation, Result as WireResult, Unavailable, UnavailableReason};
use crate::convert;
use crate::error::{ClientError, explain};
use crate::routing::Routes;
use crate::session::Session;
use crate::tls::Security;
use crate::watch::WatchHandle;

/// Operations of one client that may wait for an answer at the same time.
pub const IN_FLIGHT_MAX: usize = 16_384;
/// An attempt that takes longer goes to another node: this one may be stopped.
const ATTEMPT: Duration = Duration::from_millis(2_500);
/// A node that opens a session does so at once.
const OPEN: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Who calls, for the nodes' logs.
    pub name: String,
    /// `host:port` of the nodes' gRPC endpoints; one is enough, all are better.
    pub nodes: Vec<String>,
    /// How long a node may keep an operation before it answers that it could not decide, in milliseconds.
    pub operation_timeout_ms: u64,
    pub security: Security,
}

/// An answer, and where it stands in the log (0: a denial that the leader answered from applied state).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    pub outcome: Outcome,
    pub log_term: u64,
    pub log_index: u64,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct ClientStats {
    pub retries: AtomicU64,
    pub sessions_opened: AtomicU64,
}

/// Cheap to clone; all clones share one session.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub config: ClientConfig,
    pub routes: Routes,
    /// Held for a look only: every operation passes here.
    session: Mutex<Option<Arc<Session>>>,
    /// Held while a session is opened, so that callers do not open one each.
    opening: tokio::sync::Mutex<()>,
    in_flight: Semaphore,
    /// Ledger time minus local time, in milliseconds, as last seen by a watch.
    pub clock_offset_ms: AtomicI64,
    stats: ClientStats,
}

/// Forgotten once the session is there. Whoever opens it may lose patience first.
struct Opening<'a> {
    routes: &'a Routes,
    address: &'a str,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.routes.forget_leader(self.address);
    }
}

/// Why an attempt brought no decision.
struct Attempt {
    reason: String,
    wait: Duration,
    overloaded: bool,
    /// The node may have taken the operation.
    maybe_taken: bool,
}

impl Client {
    /// Connects when first used.
    pub fn connect(config: ClientConfig) -> Self {
        let routes = Routes::new(&config.nodes, config.security.clone());
        let shared = Shared {
            config,
            routes,
            session: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            clock_offset_ms: AtomicI64::new(0),
            stats: ClientStats::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Executes one command exactly once, sending it again under the same id until there is an answer.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] leaves the effect unknown; with the others nothing happened.
    pub async fn execute(&self, command: Command, timeout: Duration) -> Result<Executed, ClientError> {
        self.execute_waiting(command, Duration::ZERO, timeout).await
    }

    /// The same for a reservation that may wait in its tenant's queue, while only other reservations stand in the way:
    /// for `wait` in all, whichever node leads meanwhile. `timeout` includes it. The command's own `wait` does not count.
    /// For a settlement or a release, `wait` is how long it may wait for others to share its place in the log.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_waiting(
        &self,
        command: Command,
        wait: Duration,
        timeout: Duration,
    ) -> Result<Executed, ClientError> {
        let started = Instant::now();
        let deadline = started + timeout;
        let Ok(Ok(_permit)) = timeout_at(deadline, self.shared.in_flight.acquire()).await else {
            return Err(ClientError::Overloaded { retry_after_ms: 100 });
        };
        let mut backoff = BACKOFF_MIN;
        let mut maybe_taken = false;
        loop {
            let wait = wait.saturating_sub(started.elapsed());
            let timeout_ms = millis(timeout.min(self.operation_timeout() + wait));
            let mut operation =
                convert::operation(&command, timeout_ms).ok_or_else(|| ClientError::Rejected {
                    code: tonic::Code::InvalidArgument,
                    message: "this command goes through the admin service".to_owned(),
                })?;
            operation.wait_ms = millis(wait);
            let failed = match self.attempt(operation, deadline).await {
                Ok(executed) => return Ok(executed),
                Err(Ok(failed)) => failed,
                Err(Err(fatal)) => return Err(fatal),
            };
            maybe_taken |= failed.maybe_taken;
            let wake = Instant::now() + failed.wait.max(backoff);
            if wake >= deadline {
                return Err(give_up(failed, maybe_taken, timeout));
            }
            self.shared.stats.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep_until(wake).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// The ledger's clock, as far as a watch has told it.
    pub fn now(&self) -> TimestampMs {
        let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = self.shared.clock_offset_ms.load(Ordering::Relaxed);
        TimestampMs(u64::try_from(local.as_millis()).unwrap_or(0).saturating_add_signed(offset))
    }

    /// A UUIDv7 by [`Client::now`].
    pub fn new_id(&self) -> ReservationId {
        let TimestampMs(ms) = self.now();
        let nanos = u32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
        let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1_000, nanos);
        let id = uuid::Uuid::new_v7(timestamp);
        // A UUIDv7 has the version and variant that the ledger asks for.
        ReservationId::from_u128(id.as_u128()).unwrap_or_else(|| unreachable!("{id} is a UUIDv7"))
    }

    /// Follows policy, provider health and the ledger's clock in the background until the handle is dropped.
    pub fn watch(&self) -> WatchHandle {
        WatchHandle::start(self.clone())
    }

    /// The admin calls.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    pub fn stats(&self) -> &ClientStats {
        &self.shared.stats
    }

    fn operation_timeout(&self) -> Duration {
        Duration::from_millis(self.shared.config.operation_timeout_ms)
    }

    /// `Err(Ok(_))`: try again. `Err(Err(_))`: it would not help.
    async fn attempt(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Executed, Result<Attempt, ClientError>> {
        let attempt = ATTEMPT + Duration::from_millis(operation.wait_ms.into());
        let until = deadline.min(Instant::now() + attempt);
        let session = match timeout_at(until, self.session()).await {
            Ok(Ok(session)) => session,
            Ok(Err(reason)) => return Err(Ok(Attempt::not_sent(reason))),
            Err(_) => return Err(Ok(Attempt::not_sent("connecting took too long".to_owned()))),
        };
        let result = match timeout_at(until, session.call(operation)).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                self.abandon(&session);
                return Err(Ok(Attempt::unknown(format!("the session with {} broke", session.address()))));
            }
            Err(_) => {
                self.abandon(&session);
                return Err(Ok(Attempt::unknown(format!("{} did not answer", session.address()))));
            }
        };
        let WireResult { kind, log_index, log_term } = result;
        match kind {
            Some(Kind::Unavailable(unavailable)) => {
                self.redirect(&session, &unavailable);
                Err(Ok(Attempt::unavailable(unavailable)))
            }
            Some(kind) => {
                let outcome = convert::outcome(kind).map_err(|error| Err(error.into()))?;
                Ok(Executed { outcome, log_term, log_index })
            }
            None => {
                Err(Ok(Attempt::unknown(format!("{} sent an answer of an unknown kind", session.address()))))
            }
        }
    }

    /// The live session, or a new one: with the leader if it is known.
    async fn session(&self) -> Result<Arc<Session>, String> {
        if let Some(session) = self.live() {
            return Ok(session);
        }
        let _opening = self.shared.opening.lock().await;
        // Somebody else may have opened one meanwhile.
        if let Some(session) = self.live() {
            return Ok(session);
        }
        let routes = &self.shared.routes;
        let address = routes.pick().ok_or("no node is configured")?;
        let session = Arc::new(self.open(&address).await?);
        *self.shared.session.lock() = Some(session.clone());
        if let Some(leader) = session.leader().filter(|leader| *leader != session.address()) {
            tokio::spawn(self.clone().come_nearer(leader.to_owned(), session.clone()));
        }
        Ok(session)
    }

    /// A follower passes everything on; the leader itself is a hop nearer. Nobody waits for it: it may be silent.
    async fn come_nearer(self, leader: String, follower: Arc<Session>) {
        let Ok(session) = self.open(&leader).await else { return };
        self.shared.routes.set_leader(&leader);
        let mut slot = self.shared.session.lock();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &follower)) {
            *slot = Some(Arc::new(session));
        }
    }

    fn live(&self) -> Option<Arc<Session>> {
        self.shared.session.lock().as_ref().filter(|session| !session.is_over()).cloned()
    }

    /// A node with which none can be opened does not count as the leader.
    async fn open(&self, address: &str) -> Result<Session, String> {
        let routes = &self.shared.routes;
        let channel = routes.channel(address).map_err(|error| error.to_string())?;
        self.shared.stats.sessions_opened.fetch_add(1, Ordering::Relaxed);
        let opening = Opening { routes, address };
        let opened = timeout(OPEN, Session::open(channel, address.to_owned(), false)).await;
        let opened = opened.map_err(|_| format!("{address}: opening a session took too long"))?;
        let session = opened.map_err(|status| format!("{address}: {}", explain(&status)))?;
        std::mem::forget(opening);
        Ok(session)
    }

    fn abandon(&self, session: &Arc<Session>) {
        self.shared.routes.forget_leader(session.address());
        let mut slot = self.shared.session.lock();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *slot = None;
        }
    }

    /// Follows what a node says about who leads.
    fn redirect(&self, session: &Arc<Session>, unavailable: &Unavailable) {
        let leaderless =
            matches!(unavailable.reason(), UnavailableReason::NoLeader | UnavailableReason::ShuttingDown);
        if leaderless && unavailable.leader_address != session.address() {
            self.abandon(session);
            self.shared.routes.set_leader(&unavailable.leader_address);
        }
    }
}

impl Attempt {
    fn not_sent(reason: String) -> Self {
        Self { reason, wait: Duration::ZERO, overloaded: false, maybe_taken: false }
    }

    fn unknown(reason: String) -> Self {
        Self { maybe_taken: true, ..Self::not_sent(reason) }
    }

    fn unavailable(unavailable: Unavailable) -> Self {
        let overloaded = unavailable.reason() == UnavailableReason::Overloaded;
        Self {
            wait: Duration::from_millis(unavailable.retry_after_ms.min(5_000)),
            overloaded,
            maybe_taken: !overloaded,
            reason: unavailable.message,
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn give_up(failed: Attempt, maybe_taken: bool, timeout: Duration) -> ClientError {
    let retry_after_ms = u64::try_from(failed.wait.as_millis()).unwrap_or(0).max(1_000);
    if maybe_taken {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        ClientError::TimedOut { timeout_ms, last: failed.reason }
    } else if failed.overloaded {
        ClientError::Overloaded { retry_after_ms }
    } else {
        ClientError::Unavailable { message: failed.reason, retry_after_ms }
    }
}
