//! The listener of the service: gRPC, in plaintext or with TLS, until the gateway stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use quorate_rpc::rls::rate_limit_service_server::RateLimitServiceServer;
use quorate_rpc::tls::{HttpListener, Names, Protocol};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tower_service::Service as _;

use super::config::RateLimitConfig;
use super::local_holds::LocalHolds;
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

/// The other service here, for proxies that ask before they send anything: `grpc.health.v1`.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";
/// What it is asked for: everything, or this service.
const HEALTH_NAMES: [&str; 2] = ["", "envoy.service.ratelimit.v3.RateLimitService"];

/// A bound socket and the certificates for it.
pub(crate) struct Listening {
    listener: HttpListener,
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
        let listener = HttpListener::new(listener, tls);
        Ok(Self { listener, config: Arc::new(config.clone()), address })
    }
}

/// Serves until the core's `stop`; what is at work is answered. One service and nothing around it but its health: no router,
/// no layers, which all calls would go through.
pub(crate) async fn serve(listening: Listening, core: Arc<Core>) {
    let Listening { mut listener, config, .. } = listening;
    let within = Duration::from_millis(core.config.timeouts.stop_ms);
    let stop = core.stop.clone();
    let places = Arc::new(Semaphore::new(config.in_flight_max.min(Semaphore::MAX_PERMITS)));
    let (reporter, health) = health_reporter();
    tell(&reporter, ServingStatus::NotServing).await;
    tokio::spawn(report(reporter, Arc::clone(&core)));
    if config.hold_from_leases {
        tokio::spawn(LocalHolds::run(Arc::clone(&core), config.reservation_ms));
    }
    let service = RateLimitServiceServer::new(Service { core, config, places });
    let service = service.max_decoding_message_size(MESSAGE_MAX_BYTES);
    let http = builder();
    let graceful = GracefulShutdown::new();
    while let Some((stream, _)) = stop.run_until_cancelled(listener.accept()).await {
        let (service, health) = (service.clone(), health.clone());
        let answer = service_fn(move |request: http::Request<Incoming>| {
            if request.uri().path().starts_with(HEALTH_PATH) {
                Either::Left(health.clone().call(request))
            } else {
                Either::Right(service.clone().call(request))
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the rate limit service ended");
            }
        });
    }
    drop(listener);
    if timeout(within, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections of the rate limit service did not end in time");
    }
}

/// Well from the first policy on, until the gateway stops.
async fn report(mut reporter: HealthReporter, core: Arc<Core>) {
    let mut policy = core.policy.clone();
    let first = core.stop.run_until_cancelled(policy.wait_for(Option::is_some)).await;
    let is_there = matches!(first, Some(Ok(_)));
    drop(first);
    if is_there {
        tell(&reporter, ServingStatus::Serving).await;
        core.stop.cancelled().await;
    }
    tell(&reporter, ServingStatus::NotServing).await;
    // Who watches is told so, and holds no connection open.
    for name in HEALTH_NAMES {
        reporter.clear_service_status(name).await;
    }
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, status).await;
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // gRPC has no use for it.
        .auto_date_header(false)
        .keep_alive_interval(Some(KEEPALIVE_EVERY))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}
