//! Watches: the present state first, then every change as this node applies it, and a sign of life in between.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_ledger::ProviderView;
use quorate_replica::Replica;
use quorate_rpc::budget::watch_event::Kind;
use quorate_rpc::budget::{PolicyDocument, Synced, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::tenants::now;

/// Events that may wait for a slow watcher before it is let go.
const QUEUE: usize = 2_048;
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Under load entries are applied far more often than the watched state changes: look at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
pub(crate) struct Watches {
    pub replica: Replica,
    pub stop: CancellationToken,
}

struct Watch {
    replica: Replica,
    events: mpsc::Sender<Result<WatchEvent, Status>>,
    policy_version: u64,
    providers: BTreeMap<String, ProviderView>,
}

/// The watcher is gone, or too slow.
struct Over;

impl Watches {
    pub fn start(&self, watcher: String) -> ReceiverStream<Result<WatchEvent, Status>> {
        let (events, stream) = mpsc::channel(QUEUE);
        let watch =
            Watch { replica: self.replica.clone(), events, policy_version: 0, providers: BTreeMap::new() };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                Over = watch.run() => tracing::debug!(watcher, "watch ended"),
                () = stop.cancelled() => {}
            }
        });
        ReceiverStream::new(stream)
    }
}

impl Watch {
    async fn run(mut self) -> Over {
        let mut applied = self.replica.applied();
        let mut sign_of_life = Instant::now();
        loop {
            applied.mark_unchanged();
            if self.send_changes().is_err() {
                return Over;
            }
            if Instant::now() >= sign_of_life {
                if self.send(Kind::Synced(Synced { ledger_time_ms: self.ledger_time_ms() })).is_err() {
                    return Over;
                }
                sign_of_life = Instant::now() + SIGN_OF_LIFE;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return Over },
                () = tokio::time::sleep_until(sign_of_life) => {}
                () = self.events.closed() => return Over,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn ledger_time_ms(&self) -> u64 {
        self.replica.read(|ledger, _| ledger.time()).max(now()).0
    }

    fn send_changes(&mut self) -> Result<(), Over> {
        let known = self.policy_version;
        let (policy, providers) = self.replica.read(|ledger, _| {
            let changed = ledger.policy_version() != known;
            (changed.then(|| ledger.policy()), ledger.providers())
        });
        if let Some(policy) = policy {
            self.policy_version = policy.version;
            self.send(Kind::Policy(PolicyDocument { version: policy.version, document: policy.document }))?;
        }
        for view in providers {
            if self.providers.get(&view.backend) != Some(&view) {
                self.send(Kind::Provider(view.clone().into()))?;
                self.providers.insert(view.backend.clone(), view);
            }
        }
        Ok(())
    }

    fn send(&self, kind: Kind) -> Result<(), Over> {
        self.events.try_send(Ok(WatchEvent { kind: Some(kind) })).map_err(|_| Over)
    }
}
