//! HTTP as an application speaks it to a gateway, without hidden retries: a request is sent once, and its end is told.
//! Not gRPC: that is `client`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use super::sse::{Answer, Reader};
use crate::history::Pending;

/// Longer than a gateway's `total_ms` in these deployments: who gives up first is the gateway.
const CHAT_WITHIN: Duration = Duration::from_secs(30);
const SMALL_WITHIN: Duration = Duration::from_secs(5);
const BODY_MAX_BYTES: usize = 16 << 20;

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Chat {
    Answered(Answer),
    /// No connection, or it had gone before anything was sent.
    NotSent(String),
    /// Anything may have happened to it.
    Lost(String),
}

impl Chat {
    /// Into the history; false: the process is used up.
    pub fn record(&self, pending: Pending) -> bool {
        match self {
            Self::Answered(answer) => pending.ok(answer),
            Self::NotSent(reason) => pending.fail(reason),
            Self::Lost(reason) => {
                pending.unknown(reason);
                return false;
            }
        }
        true
    }
}

/// Cheap to clone; connections are kept and shared.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let client = Client::builder(TokioExecutor::new())
            // A request that is sent again unseen would be charged twice, rightly.
            .retry_canceled_requests(false)
            .pool_idle_timeout(Duration::from_secs(5))
            .build(connector);
        Self { client }
    }

    /// A chat completion. `leave_after`: hang up when so many pieces of text have come.
    pub async fn chat(
        &self,
        gateway: &str,
        headers: &[(&str, &str)],
        body: &Value,
        leave_after: Option<u64>,
    ) -> Chat {
        let mut request = Request::post(format!("http://{gateway}/v1/chat/completions"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match request.body(Full::new(Bytes::from(body.to_string()))) {
            Ok(request) => request,
            Err(error) => return Chat::NotSent(error.to_string()),
        };
        match tokio::time::timeout(CHAT_WITHIN, self.exchange(request, leave_after)).await {
            Ok(chat) => chat,
            Err(_) => Chat::Lost(format!("no end of the answer within {} s", CHAT_WITHIN.as_secs())),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, leave_after: Option<u64>) -> Chat {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() || is_canceled(&error) => {
                return Chat::NotSent(words(&error));
            }
            Err(error) => return Chat::Lost(words(&error)),
        };
        let mut reader = Reader::new(response.status().as_u16(), response.headers());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Chat::Lost(format!("the answer broke off: {}", words(&error))),
            };
            let Ok(data) = frame.into_data() else { continue };
            reader.take(&data);
            if leave_after.is_some_and(|pieces| reader.pieces() >= pieces) {
                // Dropping the body ends the connection.
                return Chat::Answered(reader.left());
            }
        }
        match reader.end() {
            Ok(answer) => Chat::Answered(answer),
            Err(why) => Chat::Lost(why),
        }
    }

    /// A small exchange in JSON.
    ///
    /// # Errors
    /// No answer in time, or none with status 200.
    pub async fn json(&self, method: Method, address: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .body(Full::new(bytes))
            .context("no request")?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let bytes = collect(response).await?;
            if !status.is_success() {
                bail!("{address}{path}: status {status}: {}", String::from_utf8_lossy(&bytes));
            }
            Ok(serde_json::from_slice(&bytes)?)
        };
        tokio::time::timeout(SMALL_WITHIN, exchange).await.context("no answer in time")?
    }
}

/// One connection to one process, which it cannot outlive: answers of the same life are of the same process.
#[derive(Debug)]
pub struct Line {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
    life: u64,
}

impl Line {
    pub fn new(address: String) -> Self {
        Self { address, sender: None, life: 0 }
    }

    /// Body and number of the life.
    ///
    /// # Errors
    /// Nobody answers; the next call is of another life.
    pub async fn get(&mut self, path: &str) -> Result<(Bytes, u64)> {
        let answer = match tokio::time::timeout(SMALL_WITHIN, self.try_get(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("{}: no answer in time", self.address)),
        };
        if answer.is_err() {
            self.sender = None;
        }
        Ok((answer?, self.life))
    }

    async fn try_get(&mut self, path: &str) -> Result<Bytes> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                self.life += 1;
                sender
            }
        };
        sender.ready().await?;
        let request = Request::get(path).header("host", &self.address).body(Full::default())?;
        let bytes = collect(sender.send_request(request).await?).await?;
        self.sender = Some(sender);
        Ok(bytes)
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), BODY_MAX_BYTES);
    let body = body.collect().await.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok(body.to_bytes())
}

/// Never written to the connection.
fn is_canceled(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_canceled)
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}
