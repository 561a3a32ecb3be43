//! How a connection to a backend comes about: DNS without the addresses that no provider has, a proxy where one is set,
//! TLS, all of it within one deadline.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection, HttpConnector,
            dns::{GaiResolver, Name},
            proxy::Tunnel,
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use quorate_policy::is_forbidden;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{config::Proxy, tls::Tls};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Tcp = HttpConnector<SafeResolver>;
type Pending<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Which proxy a request takes.
#[derive(Debug, Clone)]
pub(crate) enum Via {
    /// As the environment says: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY. Never for this machine itself.
    Environment(Arc<Matcher>),
    Proxy(Arc<Matcher>),
    Direct,
}

impl Via {
    /// `proxy` of the config, else the environment.
    pub(crate) fn new(proxy: Option<&Proxy>, environment: &Arc<Matcher>) -> Self {
        match proxy {
            None => Self::Environment(Arc::clone(environment)),
            Some(Proxy::None) => Self::Direct,
            Some(Proxy::Url(url)) => Self::Proxy(Arc::new(Matcher::builder().all(url.as_str()).build())),
        }
    }

    fn of(&self, url: &Uri) -> Option<Intercept> {
        match self {
            Self::Environment(_) if is_loopback(url) => None,
            Self::Environment(matcher) | Self::Proxy(matcher) => matcher.intercept(url),
            Self::Direct => None,
        }
    }

    /// What a request to `url` has to show the proxy itself; tunnels show it when they are made.
    pub(crate) fn authorization(&self, url: &Uri) -> Option<HeaderValue> {
        if url.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        let mut value = self.of(url)?.basic_auth()?.clone();
        value.set_sensitive(true);
        Some(value)
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Bounds connecting as a whole: DNS, TCP, proxy and TLS.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<Proxied>,
    within: Duration,
}

impl Connector {
    pub(crate) fn new(tls: &Tls, via: Via, within: Duration) -> Result<Self, String> {
        let mut tcp = HttpConnector::new_with_resolver(SafeResolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(tls.client_config()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp.clone());
        let https = HttpsConnectorBuilder::new().with_tls_config(tls.client_config()?).https_or_http();
        let https = match tls.server_name()? {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => https,
        };
        let inner = https.enable_http1().enable_http2().wrap_connector(Proxied { tcp, to_proxy, via });
        Ok(Self { inner, within })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Hop>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

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

/// The way to the host of a URL, before any TLS with it.
#[derive(Debug, Clone)]
pub(crate) struct Proxied {
    tcp: Tcp,
    to_proxy: HttpsConnector<Tcp>,
    via: Via,
}

impl Service<Uri> for Proxied {
    type Response = Hop;
    type Error = BoxError;
    type Future = Pending<Hop>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let Some(proxy) = self.via.of(&url) else {
            let connecting = self.tcp.call(url);
            return Box::pin(async move {
                let stream = MaybeHttpsStream::Http(connecting.await?);
                Ok(Hop { stream, absolute: false })
            });
        };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Box::pin(async { Err("a proxy is spoken to by http:// or https:// only".into()) });
        }
        let through = |error: BoxError, proxy: &Intercept| -> BoxError {
            let host = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
            format!("proxy {host}: {}", causes(&*error)).into()
        };
        if url.scheme() == Some(&Scheme::HTTPS) {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            let connecting = tunnel.call(url);
            return Box::pin(async move {
                let stream = connecting.await.map_err(|error| through(error.into(), &proxy))?;
                Ok(Hop { stream, absolute: false })
            });
        }
        let connecting = self.to_proxy.call(proxy.uri().clone());
        Box::pin(async move {
            let stream = connecting.await.map_err(|error| through(error, &proxy))?;
            Ok(Hop { stream, absolute: true })
        })
    }
}

/// A connection to the backend, or to a proxy that speaks to it.
#[derive(Debug)]
pub(crate) struct Hop {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Requests name the whole URL, because the proxy reads them.
    absolute: bool,
}

impl Connection for Hop {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.absolute)
    }
}

impl Read for Hop {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Hop {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}

/// DNS without the addresses that no provider has.
#[derive(Debug, Clone)]
pub(crate) struct SafeResolver(GaiResolver);

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
                resolving.await?.filter(|address| !is_forbidden(address.ip())).collect();
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

/// An error with its causes and, where there is one, its remedy: for the log.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut remedy = crate::tls::remedy(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        remedy = remedy.or_else(|| crate::tls::remedy(error));
        cause = error.source();
    }
    if let Some(remedy) = remedy {
        text.push_str("; ");
        text.push_str(remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_which_proxy() {
        let environment = Matcher::builder().all("http://env:1").no("internal.example").build();
        let environment = Arc::new(environment);
        let own = Proxy::Url("http://me:hush@own:2".to_owned());
        for (proxy, url, expected) in [
            (None, "https://api.openai.com/v1", Some("http://env:1/")),
            (None, "https://internal.example/v1", None),
            (None, "http://127.0.0.1:9/v1", None),
            (None, "http://[::1]:9/v1", None),
            (None, "http://LOCALHOST/v1", None),
            (Some(&Proxy::None), "https://api.openai.com/v1", None),
            (Some(&own), "https://api.openai.com/v1", Some("http://own:2/")),
            (Some(&own), "http://127.0.0.1:9/v1", Some("http://own:2/")),
        ] {
            let via = Via::new(proxy, &environment);
            let url: Uri = url.parse().unwrap();
            assert_eq!(via.of(&url).map(|found| found.uri().to_string()).as_deref(), expected, "{url}");
            assert!(!format!("{via:?}").contains("hush"));
            let shows = proxy == Some(&own) && url.scheme_str() == Some("http");
            assert_eq!(via.authorization(&url).is_some(), shows, "{url}");
        }
    }
}
