//! Claims of probes: one request of the whole fleet tries whether a backend works again, for a bounded time.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use quorate_ledger::{Command, Outcome, ProbeRefusal, ProbeVerdict};

use super::{
    Health,
    local::LocalCircuit,
    standing::{self, Standing},
};
use crate::budget::KeeperError;

/// How long a request waits for the cluster's decision; then it goes elsewhere.
const CLAIM_WITHIN: Duration = Duration::from_secs(1);
/// After a refusal the watch tells what there is to know.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A request is the probe of one circuit. Dropped without a verdict, it gives the probe up, so that the next may have it
/// at once; if even that is lost, the lease runs out in the ledger.
#[derive(Debug)]
pub(crate) struct Lease {
    health: Arc<Health>,
    backend: String,
    model: String,
    probe: u64,
    /// By the ledger. Otherwise the cluster is away, and this gateway tries alone.
    granted: bool,
    ended: AtomicBool,
}

impl Lease {
    pub(super) fn is_of(&self, model: &str) -> bool {
        self.model == model
    }

    /// The first verdict counts.
    pub(super) fn end(&self, local: &mut LocalCircuit, verdict: ProbeVerdict) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.granted {
            self.health.metrics.probe(verdict);
            local.end_probe(self.probe, verdict);
        } else {
            local.drop_claim(Duration::ZERO);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        if let Some(local) = self.health.locals.lock().get_mut(&self.backend, &self.model) {
            self.end(local, ProbeVerdict::GivenUp);
        }
        self.health.wake.notify_one();
    }
}

impl Health {
    /// Claims what must be probed before a request may go there. `None`: it may not. `alone`: the cluster is away, and
    /// requests go on without it.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        backend: &str,
        model: &str,
        alone: bool,
    ) -> Option<Vec<Lease>> {
        let mut leases = Vec::new();
        // The whole backend first: the ledger grants nothing of one that is in doubt.
        for level in standing::levels(model) {
            match self.standing_of(backend, level) {
                Standing::Ready => {}
                Standing::Rests(_) => return None,
                Standing::MayProbe => leases.extend(self.claim_one(backend, level, alone).await?),
            }
        }
        Some(leases)
    }

    /// `Some(None)`: it is closed by now.
    async fn claim_one(self: &Arc<Self>, backend: &str, model: &str, alone: bool) -> Option<Option<Lease>> {
        let probe = rand::random();
        if !self.locals.lock().get_or_make(backend, model)?.begin_claim(probe) {
            return None;
        }
        let mut lease = Lease {
            health: Arc::clone(self),
            backend: backend.to_owned(),
            model: model.to_owned(),
            probe,
            granted: true,
            ended: AtomicBool::new(false),
        };
        let command = Command::ClaimProbe {
            backend: backend.to_owned(),
            model: model.to_owned(),
            holder: self.reporter.clone(),
            probe,
            lease_ms: self.lease_ms,
        };
        let decided = self.keeper.execute(command, CLAIM_WITHIN).await;
        tracing::debug!(backend, model, ?decided, "probe claimed");
        match decided {
            Ok(Outcome::ProbeGranted { .. }) => {
                tracing::info!(backend, model, "this request probes whether the backend works again");
                Some(Some(lease))
            }
            Ok(Outcome::ProbeRefused(refusal)) => {
                let pause = match &refusal {
                    ProbeRefusal::NotNeeded => Duration::ZERO,
                    ProbeRefusal::Resting { until } => {
                        Duration::from_millis(until.since(self.keeper.now()).min(1_000))
                    }
                    ProbeRefusal::Held { .. } | ProbeRefusal::Drained => AFTER_REFUSAL,
                };
                lease.withdraw(pause);
                (refusal == ProbeRefusal::NotNeeded).then_some(None)
            }
            Err(_) if alone => {
                lease.granted = false;
                Some(Some(lease))
            }
            // Nothing of it came about.
            Err(KeeperError::Unavailable { .. }) => {
                lease.withdraw(AFTER_FAILURE);
                None
            }
            // It may have been granted: dropping the lease gives it back.
            Err(KeeperError::Unknown { .. }) => None,
            Ok(other) => {
                tracing::warn!(backend, model, ?other, "unexpected answer to a claim");
                lease.withdraw(AFTER_FAILURE);
                None
            }
        }
    }
}

impl Lease {
    /// There is nothing to give up.
    fn withdraw(&self, pause: Duration) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(local) = self.health.locals.lock().get_mut(&self.backend, &self.model) {
            local.drop_claim(pause);
        }
    }
}
