//! The stage that calls a backend: one pooled client for all, with deadlines on connecting and on the first byte.
//!
//! Deliberately absent: redirects, retries of requests that may have been received, and addresses from DNS where no
//! provider can be.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::{TokioExecutor, TokioTimer},
};
use thiserror::Error;
use tower_service::Service;

use crate::{backend::Backend, config::Timeouts, error::GatewayError};

/// Idle connections kept per backend.
const POOL_IDLE_MAX: usize = 1024;
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// No answer began.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// Certainly nothing was sent: no connection came about.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The backend may have received the request, and may charge for it.
    #[error("no answer: {0}")]
    Unanswered(String),
    #[error("no answer in time")]
    TimedOut,
    /// The gateway stops.
    #[error("no answer before the gateway had to stop")]
    CutOff,
}

#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    client: Client<TimedConnector, Full<Bytes>>,
    first_byte_within: Duration,
}

impl Upstream {
    pub(crate) fn new(timeouts: &Timeouts) -> Result<Self, GatewayError> {
        let mut http = HttpConnector::new_with_resolver(SafeResolver(GaiResolver::new()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(60)));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| GatewayError::Config(format!("TLS is not available: {error}")))?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let connector = TimedConnector { inner: https, within: Duration::from_millis(timeouts.connect_ms) };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .timer(TokioTimer::new())
            .build(connector);
        Ok(Self { client, first_byte_within: Duration::from_millis(timeouts.first_byte_ms) })
    }

    /// Sends one request; returns when the head of the answer is there.
    pub(crate) async fn send(
        &self,
        backend: &Backend,
        method: Method,
        target: (&str, Option<&str>),
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        let url = backend.url(target.0, target.1).map_err(|error| SendError::NotSent(error.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url;
        *request.headers_mut() = headers;
        match tokio::time::timeout(self.first_byte_within, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(SendError::NotSent(causes(&error))),
            Ok(Err(error)) => Err(SendError::Unanswered(causes(&error))),
            Err(_) => Err(SendError::TimedOut),
        }
    }
}

/// An error with its causes, for the log.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Https = HttpsConnector<HttpConnector<SafeResolver>>;

/// Bounds connecting as a whole: DNS, TCP and TLS.
#[derive(Debug, Clone)]
struct TimedConnector {
    inner: Https,
    within: Duration,
}

impl Service<Uri> for TimedConnector {
    type Response = <Https as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let (connecting, within) = (self.inner.call(url), self.within);
        Box::pin(async move {
            match tokio::time::timeout(within, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long").into()),
            }
        })
    }
}

/// DNS without the addresses that no provider has.
#[derive(Debug, Clone)]
struct SafeResolver(GaiResolver);

impl Service<Name> for SafeResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async move {
            let allowed: Vec<SocketAddr> =
                resolving.await?.filter(|address| !crate::backend::is_forbidden(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    "no usable address for this host",
                ));
            }
            Ok(allowed.into_iter())
        })
    }
}
