//! Sends an alert to an HTTP endpoint: signed, with a stable id, within a bounded time.
//!
//! Deliberately absent: redirects, proxies, link-local addresses (where clouds keep their metadata services), and any
//! reading of the answer beyond its status.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioExecutor;
use quorate_policy::is_forbidden;
use ring::hmac;
use tower_service::Service;

use crate::error::NodeError;
use crate::secrets::Secret;

/// One try as a whole: name, connection, TLS, request, status.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// The same for every try of the same alert: the receiver drops what it has seen.
pub(crate) const ID_HEADER: &str = "quorate-alert-id";
pub(crate) const SIGNATURE_HEADER: &str = "quorate-signature";

#[derive(Debug, Clone)]
pub(crate) struct Webhooks {
    client: Client<HttpsConnector<HttpConnector<SafeResolver>>, Full<Bytes>>,
}

impl Webhooks {
    /// # Errors
    /// TLS is not available.
    pub fn new() -> Result<Self, NodeError> {
        let mut http = HttpConnector::new_with_resolver(SafeResolver(GaiResolver::new()));
        http.enforce_http(false);
        http.set_connect_timeout(Some(TRY_WITHIN / 2));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| NodeError::Config(format!("TLS is not available: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // Alerts are rare: a connection of an hour ago is of no use.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https);
        Ok(Self { client })
    }

    /// Posts a JSON body. Any 2xx is success.
    ///
    /// # Errors
    /// What went wrong, without the URL's query and the secret.
    pub async fn post(
        &self,
        url: &str,
        id: &str,
        body: String,
        secret: Option<&Secret>,
    ) -> Result<(), String> {
        let url: Uri = url.parse().map_err(|error| format!("its URL is none: {error}"))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse().is_ok_and(is_forbidden) {
            return Err("its URL is a link-local address, where no receiver may be".to_owned());
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::USER_AGENT, concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .header(ID_HEADER, id);
        if let Some(secret) = secret {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header(SIGNATURE_HEADER, signature(secret.bytes(), at, &body));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        match tokio::time::timeout(TRY_WITHIN, self.client.request(request)).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(format!("it answered {}", response.status())),
            Ok(Err(error)) => Err(causes(&error)),
            Err(_) => Err(format!("it did not answer within {} s", TRY_WITHIN.as_secs())),
        }
    }
}

/// `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: the time is signed too, so that a receiver can refuse old ones.
pub(crate) fn signature(secret: &[u8], at: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
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

/// DNS without the addresses that no receiver may have.
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
                resolving.await?.filter(|address| !is_forbidden(address.ip())).collect();
            match allowed.is_empty() {
                false => Ok(allowed.into_iter()),
                true => {
                    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no usable address for this host"))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_an_hmac_over_time_and_body() {
        // Computed with Python's hmac module.
        assert_eq!(
            signature(b"hush", 1_700_000_000, "{}"),
            "t=1700000000,v1=763081ea12e3b1f903f958994c023cde07f1224b02a538ad6f959112a2f780ba"
        );
    }

    #[tokio::test]
    async fn link_local_addresses_are_refused() {
        let webhooks = Webhooks::new().unwrap();
        for url in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"]
        {
            let refused = webhooks.post(url, "1", String::new(), None).await.unwrap_err();
            assert!(refused.contains("link-local"), "{url}: {refused}");
        }
    }
}
