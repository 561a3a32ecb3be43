//! The HTTP side of the simulated provider.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::behaviour::{Behaviour, Fault};
use super::cache::PromptCache;
use super::dialect::{Dialect, Endpoint, Route};
use super::error::Refusal;
use super::job::Job;
use super::output::{self, AnswerBody};
use super::served::Served;
use super::sigv4::Signed;
use super::switches::Switches;
use super::{Settings, keys, openai_text};

const BODY_MAX_BYTES: usize = 64 << 20;
const RESET_S: u64 = 60;
/// By which a caller finds its request in the record.
const REQUEST_ID: &str = "x-request-id";

#[derive(Debug)]
pub struct MockProvider {
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Server {
    settings: Settings,
    served: Arc<Served>,
    switches: Switches,
    cache: PromptCache,
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
        let server = Arc::new(Server {
            settings,
            served: Arc::default(),
            switches: Switches::default(),
            cache: PromptCache::default(),
            turn: AtomicU64::new(0),
        });
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
        let (mut head, body) = request.into_parts();
        let route = Route::of(head.uri.path());
        let Ok(bytes) = Limited::new(body, BODY_MAX_BYTES).collect().await.map(|body| body.to_bytes()) else {
            let refusal = Refusal {
                status: 413,
                code: None,
                message: "the body is longer than 64 MiB, or broke off".into(),
            };
            return refused(
                &refusal,
                route.map_or(Dialect::OpenAi, |route| route.dialect),
                &Behaviour::default(),
            );
        };
        let Some(route) = route else { return self.control(&head, &bytes) };
        // HTTP/2 has it in the address; signatures have it as a header.
        if !head.headers.contains_key(HOST)
            && let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(HOST, host);
        }
        self.work(&route, &head, &bytes).await
    }

    /// What is no provider's.
    fn control(&self, head: &Parts, bytes: &Bytes) -> Response<AnswerBody> {
        let path = head.uri.path();
        match (&head.method, path) {
            (&Method::GET, "/mock/served") => match served_after(head.uri.query()) {
                Ok(after) => json_answer(200, &self.served.report(after)),
                Err(message) => json_answer(400, &json!({"error": message})),
            },
            (&Method::GET, "/mock/behaviour") => json_answer(200, &self.switches.report()),
            (&Method::DELETE, "/mock/behaviour") => {
                self.switches.clear();
                json_answer(200, &self.switches.report())
            }
            (&Method::POST, "/mock/behaviour") => {
                let asked =
                    serde_json::from_slice(bytes).map_err(|error| format!("a behaviour is JSON: {error}"));
                match asked.and_then(|asked| self.switches.set(asked)) {
                    Ok(()) => json_answer(200, &self.switches.report()),
                    Err(message) => json_answer(400, &json!({"error": message})),
                }
            }
            _ => {
                let refusal = Refusal {
                    status: 404,
                    code: None,
                    message: format!("the simulated provider has no {} {path}", head.method),
                };
                json_answer(404, &refusal.body(Dialect::OpenAi))
            }
        }
    }

    fn read(&self, route: &Route, head: &Parts, bytes: &Bytes) -> Result<Job, Refusal> {
        let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let signed =
            Signed { method: head.method.as_str(), path_and_query, headers: &head.headers, body: bytes };
        keys::check(route, &self.settings, &signed)?;
        keys::check_place(route)?;
        if head.method != Method::POST {
            return Err(Refusal {
                status: 405,
                code: None,
                message: format!("not {}: use POST", head.method),
            });
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        Job::read(route, content_type, bytes)
    }

    async fn work(&self, route: &Route, head: &Parts, bytes: &Bytes) -> Response<AnswerBody> {
        if route.endpoint == Endpoint::Models && head.method == Method::GET {
            return json_answer(200, &openai_text::models());
        }
        let dialect = route.dialect;
        let path = head.uri.path().to_owned();
        let request_id = head.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).unwrap_or("");
        let job = match self.read(route, head, bytes) {
            Ok(job) => job,
            Err(refusal) => {
                let call =
                    self.served.arrived(dialect, path, route.model.clone().unwrap_or_default(), request_id);
                self.served.refused(&call, refusal.status);
                return refused(&refusal, dialect, &Behaviour::default());
            }
        };
        let call = self.served.arrived(dialect, path, job.ask.model.clone(), request_id);
        let behaviour = match job.behaviour(self.outside(dialect, &job.ask.model)) {
            Ok(behaviour) => behaviour,
            Err(refusal) => {
                self.served.refused(&call, refusal.status);
                return refused(&refusal, dialect, &Behaviour::default());
            }
        };
        let latency_ms = behaviour.latency_ms(&self.settings);
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
        if behaviour.fault == Some(Fault::Hang) {
            output::hang().await;
        }
        let status = behaviour.status();
        if status != 200 && behaviour.fault != Some(Fault::ErrorInside) {
            self.served.refused(&call, status);
            return refused(&Refusal::asked(status), dialect, &behaviour);
        }
        let cached = self.cache.look_up(&job.ask.cache_marks);
        let output = job.output(&behaviour, self.settings.tokens, cached);
        let chunk_ms = behaviour.chunk_ms(&self.settings);
        let error = if behaviour.fault.is_some() { job.error_inside(&behaviour) } else { Bytes::new() };
        let mut answer = output.into_response(&behaviour, chunk_ms, error, (self.served.clone(), call));
        add_headers(&mut answer, dialect, &behaviour);
        answer
    }

    /// What the settings say for this request's turn, and what was switched on.
    fn outside(&self, dialect: Dialect, model: &str) -> Behaviour {
        let mut behaviour = self.switches.take(dialect, model);
        let status = self.next_status();
        if status != 200 && behaviour.status.is_none() {
            behaviour.status = Some(status);
        }
        behaviour
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

/// Of `after=NUMBER`.
fn served_after(query: Option<&str>) -> Result<u64, String> {
    let Some(query) = query else { return Ok(0) };
    query
        .strip_prefix("after=")
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("{query:?}: the only parameter is after=NUMBER, of a call"))
}

fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    let mut answer = Response::new(output::whole(value.to_string().into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refused(refusal: &Refusal, dialect: Dialect, behaviour: &Behaviour) -> Response<AnswerBody> {
    let mut answer = json_answer(refusal.status, &refusal.body(dialect));
    if dialect == Dialect::Bedrock {
        let kind = HeaderValue::from_static(refusal.bedrock_type());
        answer.headers_mut().insert("x-amzn-errortype", kind);
    }
    if let Some(seconds) = behaviour.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    add_headers(&mut answer, dialect, behaviour);
    answer
}

/// The request's id, and what is left of the account's limits if that was asked for.
fn add_headers(answer: &mut Response<AnswerBody>, dialect: Dialect, behaviour: &Behaviour) {
    let headers = answer.headers_mut();
    let id = match dialect {
        Dialect::OpenAi => "x-request-id",
        Dialect::Azure => "apim-request-id",
        Dialect::Anthropic => "request-id",
        Dialect::Bedrock => "x-amzn-requestid",
    };
    headers.insert(id, HeaderValue::from_static("req_mock"));
    for (what, left) in [("requests", behaviour.remaining_requests), ("tokens", behaviour.remaining_tokens)] {
        let Some(left) = left else { continue };
        let reset_s = behaviour.reset_s.unwrap_or(RESET_S);
        let (remaining, reset, when) = match dialect {
            Dialect::Anthropic => {
                let at = jiff::Timestamp::now()
                    + jiff::SignedDuration::from_secs(reset_s.min(86_400).cast_signed());
                let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                (
                    format!("anthropic-ratelimit-{what}-remaining"),
                    format!("anthropic-ratelimit-{what}-reset"),
                    at,
                )
            }
            Dialect::OpenAi | Dialect::Azure => (
                format!("x-ratelimit-remaining-{what}"),
                format!("x-ratelimit-reset-{what}"),
                format!("{reset_s}s"),
            ),
            // Has no such headers.
            Dialect::Bedrock => continue,
        };
        for (name, value) in [(remaining, left.to_string()), (reset, when)] {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
}
