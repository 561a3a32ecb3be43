//! Chat requests, to a gateway or straight to a provider: the same bytes, so that the two can be compared.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::json;

use crate::bench::load::Work;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct ChatWork {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    body: Bytes,
    tenants: usize,
}

/// One client of the load: who it says it is.
#[derive(Debug)]
pub struct Caller {
    tenant: String,
    user: String,
}

impl ChatWork {
    /// `base_url` without the path: `http://127.0.0.1:8080/v1`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn new(base_url: &str, stream: bool, tenants: usize) -> Result<Self> {
        let text = "What holds a budget, when everything around it fails?";
        Self::with_text(base_url, stream, tenants, text)
    }

    /// Says something of its own, as the simulated provider understands it.
    ///
    /// # Errors
    /// As for [`ChatWork::new`].
    pub fn with_text(base_url: &str, stream: bool, tenants: usize, text: &str) -> Result<Self> {
        let url = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        let url: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let message = json!({"role": "user", "content": text});
        let mut body = json!({"model": "gpt-4o", "max_tokens": 16, "messages": [message]});
        if stream {
            body["stream"] = true.into();
        }
        Ok(Self { client, url, body: Bytes::from(body.to_string()), tenants: tenants.max(1) })
    }

    /// The answer's head; its body is the caller's to read.
    ///
    /// # Errors
    /// There is none.
    pub async fn open(&self, caller: &Caller) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header("x-tenant-id", &caller.tenant)
            .header("x-user-id", &caller.user)
            .body(Full::new(self.body.clone()))?;
        self.client.request(request).await.with_context(|| format!("{} does not answer", self.url))
    }

    async fn send(&self, caller: &Caller) -> Result<()> {
        let response = self.open(caller).await?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .with_context(|| format!("{} broke off", self.url))?
            .to_bytes();
        anyhow::ensure!(
            status.is_success(),
            "{} answered {status}: {}",
            self.url,
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }
}

impl Work for ChatWork {
    type Client = Caller;

    fn client(&self, number: usize) -> Caller {
        Caller { tenant: format!("bench-{}", number % self.tenants), user: format!("user-{number}") }
    }

    async fn step(&self, caller: &mut Caller) -> Result<(), String> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.send(caller)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("{} took more than {} s", self.url, REQUEST_TIMEOUT.as_secs())),
        }
    }
}
