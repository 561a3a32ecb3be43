//! The connections to backends that are reached in the same way: one pooled client, HTTP/1 or HTTP/2 as the server has it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    config::Proxy,
    connector::{Connector, Via},
    tls::Tls,
};

/// Idle connections kept per backend.
const POOL_IDLE_MAX: usize = 1024;
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// An HTTP/2 connection that does not answer a ping is dead: it is found out before the next request needs it.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to a backend. Backends of equal ways share their connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct LinkSpec {
    pub(crate) tls: Tls,
    /// `None`: as the environment says.
    pub(crate) proxy: Option<Proxy>,
    /// `None`: the gateway's own.
    pub(crate) connect_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client<Connector, Full<Bytes>>,
    pub(crate) via: Via,
}

impl Link {
    pub(crate) fn new(tls: &Tls, via: Via, connect_ms: u64) -> Result<Self, String> {
        let connector = Connector::new(tls, via.clone(), Duration::from_millis(connect_ms))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Self { client, via })
    }
}
