//! Who watches this node now: soft state for `quorate get gateways`, bounded, gone with the connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use quorate_rpc::admin;
use quorate_rpc::budget::WatchRequest;

/// Watches that a node serves at the same time; more are sent to another node.
const WATCHERS_MAX: usize = 8_192;
/// What a watcher says of itself is shown to people: so many bytes of it.
const TEXT_MAX_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Watchers {
    node_id: u64,
    /// Held for a look-up only, never over an await.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// By the order in which they came.
    gateways: BTreeMap<u64, admin::Gateway>,
}

/// One watcher, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Watcher {
    watchers: Arc<Watchers>,
    number: u64,
}

impl Watchers {
    pub fn new(node_id: u64) -> Arc<Self> {
        Arc::new(Self { node_id, known: Mutex::default() })
    }

    /// `None`: there are too many.
    pub fn enter(self: &Arc<Self>, address: Option<SocketAddr>) -> Option<Watcher> {
        let mut known = self.known.lock();
        if known.gateways.len() >= WATCHERS_MAX {
            return None;
        }
        let number = known.next;
        known.next += 1;
        let gateway = admin::Gateway {
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            node_id: self.node_id,
            connected_at_ms: wall_ms(),
            ..admin::Gateway::default()
        };
        known.gateways.insert(number, gateway);
        Some(Watcher { watchers: self.clone(), number })
    }

    /// Those that have said who they are.
    pub fn list(&self) -> Vec<admin::Gateway> {
        let known = self.known.lock();
        known.gateways.values().filter(|gateway| !gateway.name.is_empty()).cloned().collect()
    }
}

impl Watcher {
    pub fn said(&self, request: WatchRequest) {
        if let Some(gateway) = self.watchers.known.lock().gateways.get_mut(&self.number) {
            gateway.name = cut(request.watcher);
            gateway.policy_version = request.policy_version;
            gateway.policy_error = cut(request.policy_error);
            gateway.version = cut(request.version);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.known.lock().gateways.remove(&self.number);
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
    }
    text
}
/// For people; nothing is decided by it.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
