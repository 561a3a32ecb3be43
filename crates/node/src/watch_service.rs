//! Watches: the present state first, then every change as this node applies it, and a sign of life in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{CIRCUITS_MAX, ProviderView};
use quorate_replica::Replica;
use quorate_rpc::budget::watch_event::Kind;
use quorate_rpc::budget::{PolicyDocument, ProviderHealth, Synced, WatchEvent, WatchRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::key_set::{KeySet, KeySets};
use crate::watchers::{Watcher, Watchers};

/// Events that may wait for a slow watcher before it is let go. All there is at first fits in.
const QUEUE: usize = 2 * CIRCUITS_MAX;
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Under load entries are applied far more often than the watched state changes: look at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Who watches has so long to say who it is.
const FIRST_WORD: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Watches {
    pub replica: Replica,
    pub keys: KeySets,
    pub watchers: Arc<Watchers>,
    pub stop: CancellationToken,
}

struct Watch {
    replica: Replica,
    keys: KeySets,
    events: mpsc::Sender<Result<WatchEvent, Status>>,
    policy_version: u64,
    providers_revision: u64,
    /// By backend and model, the revision that was sent.
    providers: BTreeMap<(String, String), u64>,
    /// What the watcher had before it came.
    keys_revision: u64,
    keys_sent: Option<KeySet>,
}

/// The watcher is gone, or too slow.
struct Over;

impl Watches {
    /// # Errors
    /// Too many watch already.
    pub fn start(
        &self,
        address: Option<SocketAddr>,
        requests: Streaming<WatchRequest>,
    ) -> Result<ReceiverStream<Result<WatchEvent, Status>>, Status> {
        let watcher = self.watchers.enter(address);
        let watcher = watcher.ok_or_else(|| Status::unavailable("too many watch this node; ask another"))?;
        let (events, stream) = mpsc::channel(QUEUE);
        let (replica, keys, stop) = (self.replica.clone(), self.keys.clone(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                Over = watch(replica, keys, events, watcher, requests) => tracing::debug!("watch ended"),
                () = stop.cancelled() => {}
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

async fn watch(
    replica: Replica,
    keys: KeySets,
    events: mpsc::Sender<Result<WatchEvent, Status>>,
    watcher: Watcher,
    mut requests: Streaming<WatchRequest>,
) -> Over {
    let first = tokio::time::timeout(FIRST_WORD, requests.message()).await;
    let Ok(Ok(Some(first))) = first else { return Over };
    let watch = Watch {
        replica,
        keys,
        events,
        policy_version: 0,
        providers_revision: 0,
        providers: BTreeMap::new(),
        keys_revision: first.keys_revision,
        keys_sent: None,
    };
    watcher.said(first);
    let listen = async {
        while let Ok(Some(request)) = requests.message().await {
            watcher.said(request);
        }
        // It may have nothing more to say and still listen.
        std::future::pending::<Over>().await
    };
    tokio::select! {
        over = watch.run() => over,
        over = listen => over,
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
        self.replica.read(|ledger, _| ledger.time()).max(self.replica.now()).0
    }

    fn send_changes(&mut self) -> Result<(), Over> {
        let known = self.policy_version;
        let policy = self.replica.read(|ledger, _| {
            let changed = ledger.policy_version() != known;
            changed.then(|| ledger.policy())
        });
        if let Some(policy) = policy {
            self.policy_version = policy.version;
            self.send(Kind::Policy(PolicyDocument { version: policy.version, document: policy.document }))?;
        }
        // First what stops requests, then what only new ones need.
        self.send_providers()?;
        self.send_keys()
    }

    fn send_providers(&mut self) -> Result<(), Over> {
        let sent = self.providers_revision;
        let (revision, count, changed) = self.replica.read(|ledger, _| {
            let revision = ledger.providers_revision();
            if revision == sent {
                return (revision, None, Vec::new());
            }
            let changed = ledger.providers().filter(|view| view.revision > sent).collect();
            (revision, Some(ledger.providers().count()), changed)
        });
        let Some(count) = count else { return Ok(()) };
        self.providers_revision = revision;
        let changed: Vec<ProviderView> = changed;
        for view in changed {
            self.providers.insert((view.backend.clone(), view.model.clone()), view.revision);
            self.send(Kind::Provider(view.into()))?;
        }
        if self.providers.len() > count { self.send_forgotten(revision) } else { Ok(()) }
    }

    fn send_forgotten(&mut self, revision: u64) -> Result<(), Over> {
        let kept: BTreeSet<(String, String)> = self
            .replica
            .read(|ledger, _| ledger.providers().map(|view| (view.backend, view.model)).collect());
        let gone: Vec<_> = self.providers.keys().filter(|names| !kept.contains(*names)).cloned().collect();
        for names in gone {
            self.providers.remove(&names);
            let (backend, model) = names;
            let forgotten =
                ProviderHealth { backend, model, revision, forgotten: true, ..ProviderHealth::default() };
            self.send(Kind::Provider(forgotten))?;
        }
        Ok(())
    }

    fn send_keys(&mut self) -> Result<(), Over> {
        let revision = self.replica.read(|ledger, _| ledger.keys_revision());
        let known = self.keys_sent.as_ref().map_or(self.keys_revision, |sent| sent.revision);
        // A node that lags behind what the watcher has seen elsewhere has nothing to tell it yet.
        if revision <= known {
            return Ok(());
        }
        let set = self.keys.latest();
        for keys in set.since(self.keys_sent.as_ref()) {
            self.send(Kind::Keys(keys))?;
        }
        self.keys_sent = Some(set);
        Ok(())
    }

    fn send(&self, kind: Kind) -> Result<(), Over> {
        self.events.try_send(Ok(WatchEvent { kind: Some(kind) })).map_err(|_| Over)
    }
}
