//! The stage that calls a backend: over pooled connections, within the backend's bounds, with its credentials put on
//! last, with deadlines on connecting and on the first byte.
//!
//! Deliberately absent: redirects, and retries of requests that may have been received.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::proxy::matcher::Matcher;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    auth::Fetch,
    backend::Backend,
    config::Timeouts,
    connector::{Via, causes},
    error::GatewayError,
    link::{Link, LinkSpec},
    tls::Tls,
};

/// No answer began.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// Certainly nothing was sent: no connection came about.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Nothing was sent: it is at its own limit of requests at once.
    #[error("not sent: it is at its limit of requests at once")]
    Busy,
    /// Nothing was sent: this gateway has no credentials for it.
    #[error("not sent, no credentials: {0}")]
    NoCredentials(String),
    /// The backend may have received the request, and may charge for it.
    #[error("no answer: {0}")]
    Unanswered(String),
    #[error("no answer in time")]
    TimedOut,
    /// The gateway stops.
    #[error("no answer before the gateway had to stop")]
    CutOff,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    /// By the way to a backend. A lock: it is taken once for each backend of a policy, not for requests.
    links: Mutex<HashMap<Arc<LinkSpec>, Weak<Link>>>,
    environment: Arc<Matcher>,
    timeouts: Timeouts,
    fetch: Fetch,
}

impl Upstream {
    pub(crate) fn new(timeouts: &Timeouts) -> Result<Self, GatewayError> {
        Self::with(timeouts, Matcher::from_env())
    }

    pub(crate) fn with(timeouts: &Timeouts, environment: Matcher) -> Result<Self, GatewayError> {
        let environment = Arc::new(environment);
        let open = |via| Link::new(&Tls::default(), via, timeouts.connect_ms).map_err(GatewayError::Config);
        let fetch = Fetch { outside: open(Via::new(None, &environment))?, machine: open(Via::Direct)? };
        Ok(Self { links: Mutex::default(), environment, timeouts: *timeouts, fetch })
    }

    /// Sends one request; returns when the head of the answer is there.
    pub(crate) async fn send(
        &self,
        backend: &Backend,
        method: Method,
        target: (&str, Option<&str>),
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let slot = backend.enter().map_err(|_| SendError::Busy)?;
        let url = backend.url(target.0, target.1).map_err(|error| SendError::NotSent(error.to_string()))?;
        let link = backend.link(|spec| self.link(spec)).map_err(SendError::NotSent)?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        if let Some(authorization) = link.via.authorization(&url) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
        *request.uri_mut() = url;
        backend.authorize(&self.fetch, &mut request, &body).await.map_err(SendError::NoCredentials)?;
        let within = backend.first_byte_ms.unwrap_or(self.timeouts.first_byte_ms);
        match tokio::time::timeout(Duration::from_millis(within), link.client.request(request)).await {
            Ok(Ok(response)) => Ok(response.map(|inner| UpstreamBody { inner, _slot: slot })),
            Ok(Err(error)) if error.is_connect() => Err(SendError::NotSent(causes(&error))),
            Ok(Err(error)) => Err(SendError::Unanswered(causes(&error))),
            Err(_) => Err(SendError::TimedOut),
        }
    }

    /// The one link for this way. It lives as long as a backend holds it.
    fn link(&self, spec: &Arc<LinkSpec>) -> Result<Arc<Link>, String> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(spec).and_then(Weak::upgrade) {
            return Ok(link);
        }
        let via = Via::new(spec.proxy.as_ref(), &self.environment);
        let connect_ms = spec.connect_ms.unwrap_or(self.timeouts.connect_ms);
        let link = Arc::new(Link::new(&spec.tls, via, connect_ms)?);
        links.retain(|_, link| link.strong_count() > 0);
        links.insert(Arc::clone(spec), Arc::downgrade(&link));
        Ok(link)
    }
}

/// The body of an answer. The request counts as in flight at its backend until it is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    inner: Incoming,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
