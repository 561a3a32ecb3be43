//! The tenants that are active on this node while it leads: finds or makes the actor, and stands the permit before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_ledger::{Command, TimestampMs};
use quorate_replica::{Replica, Role};
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::error::Undecided;
use crate::group::Group;
use crate::metrics::Metrics;
use crate::proposer::{Decision, Proposer};
use crate::tenant_actor::{Arguments, Execute, Message, TenantActor};
use crate::turnstile::Turnstile;
use crate::waiting::wait_until;

#[derive(Debug)]
struct Handle {
    tenant: String,
    actor: ActorRef<Message>,
    turnstile: Arc<Turnstile>,
}

#[derive(Debug)]
pub(crate) struct Tenants<G = Replica> {
    replica: G,
    proposer: Proposer,
    metrics: Arc<Metrics>,
    in_flight_max: usize,
    waiting_max: usize,
    /// Held while an actor is made, so that a tenant has one.
    making: tokio::sync::Mutex<()>,
    /// Held for a look-up only, never over an await.
    known: Mutex<HashMap<String, Arc<Handle>>>,
}

impl<G: Group> Tenants<G> {
    /// This node's time, as decisions are made with.
    pub fn now(&self) -> TimestampMs {
        self.replica.now()
    }

    pub fn new(replica: G, proposer: Proposer, metrics: Arc<Metrics>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            replica,
            proposer,
            metrics,
            in_flight_max: limits.tenant_in_flight,
            waiting_max: limits.tenant_waiting,
            making: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        })
    }

    /// One operation of one tenant; the caller has checked that this node leads.
    pub async fn execute(self: &Arc<Self>, command: Command, timeout: Duration) -> Decision {
        self.execute_waiting(command, Duration::ZERO, timeout).await
    }

    /// The same for a reservation that may wait so long while only others stand in the way, or for the end of one that may
    /// wait so long for others to share its batch.
    pub async fn execute_waiting(
        self: &Arc<Self>,
        command: Command,
        wait: Duration,
        timeout: Duration,
    ) -> Decision {
        let tenant = match &command {
            Command::Reserve { tenant, .. }
            | Command::Extend { tenant, .. }
            | Command::Settle { tenant, .. }
            | Command::Release { tenant, .. }
            | Command::Expire { tenant, .. }
            | Command::AdjustAccount { tenant, .. } => tenant,
            // No tenant's business.
            Command::PutPolicy { .. }
            | Command::StagePolicy { .. }
            | Command::PutKey { .. }
            | Command::RevokeKey { .. }
            | Command::AckAlerts { .. }
            | Command::ReportProvider(_)
            | Command::ClaimProbe { .. }
            | Command::DrainProvider { .. }
            | Command::RecordChange { .. } => {
                return in_time(timeout, Box::pin(self.proposer.propose(command))).await;
            }
        };
        let handle = match self.known(tenant) {
            Some(handle) => handle,
            // Boxed: seldom, and large.
            None => Box::pin(self.make(tenant)).await?,
        };
        let Some(place) = handle.turnstile.enter() else {
            return Err(Undecided::Overloaded("the tenant has too many operations in flight"));
        };
        let (answer, decided) = oneshot::channel();
        let wait_until = wait_until(wait, timeout);
        let execute = Execute { command, answer, place: Some(place), wait_until, ticket: 0 };
        if handle.actor.cast(Message::Execute(Box::new(execute))).is_err() {
            self.forget(&handle.tenant, &handle.turnstile);
            return Err(Undecided::NotLeader(None));
        }
        in_time(timeout, async { decided.await.unwrap_or(Err(Undecided::NotLeader(None))) }).await
    }

    fn known(&self, tenant: &str) -> Option<Arc<Handle>> {
        self.known.lock().get(tenant).cloned()
    }

    /// The tenant's actor, unless somebody else has made it meanwhile.
    async fn make(self: &Arc<Self>, tenant: &str) -> Result<Arc<Handle>, Undecided> {
        let _making = self.making.lock().await;
        if let Some(handle) = self.known(tenant) {
            return Ok(handle);
        }
        let turnstile = Turnstile::new(self.in_flight_max);
        let registry = Arc::downgrade(self);
        let name = tenant.to_owned();
        let gate = turnstile.clone();
        let retire = move || {
            let Some(registry) = registry.upgrade() else { return true };
            // A place that is taken means a message that is on its way.
            let quiet = gate.is_empty();
            if quiet {
                registry.forget(&name, &gate);
            }
            quiet
        };
        let arguments = Arguments {
            tenant: tenant.to_owned(),
            replica: self.replica.clone(),
            proposer: self.proposer.clone(),
            metrics: self.metrics.clone(),
            waiting_max: self.waiting_max,
            turnstile: turnstile.clone(),
            retire: Box::new(retire),
        };
        let spawned = Actor::spawn(None, TenantActor::default(), arguments).await;
        let (actor, _) = spawned
            .map_err(|error| Undecided::Stopped(format!("the tenant's actor did not start: {error}")))?;
        let handle = Arc::new(Handle { tenant: tenant.to_owned(), actor, turnstile });
        self.known.lock().insert(tenant.to_owned(), handle.clone());
        Ok(handle)
    }

    /// An actor that is over, unless another one has taken its place: a tenant has one.
    fn forget(&self, tenant: &str, turnstile: &Arc<Turnstile>) {
        let mut known = self.known.lock();
        if known.get(tenant).is_some_and(|handle| Arc::ptr_eq(&handle.turnstile, turnstile)) {
            known.remove(tenant);
        }
    }

    /// Makes the actors of tenants with deadlines when this node begins to lead, and stops all when it ceases to.
    pub async fn follow_leadership(self: Arc<Self>) {
        let mut status = self.replica.status();
        // Of another term there may have been another leader in between.
        let mut led = None;
        loop {
            let leads = {
                let status = status.borrow_and_update();
                (status.role == Role::Leader).then_some(status.term)
            };
            if led.is_some() && leads != led {
                led = None;
                self.stop_all();
            }
            if leads.is_some() && led.is_none() {
                // Everything committed before must be applied before its deadlines are known.
                if self.replica.linearize().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                led = leads;
                self.announce_deadlines().await;
            }
            if status.changed().await.is_err() {
                self.stop_all();
                return;
            }
        }
    }

    /// Also to actors that were made for early operations: they have seen only what was applied by then.
    async fn announce_deadlines(self: &Arc<Self>) {
        for (tenant, deadline) in self.replica.read(|ledger, _| ledger.deadlines()) {
            let handle = match self.known(&tenant) {
                Some(handle) => Ok(handle),
                None => self.make(&tenant).await,
            };
            match handle {
                // One that is gone meanwhile is made anew from the ledger.
                Ok(handle) => drop(handle.actor.cast(Message::Deadline(deadline))),
                Err(error) => {
                    tracing::warn!(%error, %tenant, "its reservations expire when it is next used");
                }
            }
        }
    }

    pub fn stop_all(&self) {
        // In an order that does not depend on the run.
        let mut known: Vec<_> = self.known.lock().drain().collect();
        known.sort_by(|left, right| left.0.cmp(&right.0));
        for (_, handle) in known {
            handle.actor.stop(None);
        }
    }
}

async fn in_time(timeout: Duration, decision: impl Future<Output = Decision>) -> Decision {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    tokio::time::timeout(timeout, decision).await.unwrap_or(Err(Undecided::TimedOut(ms)))
}
