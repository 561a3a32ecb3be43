//! The HTTP side of the simulated provider.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::request::{Body, Plan};
use super::{Settings, answers};

const BODY_MAX_BYTES: usize = 64 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

#[derive(Debug)]
pub struct MockProvider {
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Served {
    requests: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Server {
    settings: Settings,
    served: Arc<Served>,
    /// Which of a hundred requests fail: by their number, so that a run can be repeated.
    turn: AtomicU64,
}

impl MockProvider {
    /// # Errors
    /// The listener cannot be used.
    pub fn start(settings: Settings, listener: TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Arc::new(Server { settings, served: Arc::default(), turn: AtomicU64::new(0) });
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                // Small answers must not wait for the acknowledgement of the last one.
                let _ = stream.set_nodelay(true);
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                tokio::spawn(async move {
                    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A connection that breaks is the client's business, or was meant to.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/v1/models") => json_answer(200, &answers::models()),
            (&Method::GET, "/mock/served") => json_answer(200, &self.served.report()),
            (&Method::POST, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings") => {
                self.work(&path, request).await
            }
            _ => json_answer(404, &answers::error(404)),
        }
    }

    async fn work(&self, path: &str, request: Request<Incoming>) -> Response<AnswerBody> {
        let Ok(bytes) = Limited::new(request.into_body(), BODY_MAX_BYTES).collect().await else {
            return json_answer(400, &answers::error(400));
        };
        let Ok(body) = serde_json::from_slice::<Body>(&bytes.to_bytes()) else {
            return json_answer(400, &answers::error(400));
        };
        let inputs = body.input.as_array().map_or(1, Vec::len);
        let plan = body.plan(&self.settings, self.next_status());
        if plan.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(plan.latency_ms)).await;
        }
        if plan.status != 200 {
            self.served.refused.fetch_add(1, Ordering::Relaxed);
            let mut answer = json_answer(plan.status, &answers::error(plan.status));
            if let Some(seconds) = plan.retry_after {
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            return answer;
        }
        if plan.stream && path != "/v1/embeddings" {
            return self.stream(&plan, path == "/v1/chat/completions");
        }
        let output = if path == "/v1/embeddings" { 0 } else { plan.output_tokens * plan.choices };
        self.served.count(plan.input_tokens, output);
        match path {
            "/v1/chat/completions" => json_answer(200, &answers::chat(&plan)),
            "/v1/completions" => json_answer(200, &answers::completion(&plan)),
            _ => json_answer(200, &answers::embeddings(&plan, inputs)),
        }
    }

    fn stream(&self, plan: &Plan, chat: bool) -> Response<AnswerBody> {
        let mut events: Vec<Result<Bytes, BoxError>> = answers::events(plan, chat)
            .iter()
            .map(|event| Ok(Bytes::from(format!("data: {event}\n\n"))))
            .collect();
        events.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
        if let Some(chunks) = plan.cut_after {
            events.truncate(usize::try_from(chunks).unwrap_or(usize::MAX));
            events.push(Err("cut off, as asked".into()));
        }
        let served = self.served.clone();
        served.count(plan.input_tokens, 0);
        let (pause, total) = (Duration::from_millis(plan.chunk_ms), plan.output_tokens * plan.choices);
        let mut sent = 0;
        let frames = futures_util::stream::iter(events).then(move |event| {
            // Each event is a token but for the last few: served is what left, not what was planned.
            if event.is_ok() && sent < total {
                sent += 1;
                served.output_tokens.fetch_add(1, Ordering::Relaxed);
            }
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                event.map(Frame::data)
            }
        });
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer
    }

    /// 200, or what the settings say for this request's turn.
    fn next_status(&self) -> u16 {
        let (errors, limited) =
            (u64::from(self.settings.error_percent), u64::from(self.settings.limited_percent));
        // A step that shares no factor with 100 visits every number once, spread out.
        let turn = self.turn.fetch_add(37, Ordering::Relaxed) % 100;
        match turn {
            turn if turn < errors => 500,
            turn if turn < errors + limited => 429,
            _ => 200,
        }
    }
}

impl Served {
    fn count(&self, input_tokens: u64, output_tokens: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.input_tokens.fetch_add(input_tokens, Ordering::Relaxed);
        self.output_tokens.fetch_add(output_tokens, Ordering::Relaxed);
    }

    fn report(&self) -> Value {
        let [input, output] =
            [&self.input_tokens, &self.output_tokens].map(|count| count.load(Ordering::Relaxed));
        json!({
            "requests": self.requests.load(Ordering::Relaxed),
            "refused": self.refused.load(Ordering::Relaxed),
            "input_tokens": input,
            "output_tokens": output,
            "total_tokens": input + output,
        })
    }
}

fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
