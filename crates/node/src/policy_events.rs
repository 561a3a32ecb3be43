//! Alerts and policy versions as this node applies them, for whoever watches.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use quorate_replica::Replica;
use quorate_rpc::admin::{self, event::Kind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::admin_policy_reads::{alert, policy_version};

/// Events that may wait for a slow watcher before it is let go.
const QUEUE: usize = 1_024;
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) type EventStream = Pin<Box<dyn Stream<Item = Result<admin::Event, Status>> + Send>>;

/// The watcher is gone, or too slow.
struct Over;

struct Watch {
    replica: Replica,
    events: mpsc::Sender<Result<admin::Event, Status>>,
    alerts_after: u64,
    policy_version: u64,
}

/// Alerts after the given one that are still kept, and the policy in force; then what comes.
pub(crate) fn watch(replica: Replica, alerts_after: u64, stop: CancellationToken) -> EventStream {
    let (events, stream) = mpsc::channel(QUEUE);
    let watch = Watch { replica, events, alerts_after, policy_version: 0 };
    tokio::spawn(async move {
        tokio::select! {
            Over = watch.run() => {}
            () = stop.cancelled() => {}
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

impl Watch {
    async fn run(mut self) -> Over {
        let mut applied = self.replica.applied();
        loop {
            applied.mark_unchanged();
            if self.send_new().await.is_err() {
                return Over;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return Over },
                () = self.events.closed() => return Over,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn send_new(&mut self) -> Result<(), Over> {
        let (after, known) = (self.alerts_after, self.policy_version);
        let (alerts, policy) = self.replica.read(|ledger, _| {
            let changed = ledger.policy_version() != known;
            let latest = changed.then(|| ledger.policy_history().into_iter().next()).flatten();
            (ledger.recent_alerts(after).collect::<Vec<_>>(), latest)
        });
        if let Some(policy) = policy {
            self.policy_version = policy.version;
            self.send(Kind::Policy(policy_version(policy))).await?;
        }
        for raised in alerts {
            self.alerts_after = raised.seq;
            self.send(Kind::Alert(alert(raised))).await?;
        }
        Ok(())
    }

    /// Waits for room: what is kept of old alerts can be more than the queue holds.
    async fn send(&self, kind: Kind) -> Result<(), Over> {
        let sending = self.events.send_timeout(Ok(admin::Event { kind: Some(kind) }), SLOWEST);
        sending.await.map_err(|_| Over)
    }
}

/// A watcher that takes nothing for so long is let go.
const SLOWEST: Duration = Duration::from_secs(10);
