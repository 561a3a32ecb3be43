//! Follows the cluster: the policy document, the health of providers, and the ledger's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_ledger::ProviderView;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::budget::budget_client::BudgetClient;
use crate::budget::watch_event::Kind;
use crate::budget::{PolicyDocument, WatchRequest};
use crate::client::Client;

/// A node sends a sign of life every few seconds; one that does not is given up.
const SILENCE_MAX: Duration = Duration::from_secs(8);
const BACKOFF: Duration = Duration::from_millis(200);

type Providers = Arc<BTreeMap<String, ProviderView>>;

/// Ends the watch when dropped.
#[derive(Debug)]
pub struct WatchHandle {
    policy: watch::Receiver<Option<Arc<PolicyDocument>>>,
    providers: watch::Receiver<Providers>,
    synced: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

struct Senders {
    policy: watch::Sender<Option<Arc<PolicyDocument>>>,
    providers: watch::Sender<Providers>,
    synced: watch::Sender<bool>,
}

impl WatchHandle {
    pub(crate) fn start(client: Client) -> Self {
        let (policy_sender, policy) = watch::channel(None);
        let (providers_sender, providers) = watch::channel(Providers::default());
        let (synced_sender, synced) = watch::channel(false);
        let senders = Senders { policy: policy_sender, providers: providers_sender, synced: synced_sender };
        let task = tokio::spawn(async move {
            loop {
                let ended = follow(&client, &senders).await;
                debug!(%ended, "watch ended; trying another node");
                senders.synced.send_replace(false);
                tokio::time::sleep(BACKOFF).await;
            }
        });
        Self { policy, providers, synced, task }
    }

    /// The policy in force; `None` until one is known. Never goes back to an older version.
    pub fn policy(&self) -> watch::Receiver<Option<Arc<PolicyDocument>>> {
        self.policy.clone()
    }

    /// By backend.
    pub fn providers(&self) -> watch::Receiver<Providers> {
        self.providers.clone()
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

/// Follows one node until it falls silent; says why it ended. Any node will do, so the load is spread.
async fn follow(client: &Client, senders: &Senders) -> String {
    let Some(address) = client.shared.routes.pick_next() else { return "no node is configured".to_owned() };
    let channel = match client.shared.routes.channel(&address) {
        Ok(channel) => channel,
        Err(error) => return error.to_string(),
    };
    let request = WatchRequest { watcher: client.shared.config.name.clone() };
    let opened = timeout(SILENCE_MAX, BudgetClient::new(channel).watch(request)).await;
    let mut events = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return format!("{address}: {}", status.message()),
        Err(_) => return format!("{address} did not answer"),
    };
    loop {
        match timeout(SILENCE_MAX, events.message()).await {
            Ok(Ok(Some(event))) => take(client, senders, event.kind),
            Ok(Ok(None)) => return format!("{address} closed the watch"),
            Ok(Err(status)) => return format!("{address}: {}", status.message()),
            Err(_) => return format!("{address} fell silent"),
        }
    }
}

fn take(client: &Client, senders: &Senders, kind: Option<Kind>) {
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
        Some(Kind::Provider(health)) => match ProviderView::try_from(health) {
            Ok(view) => {
                senders.providers.send_modify(|known| {
                    Arc::make_mut(known).insert(view.backend.clone(), view);
                });
            }
            Err(error) => warn!(%error, "a node sent a provider state that this version does not know"),
        },
        Some(Kind::Synced(synced)) => {
            let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let offset =
                i64::try_from(i128::from(synced.ledger_time_ms) - i128::try_from(local).unwrap_or(0));
            client.shared.clock_offset_ms.store(offset.unwrap_or(0), Ordering::Relaxed);
            senders.synced.send_if_modified(|known| !std::mem::replace(known, true));
        }
        None => {}
    }
}
