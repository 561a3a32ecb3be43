//! Follows the cluster: the policy document, the health of providers, API keys and the ledger's clock; and tells it
//! which policy version is run here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tracing::{debug, warn};

use crate::budget::budget_client::BudgetClient;
use crate::budget::watch_event::Kind;
use crate::budget::{PolicyDocument, WatchRequest};
use crate::client::Client;
use crate::error::explain;
use crate::routing::MESSAGE_MAX_BYTES;
use crate::watched_keys::{Keys, Parts};
use crate::watched_providers::{Named, Providers};

/// A node sends a sign of life every few seconds; one that does not is given up.
const SILENCE_MAX: Duration = Duration::from_secs(8);
const BACKOFF: Duration = Duration::from_millis(200);
/// As long as no node is there to follow.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The policy version that runs here, and why it is not the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Report {
    policy_version: u64,
    policy_error: String,
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub struct WatchHandle {
    policy: watch::Receiver<Option<Arc<PolicyDocument>>>,
    providers: watch::Receiver<Providers>,
    keys: watch::Receiver<Keys>,
    synced: watch::Receiver<bool>,
    report: watch::Sender<Report>,
    task: JoinHandle<()>,
}

struct Senders {
    policy: watch::Sender<Option<Arc<PolicyDocument>>>,
    providers: watch::Sender<Providers>,
    keys: watch::Sender<Keys>,
    synced: watch::Sender<bool>,
}

/// One watch after the other; what is known stays.
struct Follower {
    client: Client,
    senders: Senders,
    report: watch::Receiver<Report>,
    /// Of the keys that are known: only a newer set is taken up.
    keys_revision: u64,
}

impl WatchHandle {
    pub(crate) fn start(client: Client) -> Self {
        let (policy_sender, policy) = watch::channel(None);
        let (providers_sender, providers) = watch::channel(Providers::default());
        let (keys_sender, keys) = watch::channel(Keys::default());
        let (synced_sender, synced) = watch::channel(false);
        let (report, reports) = watch::channel(Report::default());
        let senders = Senders {
            policy: policy_sender,
            providers: providers_sender,
            keys: keys_sender,
            synced: synced_sender,
        };
        let mut follower = Follower { client, senders, report: reports, keys_revision: 0 };
        let task = tokio::spawn(async move {
            let mut warned: Option<Instant> = None;
            loop {
                let ended = follower.follow().await;
                if follower.senders.synced.send_replace(false) {
                    debug!(%ended, "watch ended; trying another node");
                    warned = None;
                } else if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    let nodes = &follower.client.shared.config.nodes;
                    warn!(%ended, ?nodes, "cannot follow the budget nodes; trying one after the other");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(BACKOFF).await;
            }
        });
        Self { policy, providers, keys, synced, report, task }
    }

    /// Tells the cluster which policy version runs here, and why not the newest if that could not be read
    /// (empty: it could).
    pub fn report(&self, policy_version: u64, policy_error: &str) {
        let report = Report { policy_version, policy_error: policy_error.to_owned() };
        self.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    /// The policy in force; `None` until one is known. Never goes back to an older version.
    pub fn policy(&self) -> watch::Receiver<Option<Arc<PolicyDocument>>> {
        self.policy.clone()
    }

    /// By backend and model.
    pub fn providers(&self) -> watch::Receiver<Providers> {
        self.providers.clone()
    }

    /// The API keys that Quorate issued, revoked and expired ones too. Complete once the watch was `synced`.
    pub fn keys(&self) -> watch::Receiver<Keys> {
        self.keys.clone()
    }

    /// True while connected and caught up.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows one node until it falls silent; says why it ended. Any node will do, so the load is spread.
    async fn follow(&mut self) -> String {
        let routes = &self.client.shared.routes;
        let Some(address) = routes.pick_next() else { return "no node is configured".to_owned() };
        let channel = match routes.channel(&address) {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let (watcher, keys_revision) = (self.client.shared.config.name.clone(), self.keys_revision);
        // The present report first, then each that differs: a channel of one that never fills up.
        let requests = WatchStream::new(self.report.clone()).map(move |report| WatchRequest {
            watcher: watcher.clone(),
            policy_version: report.policy_version,
            policy_error: report.policy_error,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keys_revision,
        });
        let mut client = BudgetClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
        let mut events = match timeout(SILENCE_MAX, client.watch(requests)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return format!("{address}: {}", explain(&status)),
            Err(_) => return format!("{address} did not answer"),
        };
        let (mut parts, mut named) = (Parts::default(), Named::of_a_new_stream());
        loop {
            match timeout(SILENCE_MAX, events.message()).await {
                Ok(Ok(Some(event))) => self.take(event.kind, &mut parts, &mut named),
                Ok(Ok(None)) => return format!("{address} closed the watch"),
                Ok(Err(status)) => return format!("{address}: {}", explain(&status)),
                Err(_) => return format!("{address} fell silent"),
            }
        }
    }

    fn take(&mut self, kind: Option<Kind>, parts: &mut Parts, named: &mut Named) {
        let senders = &self.senders;
        match kind {
            Some(Kind::Policy(document)) => {
                senders.policy.send_if_modified(|known| {
                    let newer = known.as_ref().is_none_or(|known| known.version < document.version);
                    if newer {
                        *known = Some(Arc::new(document));
                    }
                    newer
                });
            }
            Some(Kind::Provider(health)) => {
                let mut taken = Ok(false);
                senders.providers.send_if_modified(|known| {
                    taken = named.take(health, known);
                    matches!(taken, Ok(true))
                });
                if let Err(error) = taken {
                    warn!(%error, "a node sent a provider state that this version does not know");
                }
            }
            // A node that lags behind may know less than is known here: a revoked key must stay revoked.
            Some(Kind::Keys(keys)) if keys.revision > self.keys_revision => {
                let revision = keys.revision;
                let mut taken = Ok(false);
                senders.keys.send_if_modified(|known| {
                    taken = parts.take(keys, known);
                    matches!(taken, Ok(true))
                });
                match taken {
                    Ok(true) => self.keys_revision = revision,
                    Ok(false) => {}
                    Err(error) => warn!(%error, "a node sent a key that this version does not know"),
                }
            }
            Some(Kind::Synced(synced)) => {
                let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let offset =
                    i64::try_from(i128::from(synced.ledger_time_ms) - i128::try_from(local).unwrap_or(0));
                self.client.shared.clock_offset_ms.store(offset.unwrap_or(0), Ordering::Relaxed);
                senders.providers.send_if_modified(|known| named.up_to_date(known));
                senders.synced.send_if_modified(|known| !std::mem::replace(known, true));
            }
            Some(Kind::Keys(_)) | None => {}
        }
    }
}
