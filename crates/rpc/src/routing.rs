//! Which node to ask: the leader if it is known, else one after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use crate::error::ClientError;
use crate::tls::{Connector, Security};

/// Response metadata with the address of the leader.
pub const LEADER_HEADER: &str = "x-quorate-leader";
/// Request metadata of a call that a node passes on: the receiver does not pass it on again.
pub const FORWARDED_HEADER: &str = "x-quorate-forwarded";

/// A policy and the manifests it came from fit; the library's own limit of 4 MiB is too near to theirs.
pub const MESSAGE_MAX_BYTES: usize = 32 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Leaders seen that are not in the configured list.
const CHANNELS_MAX: usize = 64;

/// The nodes of a cluster and a lazily connected channel to each.
#[derive(Debug)]
pub(crate) struct Routes {
    nodes: Vec<String>,
    security: Security,
    next: AtomicUsize,
    /// Held for a look-up only, never over an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leader: Option<String>,
    channels: HashMap<String, Channel>,
}

impl Routes {
    pub fn new(nodes: &[String], security: Security) -> Self {
        let nodes = nodes.iter().map(|node| bare(node)).collect();
        Self { nodes, security, next: AtomicUsize::new(0), state: Mutex::default() }
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    pub fn leader(&self) -> Option<String> {
        self.state.lock().leader.clone()
    }

    pub fn set_leader(&self, address: &str) {
        if !address.is_empty() {
            self.state.lock().leader = Some(bare(address));
        }
    }

    /// The address failed or says that it does not lead: ask another one next time.
    pub fn forget_leader(&self, address: &str) {
        let mut state = self.state.lock();
        if state.leader.as_deref() == Some(address) {
            state.leader = None;
        }
    }

    /// The leader, or the next node in turn.
    pub fn pick(&self) -> Option<String> {
        self.leader().or_else(|| self.pick_next())
    }

    pub fn pick_next(&self) -> Option<String> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.nodes.get(turn % self.nodes.len().max(1)).cloned()
    }

    pub fn channel(&self, address: &str) -> Result<Channel, ClientError> {
        let mut state = self.state.lock();
        if let Some(channel) = state.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = channel(address, &self.security)?;
        if state.channels.len() >= CHANNELS_MAX {
            state.channels.clear();
        }
        state.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// A channel to the node at `host:port`, which connects when first used and again whenever the connection was lost.
///
/// # Errors
/// The address is none.
pub fn channel(address: &str, security: &Security) -> Result<Channel, ClientError> {
    let endpoint = endpoint(address)?;
    Ok(match security {
        Security::Plain => endpoint.connect_lazy(),
        Security::Mutual(tls) => {
            endpoint.connect_with_connector_lazy(Connector { tls: tls.clone(), to_node: true })
        }
        Security::WithOthers(tls) => {
            endpoint.connect_with_connector_lazy(Connector { tls: tls.clone(), to_node: false })
        }
    })
}

/// # Errors
/// The address is none.
pub fn check_address(address: &str) -> Result<(), ClientError> {
    endpoint(address).map(drop)
}

/// `host:port` with the time limits that everyone uses, for who connects by other means than [`channel`].
///
/// # Errors
/// The address is none.
pub fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let endpoint = Endpoint::from_shared(format!("http://{}", bare(address))).map_err(|error| {
        ClientError::Unavailable {
            message: format!("{address:?} is no address of a node ({error}); wanted host:port"),
            retry_after_ms: 0,
        }
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20))
}

/// `host:port` without a scheme.
fn bare(address: &str) -> String {
    let address =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    address.trim_end_matches('/').to_owned()
}
