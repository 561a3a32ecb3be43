//! Whether a backend may be used for a model now: what the fleet believes, and what only this gateway knows yet.

use std::sync::Arc;

use quorate_ledger::{ProviderState, ProviderView, TimestampMs};

use super::{Health, WHOLE, is_name, local::LocalCircuit, resting::Resting};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    /// Its rest is over, and nobody has tried yet.
    MayProbe,
    Rests(Resting),
}

/// The circuits that a call passes: the whole backend's, then its model's.
pub(super) fn levels(model: &str) -> impl Iterator<Item = &str> {
    [WHOLE].into_iter().chain(is_name(model).then_some(model))
}

impl Health {
    /// Without asking anybody.
    pub(crate) fn standing(&self, backend: &str, model: &str) -> Standing {
        let providers = self.providers.borrow();
        if is_drained(&providers, backend) {
            return Standing::Rests(Resting::drained());
        }
        let locals = self.locals.lock();
        let (known, own) = (providers.get(backend), locals.of(backend));
        let mut standing = Standing::Ready;
        for level in levels(model) {
            let view = known.and_then(|models| models.get(level));
            let local = own.and_then(|models| models.get(level));
            match of(view, local, || self.keeper.now()) {
                Standing::Ready => {}
                Standing::MayProbe => standing = Standing::MayProbe,
                rests => return rests,
            }
        }
        standing
    }

    /// One circuit.
    pub(super) fn standing_of(&self, backend: &str, model: &str) -> Standing {
        let providers = self.providers.borrow();
        if is_drained(&providers, backend) {
            return Standing::Rests(Resting::drained());
        }
        let locals = self.locals.lock();
        let view = quorate_rpc::circuit(&providers, backend, model);
        of(view, locals.get(backend, model), || self.keeper.now())
    }
}

/// By an operator, under its name with or without the namespace.
fn is_drained(providers: &quorate_rpc::Providers, backend: &str) -> bool {
    let whole = |name: &str| quorate_rpc::circuit(providers, name, WHOLE);
    let bare = backend.rsplit_once('/').map(|(_, bare)| bare);
    let drained = |view: &ProviderView| view.drained_since.is_some();
    whole(backend).into_iter().chain(bare.and_then(whole)).any(drained)
}

fn of(view: Option<&ProviderView>, local: Option<&LocalCircuit>, now: impl Fn() -> TimestampMs) -> Standing {
    let revision = view.map_or(0, |view| view.revision);
    if let Some(rest) = local.and_then(|local| local.rests(revision, &now)) {
        return Standing::Rests(Resting::of_rest(rest));
    }
    let Some(view) = view.filter(|view| view.state != ProviderState::Closed) else { return Standing::Ready };
    if view.until.is_some_and(|until| until > now()) {
        return Standing::Rests(Resting::of_view(view));
    }
    match local.is_some_and(LocalCircuit::is_claimed) {
        true => Standing::Rests(Resting::claimed(view)),
        false => Standing::MayProbe,
    }
}

/// What became known: for the log and the metrics, by the watch's own task.
pub(crate) async fn follow(
    mut providers: crate::core::Providers,
    metrics: Arc<crate::metrics::Metrics>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut shown = 0;
    loop {
        let known = providers.borrow_and_update().clone();
        let changed = known.values().flat_map(|models| models.values()).filter(|view| view.revision > shown);
        let mut newest = shown;
        for view in changed {
            newest = newest.max(view.revision);
            let state = match view.state {
                _ if view.drained_since.is_some() => 3,
                ProviderState::Closed => 0,
                ProviderState::Open => 1,
                ProviderState::HalfOpen => 2,
            };
            metrics.provider_state.set(&view.backend, &view.model, state, view.revision);
        }
        metrics.provider_state.keep(&known);
        shown = newest;
        drop(known);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = providers.changed() => if changed.is_err() { return },
        }
    }
}
