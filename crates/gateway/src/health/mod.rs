//! What this gateway sees of backends, what the fleet believes of them, and what follows for the next request. Decisions
//! are local: the watched circuits, and this gateway's own news until the ledger has taken them in. Only a claim of a
//! probe asks the cluster.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_ledger::{ProbeVerdict, ProviderCause, ProviderState, TimestampMs};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{budget::BudgetKeeper, core::Providers, metrics::Metrics};

pub(crate) mod limit_headers;
mod local;
mod probe;
mod reporter;
mod resting;
mod standing;

use local::Locals;
pub(crate) use probe::Lease;
pub(crate) use resting::{NoneReady, Resting};
pub(crate) use standing::{Standing, follow};

/// The model of a circuit that is a whole backend's.
const WHOLE: &str = "";
/// Longer names are no circuit's.
const NAME_MAX_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct Health {
    /// The name of this gateway.
    reporter: String,
    lease_ms: u64,
    keeper: Arc<dyn BudgetKeeper>,
    providers: Providers,
    metrics: Arc<Metrics>,
    /// Held for a look or a count only, never over an await.
    locals: Mutex<Locals>,
    /// Something is due earlier than the reporter knows.
    wake: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Where a call went, and which probes it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) backend: &'a str,
    /// As sent to the backend.
    pub(crate) model: &'a str,
    pub(crate) leases: &'a [Lease],
    /// When, by the ledger's clock.
    pub(crate) sent: TimestampMs,
}

impl Health {
    /// Reports until `stop`.
    pub(crate) fn start(
        (reporter, lease_ms): (&str, u64),
        keeper: &Arc<dyn BudgetKeeper>,
        providers: &Providers,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let health = Arc::new(Self {
            reporter: reporter.to_owned(),
            lease_ms,
            keeper: Arc::clone(keeper),
            providers: providers.clone(),
            metrics: Arc::clone(metrics),
            locals: Mutex::default(),
            wake: Notify::new(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        tasks.spawn(reporter::run(Arc::clone(&health)));
        health
    }

    /// The first piece of a stream's answer, so long after it was sent. A probe has passed with it, because the rest may
    /// take minutes; whether the call is a success, its end tells.
    pub(crate) fn begun(&self, place: Place<'_>, first_byte_ms: u64) {
        self.reached(place);
        self.note(place, place.model, Some(ProbeVerdict::Passed), |local| local.measured(first_byte_ms));
    }

    /// The end of an answer that had begun.
    pub(crate) fn completed(&self, place: Place<'_>) {
        self.note(place, place.model, Some(ProbeVerdict::Passed), |local| local.success(None));
    }

    /// A whole answer that served. `first_byte_ms`: since it was sent.
    pub(crate) fn served(&self, place: Place<'_>, first_byte_ms: Option<u64>) {
        self.reached(place);
        self.note(place, place.model, Some(ProbeVerdict::Passed), |local| local.success(first_byte_ms));
    }

    /// An answer that says neither good nor bad of the model: the caller was wrong. A probe has passed with it, because
    /// the backend answers.
    pub(crate) fn answered(&self, place: Place<'_>) {
        self.reached(place);
        if place.leases.iter().any(|lease| lease.is_of(place.model)) {
            self.note(place, place.model, Some(ProbeVerdict::Passed), |_| ());
        }
    }

    /// The backend limits. `rest_ms`: as long as it asked for, or 0.
    pub(crate) fn limited(&self, place: Place<'_>, reason: &str, rest_ms: u64) {
        tracing::info!(backend = place.backend, model = place.model, reason, rest_ms, "backend limits");
        self.reached(place);
        let now = self.keeper.now();
        self.note(place, place.model, Some(ProbeVerdict::Failed), |local| {
            local.limited(reason, rest_ms, now)
        });
    }

    /// The head of a good status says that this call was the last for a while. What follows the head judges the call.
    pub(crate) fn used_up(&self, place: Place<'_>, rest_ms: u64) {
        let (reason, now) = ("nothing left of its limit", self.keeper.now());
        tracing::info!(backend = place.backend, model = place.model, reason, rest_ms, "backend limits");
        self.note(place, place.model, None, |local| local.limited(reason, rest_ms, now));
    }

    /// It was reached, and failed.
    pub(crate) fn failed(&self, place: Place<'_>, reason: &str) {
        self.reached(place);
        if self.is_of_old_trouble(place, place.model) {
            return;
        }
        tracing::info!(backend = place.backend, model = place.model, reason, "backend fails");
        let now = self.keeper.now();
        self.note(place, place.model, Some(ProbeVerdict::Failed), |local| local.failure(reason, now));
    }

    /// It could not be reached, whatever the model.
    pub(crate) fn unreachable(&self, place: Place<'_>, reason: &str) {
        if self.is_of_old_trouble(place, WHOLE) {
            return;
        }
        tracing::info!(backend = place.backend, reason, "backend cannot be reached");
        let now = self.keeper.now();
        self.note(place, WHOLE, Some(ProbeVerdict::Failed), |local| local.failure(reason, now));
    }

    /// The failure of a call from before the circuit closed again: that trouble is over, and this one no news. Not of the
    /// probe that closed it itself, and broke off later.
    fn is_of_old_trouble(&self, place: Place<'_>, model: &str) -> bool {
        if place.leases.iter().any(|lease| lease.is_of(model)) {
            return false;
        }
        let providers = self.providers.borrow();
        quorate_rpc::circuit(&providers, place.backend, model).is_some_and(|view| {
            view.state == ProviderState::Closed && view.openings > 0 && place.sent < view.since
        })
    }

    /// Any answer at all says that the backend can be reached. Only told where that was ever in doubt.
    fn reached(&self, place: Place<'_>) {
        // One lock after the other: whoever holds the watched circuits may wait for the local ones.
        let is_local = self.locals.lock().get(place.backend, WHOLE).is_some();
        let is_watched = || quorate_rpc::circuit(&self.providers.borrow(), place.backend, WHOLE).is_some();
        if is_local || is_watched() {
            self.note(place, WHOLE, Some(ProbeVerdict::Passed), |local| local.success(None));
        }
    }

    /// Takes news of one circuit up, and the verdict with it if there is one and the call was its probe.
    fn note(
        &self,
        place: Place<'_>,
        model: &str,
        verdict: Option<ProbeVerdict>,
        change: impl FnOnce(&mut local::LocalCircuit),
    ) {
        if !is_name(place.backend) || !(model.is_empty() || is_name(model)) {
            return;
        }
        let mut locals = self.locals.lock();
        let Some(local) = locals.get_or_make(place.backend, model) else { return };
        change(local);
        let lease = place.leases.iter().find(|lease| lease.is_of(model));
        if let (Some(lease), Some(verdict)) = (lease, verdict) {
            lease.end(local, verdict);
        }
        // Most calls only add to what the reporter waits for already.
        let sooner = local.wakes();
        drop(locals);
        if sooner {
            self.wake.notify_one();
        }
    }
}

/// What the ledger takes as a name.
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// In sentences.
fn cause(cause: Option<ProviderCause>) -> &'static str {
    match cause {
        Some(ProviderCause::Limited) => "is limited",
        Some(ProviderCause::Failing) => "fails",
        None => "rests",
    }
}
