//! Delivers alerts while this node leads: each to where its budget sends them, again and again with longer and longer
//! pauses, for a day at most.
//!
//! The ledger raises each alert exactly once. Its delivery is at least once: a leader that dies between a delivery and
//! its acknowledgement leaves it to the next one, which sends it again under the same id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Alert, Command};
use quorate_replica::{Replica, Role};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::alert_body;
use crate::metrics::Metrics;
use crate::policies::{AlertRoute, Policies};
use crate::proposer::Proposer;
use crate::secrets::Secrets;
use crate::webhook::Webhooks;

/// Deliveries under way at the same time.
const IN_FLIGHT_MAX: usize = 16;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// From when the alert was raised.
const GIVE_UP_AFTER_MS: u64 = 24 * 3_600_000;
/// Alerts are rare: looks at what was applied at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Alerts {
    pub cluster: String,
    pub replica: Replica,
    pub proposer: Proposer,
    pub policies: Arc<Policies>,
    pub webhooks: Webhooks,
    pub secrets: Secrets,
    pub metrics: Arc<Metrics>,
}

/// What is still to be done of one alert.
#[derive(Debug)]
struct Pending {
    alert: Alert,
    /// Where it has not been delivered to yet. Empty: done.
    routes: Vec<AlertRoute>,
    next_try: Instant,
    pause: Duration,
    in_flight: bool,
}

/// Of the term in which this node leads.
#[derive(Debug, Default)]
struct Desk {
    seen: u64,
    acked: u64,
    pending: BTreeMap<u64, Pending>,
}

/// A try has ended: these routes are left.
struct Tried {
    seq: u64,
    left: Vec<AlertRoute>,
}

impl Alerts {
    /// Until the node stops.
    pub async fn run(self) {
        let mut status = self.replica.status();
        loop {
            if status.wait_for(|status| status.role == Role::Leader).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.lead() => {}
                _ = status.wait_for(|status| status.role != Role::Leader) => {}
            }
        }
    }

    async fn lead(&self) {
        // What an earlier leader acknowledged must be applied before it is known.
        if self.replica.linearize().await.is_err() {
            tokio::time::sleep(PAUSE_MIN).await;
            return;
        }
        let mut applied = self.replica.applied();
        let mut desk = Desk::default();
        let mut tries = JoinSet::new();
        loop {
            applied.mark_unchanged();
            self.take_new(&mut desk).await;
            self.start_tries(&mut desk, &mut tries);
            self.acknowledge(&mut desk).await;
            let idle = desk.next_try().unwrap_or_else(|| Instant::now() + PAUSE_MAX);
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                Some(tried) = tries.join_next() => if let Ok(tried) = tried { desk.ended(tried) },
                () = tokio::time::sleep_until(idle) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn take_new(&self, desk: &mut Desk) {
        let seen = desk.seen;
        let alerts: Vec<Alert> = self.replica.read(|ledger, _| ledger.alerts_after(seen).collect());
        if alerts.is_empty() {
            return;
        }
        // Where they go is not known to this release: they wait for a leader that can read the policy.
        let Ok(policy) = self.policies.in_force().await else { return };
        for alert in alerts {
            desk.seen = alert.seq;
            self.metrics.policy.alerts_raised.inc();
            let routes = self.policies.alert_routes(&policy, &alert.budget);
            let pending =
                Pending { alert, routes, next_try: Instant::now(), pause: PAUSE_MIN, in_flight: false };
            desk.pending.insert(pending.alert.seq, pending);
        }
    }

    fn start_tries(&self, desk: &mut Desk, tries: &mut JoinSet<Tried>) {
        let at = Instant::now();
        for (seq, pending) in &mut desk.pending {
            if pending.routes.is_empty() || pending.in_flight || pending.next_try > at {
                continue;
            }
            if self.replica.now().since(pending.alert.at) > GIVE_UP_AFTER_MS {
                for route in pending.routes.drain(..) {
                    self.metrics.policy.alerts_given_up.inc();
                    tracing::error!(alert = seq, budget = %pending.alert.budget, to = %route, "gave an alert up after a day");
                }
                continue;
            }
            if tries.len() >= IN_FLIGHT_MAX {
                return;
            }
            pending.in_flight = true;
            tries.spawn(self.clone().attempt(pending.alert.clone(), pending.routes.clone()));
        }
    }

    async fn attempt(self, alert: Alert, routes: Vec<AlertRoute>) -> Tried {
        let id = alert_body::id(&self.cluster, &alert);
        let body = alert_body::json(&self.cluster, &alert);
        let mut left = Vec::new();
        for route in routes {
            match self.send(&route, &id, &body).await {
                Ok(()) => {
                    self.metrics.policy.alerts_delivered.inc();
                }
                Err(problem) => {
                    self.metrics.policy.alerts_failed.inc();
                    tracing::warn!(alert = %id, to = %route, problem, "an alert was not delivered; it is tried again");
                    left.push(route);
                }
            }
        }
        Tried { seq: alert.seq, left }
    }

    async fn send(&self, route: &AlertRoute, id: &str, body: &str) -> Result<(), String> {
        let secret = match &route.secret {
            Some(secret) => {
                let found = self.secrets.find(&secret.name, &secret.key).await;
                Some(found.map_err(|error| error.to_string())?)
            }
            None => None,
        };
        self.webhooks.post(&route.url, id, body.to_owned(), secret.as_ref()).await
    }

    /// Everything up to the first that is not done may be forgotten.
    async fn acknowledge(&self, desk: &mut Desk) {
        let up_to = desk.done_up_to();
        if up_to <= desk.acked {
            return;
        }
        let proposed = tokio::time::timeout(ACK_TIMEOUT, self.proposer.propose(Command::AckAlerts { up_to }));
        match proposed.await {
            Ok(Ok(_)) => {
                desk.acked = up_to;
                desk.pending.retain(|seq, _| *seq > up_to);
            }
            Ok(Err(error)) => tracing::debug!(%error, "deliveries are acknowledged later"),
            Err(_) => tracing::debug!("deliveries are acknowledged later"),
        }
    }
}

impl Desk {
    fn done_up_to(&self) -> u64 {
        let first_open = self.pending.values().find(|pending| !pending.routes.is_empty());
        first_open.map_or(self.seen, |pending| pending.alert.seq - 1)
    }

    fn next_try(&self) -> Option<Instant> {
        let waits = |pending: &&Pending| !pending.routes.is_empty() && !pending.in_flight;
        self.pending.values().filter(waits).map(|pending| pending.next_try).min()
    }

    fn ended(&mut self, tried: Tried) {
        if let Some(pending) = self.pending.get_mut(&tried.seq) {
            pending.routes = tried.left;
            pending.in_flight = false;
            pending.next_try = Instant::now() + pending.pause;
            pending.pause = (pending.pause * 2).min(PAUSE_MAX);
        }
    }
}
