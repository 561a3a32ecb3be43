//! The listener of the service: gRPC, in plaintext or with TLS, until the gateway stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_rpc::rls::rate_limit_service_server::RateLimitServiceServer;
use quorate_rpc::tls::{self, Names, Protocol, ServerTls};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::config::RateLimitConfig;
use super::service::Service;
use crate::core::Core;
use crate::error::GatewayError;

/// What the keys of its section are called, for errors.
const NAMES: Names = Names {
    ca: "rate_limit.tls.client_ca_file",
    cert: "rate_limit.tls.cert_file",
    key: "rate_limit.tls.key_file",
};
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one connection. A proxy has one connection a thread and all of its calls on it.
const STREAMS_MAX: u32 = 8_192;
/// A descriptor is small; this holds all that a question may have.
const MESSAGE_MAX_BYTES: usize = 256 << 10;

/// A bound socket and the certificates for it.
pub(crate) struct Listening {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    config: Arc<RateLimitConfig>,
    pub(crate) address: SocketAddr,
}

impl Listening {
    pub(crate) fn new(
        listener: std::net::TcpListener,
        config: &RateLimitConfig,
    ) -> Result<Self, GatewayError> {
        let unusable =
            |source| GatewayError::Bind { key: "rate_limit.listen", address: config.listen.clone(), source };
        listener.set_nonblocking(true).map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let listener = TcpListener::from_std(listener).map_err(unusable)?;
        // Like any caller over HTTP: a proxy brings the certificate that it has.
        let tls = config.tls.as_ref().map(|files| files.server(NAMES, Protocol::Http)).transpose()?;
        Ok(Self { listener, tls, config: Arc::new(config.clone()), address })
    }
}

/// Serves until the core's `stop`; what is at work is answered.
pub(crate) async fn serve(listening: Listening, core: Arc<Core>) {
    let Listening { listener, tls, config, .. } = listening;
    let stop = core.stop.clone();
    let places = Arc::new(Semaphore::new(config.in_flight_max.min(Semaphore::MAX_PERMITS)));
    let service = RateLimitServiceServer::new(Service { core, config, places });
    let service = service.max_decoding_message_size(MESSAGE_MAX_BYTES);
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .add_service(service);
    let served = match tls {
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        }
        Some(tls) => {
            server.serve_with_incoming_shutdown(tls::incoming(listener, tls), stop.cancelled_owned()).await
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, "the rate limit service ended");
    }
}
