//! The cluster as the pipeline sees it: a real ledger in memory, that can be made unreachable.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quorate_ledger::{
    AccountView, Charge, Command, Ledger, Outcome, ProviderView, ReservationId, TimestampMs,
};
use quorate_policy::runtime::CompiledPolicy;
use tokio::sync::watch;

use crate::budget::{BudgetKeeper, KeeperError};

#[derive(Debug)]
pub(crate) struct LedgerKeeper {
    ledger: Mutex<Ledger>,
    reachable: AtomicBool,
    /// The next reservation is made, nobody hears of it, and then the cluster is away.
    goes_away: AtomicBool,
    /// Reservations in the queue.
    waiting: AtomicUsize,
    releases: AtomicUsize,
    reserves: AtomicUsize,
    /// The charges of the last reservation that was asked for.
    last_reserved: Mutex<Vec<Charge>>,
    reports: AtomicUsize,
    claims_refused: AtomicBool,
    /// Reservations are taken, and not decided.
    reserves_held_back: watch::Sender<bool>,
    /// The next settlement or release does not arrive.
    loses_end: AtomicBool,
    /// Settlements and releases are taken, and not decided.
    ends_held_back: watch::Sender<bool>,
    /// How long the last of them may wait for others.
    end_wait: watch::Sender<Option<Duration>>,
    /// Commands applied so far.
    applied: watch::Sender<u64>,
    /// How far the ledger's clock is ahead of the machine's.
    ahead_ms: AtomicU64,
}

pub(crate) fn now() -> TimestampMs {
    TimestampMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

impl LedgerKeeper {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Mutex::default(),
            reachable: AtomicBool::new(true),
            goes_away: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            releases: AtomicUsize::new(0),
            reserves: AtomicUsize::new(0),
            last_reserved: Mutex::default(),
            reports: AtomicUsize::new(0),
            claims_refused: AtomicBool::new(false),
            reserves_held_back: watch::Sender::new(false),
            loses_end: AtomicBool::new(false),
            ends_held_back: watch::Sender::new(false),
            end_wait: watch::Sender::new(None),
            applied: watch::Sender::new(0),
            ahead_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn ledger_time(&self) -> TimestampMs {
        now().saturating_add(self.ahead_ms.load(Ordering::SeqCst))
    }

    pub(crate) fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::SeqCst);
    }

    pub(crate) fn go_away_after_the_next_reservation(&self) {
        self.goes_away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn hold_back_reserves(&self, held_back: bool) {
        self.reserves_held_back.send_replace(held_back);
    }

    pub(crate) fn lose_the_next_end(&self) {
        self.loses_end.store(true, Ordering::SeqCst);
    }

    pub(crate) fn hold_back_ends(&self, held_back: bool) {
        self.ends_held_back.send_replace(held_back);
    }

    /// Whether one was asked for.
    pub(crate) fn has_end(&self) -> bool {
        self.end_wait.borrow().is_some()
    }

    /// Waits until one is asked for; how long it may wait for others.
    pub(crate) async fn end_wait(&self) -> Duration {
        let mut end_wait = self.end_wait.subscribe();
        end_wait.wait_for(Option::is_some).await.unwrap().unwrap_or_default()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Commands to release something, whatever came of them.
    pub(crate) fn releases(&self) -> usize {
        self.releases.load(Ordering::SeqCst)
    }

    /// Commands to reserve something, whatever came of them.
    pub(crate) fn reserves(&self) -> usize {
        self.reserves.load(Ordering::SeqCst)
    }

    /// Budgets of the last reservation that was asked for.
    pub(crate) fn last_reserved(&self) -> Vec<String> {
        self.last_reserved.lock().iter().map(|charge| charge.budget.clone()).collect()
    }

    /// Reports of providers by the gateway.
    pub(crate) fn reports(&self) -> usize {
        self.reports.load(Ordering::SeqCst)
    }

    /// Claims get no decision from now on.
    pub(crate) fn refuse_claims(&self) {
        self.claims_refused.store(true, Ordering::SeqCst);
    }

    /// Counts the commands.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn providers(&self) -> Vec<ProviderView> {
        self.ledger.lock().providers().collect()
    }

    pub(crate) fn apply(&self, command: &Command) -> Outcome {
        let outcome = self.ledger.lock().apply(self.ledger_time(), command);
        self.applied.send_modify(|applied| *applied += 1);
        outcome
    }

    pub(crate) fn put_policy(&self, policy: &CompiledPolicy) {
        self.apply(&Command::PutPolicy {
            expected_version: None,
            rules: policy.rules(),
            document: String::new(),
            staged: None,
            by: String::new(),
            comment: String::new(),
        });
    }

    pub(crate) fn account(&self, tenant: &str, budget: &str, subject: &str) -> Option<AccountView> {
        self.ledger.lock().account(self.ledger_time(), tenant, budget, subject)
    }

    /// Of every account of a tenant, in whole units.
    pub(crate) fn spent(&self, tenant: &str) -> Vec<u64> {
        let ledger = self.ledger.lock();
        ledger.accounts(self.ledger_time(), tenant, None).map(|account| account.spent.units_floor()).collect()
    }

    /// Waits until `done` holds of the ledger.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Ledger) -> bool) {
        let mut applied = self.applied.subscribe();
        let waiting = async {
            loop {
                applied.borrow_and_update();
                if done(&self.ledger.lock()) {
                    return;
                }
                applied.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

/// Counted as long as somebody waits for the answer.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until such commands are not held back.
async fn decided(held_back: &watch::Sender<bool>) {
    held_back.subscribe().wait_for(|held_back| !held_back).await.unwrap();
}

impl BudgetKeeper for LedgerKeeper {
    fn new_id(&self) -> ReservationId {
        let ahead = u128::from(self.ahead_ms.load(Ordering::SeqCst)) << 80;
        ReservationId::from_u128(uuid::Uuid::now_v7().as_u128() + ahead).unwrap()
    }

    fn execute_waiting(
        &self,
        command: Command,
        wait: Duration,
        _: Duration,
    ) -> BoxFuture<'_, Result<Outcome, KeeperError>> {
        Box::pin(async move {
            let until = tokio::time::Instant::now() + wait;
            let mut applied = self.applied.subscribe();
            let claims_refused = self.claims_refused.load(Ordering::SeqCst);
            let refused = claims_refused && matches!(command, Command::ClaimProbe { .. });
            if refused || !self.reachable.load(Ordering::SeqCst) {
                return Err(KeeperError::Unavailable {
                    message: "switched off".to_owned(),
                    retry_after_ms: 700,
                });
            }
            if matches!(command, Command::Release { .. }) {
                self.releases.fetch_add(1, Ordering::SeqCst);
            }
            if let Command::Reserve { charges, .. } = &command {
                self.reserves.fetch_add(1, Ordering::SeqCst);
                self.last_reserved.lock().clone_from(charges);
                decided(&self.reserves_held_back).await;
            }
            if matches!(command, Command::ReportProvider(_)) {
                self.reports.fetch_add(1, Ordering::SeqCst);
            }
            let is_end = matches!(command, Command::Settle { .. } | Command::Release { .. });
            if is_end {
                self.end_wait.send_replace(Some(wait));
                decided(&self.ends_held_back).await;
                if self.loses_end.swap(false, Ordering::SeqCst) {
                    return Err(KeeperError::Unknown { message: "it got lost".to_owned() });
                }
            }
            let _waits = (!wait.is_zero() && !is_end).then(|| Waits::new(&self.waiting));
            // As the tenant's queue: asked again whenever something has changed, until the time is up.
            loop {
                applied.borrow_and_update();
                let outcome = self.ledger.lock().apply(self.ledger_time(), &command);
                let waits = matches!(&outcome, Outcome::Denied(denial) if denial.held_by_reservations);
                if !waits || tokio::time::timeout_at(until, applied.changed()).await.is_err() {
                    self.applied.send_modify(|applied| *applied += 1);
                    let reserves = matches!(command, Command::Reserve { .. });
                    if reserves && self.goes_away.swap(false, Ordering::SeqCst) {
                        self.set_reachable(false);
                        return Err(KeeperError::Unknown { message: "the answer got lost".to_owned() });
                    }
                    return Ok(outcome);
                }
            }
        })
    }
}
