//! A provider inside the test that records when each request came and was answered, by its own clock, and from which
//! gateway. It serves, limits once, and holds probes until the test lets them go.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

#[derive(Debug, Clone)]
pub struct Seen {
    /// `metadata.from` of the request.
    pub from: usize,
    pub came: Instant,
    /// `None`: it is held, or its gateway has gone away.
    pub answered: Option<Instant>,
    pub status: u16,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Serve,
    LimitNext {
        rest_s: u64,
    },
    /// What comes after the rest is a probe, and held.
    Limited {
        at: Instant,
        rest: Duration,
    },
}

#[derive(Debug)]
pub struct Recorder {
    pub address: String,
    mode: Mutex<Mode>,
    seen: Mutex<Vec<Seen>>,
    /// A permit lets a probe go.
    go: Semaphore,
}

impl Recorder {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            mode: Mutex::new(Mode::Serve),
            seen: Mutex::default(),
            go: Semaphore::new(0),
        });
        let serving = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let recorder = serving.clone();
                let service = service_fn(move |request| {
                    let recorder = recorder.clone();
                    async move { Ok::<_, Infallible>(recorder.answer(request).await) }
                });
                tokio::spawn(async move {
                    // A gateway that is killed breaks its connections: that is meant.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        recorder
    }

    /// The next request gets a 429 with `retry-after`, and what comes after that rest is held.
    pub fn limit_next(&self, rest_s: u64) {
        *self.mode.lock() = Mode::LimitNext { rest_s };
    }

    /// Those that are held, and all that come from now on, are served.
    pub fn serve(&self) {
        *self.mode.lock() = Mode::Serve;
        self.go.add_permits(1);
    }

    /// When the 429 went out.
    pub fn limited_at(&self) -> Option<Instant> {
        match *self.mode.lock() {
            Mode::Limited { at, .. } => Some(at),
            Mode::Serve | Mode::LimitNext { .. } => None,
        }
    }

    /// All that came after a moment.
    pub fn since(&self, moment: Instant) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.came > moment).cloned().collect()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let from = body["metadata"]["from"].as_str().and_then(|from| from.parse().ok()).unwrap_or(usize::MAX);
        let (index, mode) = {
            // One lock at a time for both: what is recorded and what is done agree.
            let (mut mode, mut seen) = (self.mode.lock(), self.seen.lock());
            let came = Instant::now();
            seen.push(Seen { from, came, answered: None, status: 0 });
            let now = *mode;
            if let Mode::LimitNext { rest_s } = now {
                *mode = Mode::Limited { at: came, rest: Duration::from_secs(rest_s) };
            }
            (seen.len() - 1, now)
        };
        let status = match mode {
            Mode::LimitNext { .. } => 429,
            Mode::Limited { at, rest } if at.elapsed() >= rest => {
                self.go.acquire().await.unwrap().forget();
                200
            }
            Mode::Serve | Mode::Limited { .. } => 200,
        };
        let answered = Instant::now();
        {
            let (mut mode, mut seen) = (self.mode.lock(), self.seen.lock());
            (seen[index].answered, seen[index].status) = (Some(answered), status);
            if let (429, Mode::Limited { at, .. }) = (status, &mut *mode) {
                *at = answered;
            }
        }
        let mut response = Response::new(Full::new(Bytes::from(content(status).to_string())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        if let Mode::LimitNext { rest_s } = mode {
            response.headers_mut().insert("retry-after", rest_s.into());
        }
        response
    }
}

fn content(status: u16) -> Value {
    if status == 429 {
        return json!({"error": {"message": "slow down", "type": "rate_limit_exceeded"}});
    }
    let message = json!({"role": "assistant", "content": "ok"});
    json!({
        "id": "x", "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    })
}
