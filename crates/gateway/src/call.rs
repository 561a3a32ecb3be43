//! One request on its way: reserve, send, relay, settle. It runs in a task of its own, so that neither a client that
//! leaves nor a connection that breaks can stop it between the reservation and the settlement.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use quorate_ledger::{ProviderState, Settlement};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    answered,
    backend::Backend,
    body::ResponseBody,
    core::Core,
    estimate::measuring,
    headers,
    health::Sighting,
    provider::{
        Endpoint, Facts,
        splice::{self, Edits},
    },
    refusal::Refusal,
    reserve::{self, Held},
    settle::{self, Ending},
    streamed,
    tokenizer::Tokenizer,
    upstream::SendError,
};

/// A request that was understood and has a backend.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) facts: Facts,
    /// As the client sent it.
    pub(crate) body: Bytes,
    pub(crate) model: String,
    pub(crate) backend: Arc<Backend>,
    /// As the client sent them.
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<String>,
    /// The end of everything for this request but its settlement.
    pub(crate) deadline: Instant,
}

/// Where the head of the answer goes. Closed when the client is gone.
pub(crate) type Reply = oneshot::Sender<Response<ResponseBody>>;

impl Call {
    pub(crate) fn tokenizer(&self) -> Tokenizer {
        self.backend.tokenizer(&self.model)
    }

    /// The client reads trailers.
    pub(crate) fn takes_trailers(&self) -> bool {
        let te = self.headers.get_all(header::TE);
        te.iter().any(|value| value.to_str().is_ok_and(|te| te.to_ascii_lowercase().contains("trailers")))
    }

    pub(crate) async fn run(self, mut reply: Reply) {
        let held = match reserve::reserve(&self).await {
            Ok(held) => held,
            // The client may be gone, here and below: then nobody reads the answer.
            Err(refusal) => return drop(reply.send(refusal.response())),
        };
        if reply.is_closed() {
            self.core.metrics.hang_ups.inc();
            self.end(held, Ending::Release).await;
            return;
        }
        let sent = match self.send(held.as_ref(), &mut reply).await {
            Some(sent) => sent,
            None => {
                self.core.metrics.hang_ups.inc();
                let used = self.charge_input(held.as_ref(), "hang_up").await;
                self.end(held, Ending::Settle(used)).await;
                return;
            }
        };
        match sent {
            Ok(response) => self.relay(held, response, reply).await,
            Err(error) => {
                let refusal = self.not_answered(held, error).await;
                drop(reply.send(refusal.response()));
            }
        }
    }

    /// `None`: the client of a stream left before the answer began. An answer that is not a stream is waited for all the
    /// same: its exact usage is the only way to know what it cost.
    async fn send(
        &self,
        held: Option<&Held>,
        reply: &mut Reply,
    ) -> Option<Result<Response<Incoming>, SendError>> {
        let output_limit = held.and_then(|held| held.output_limit);
        let edits = Edits {
            model: self.facts.model.is_none().then_some(self.model.as_str()),
            output_limit: output_limit
                .map(|tokens| (self.backend.output_field(self.facts.endpoint, &self.model), tokens)),
            include_usage: self.facts.stream
                && self.facts.endpoint != Endpoint::Embeddings
                && self.backend.stream_usage,
        };
        let body = splice::apply(&self.body, &self.facts, &edits);
        let headers = headers::up(&self.headers, &self.backend);
        let target = (self.facts.endpoint.path(), self.query.as_deref());
        let began = Instant::now();
        let sending = self.core.upstream.send(&self.backend, Method::POST, target, headers, body);
        let sent = tokio::select! {
            sent = tokio::time::timeout_at(self.deadline, sending) => sent.unwrap_or(Err(SendError::TimedOut)),
            () = reply.closed(), if self.facts.stream => return None,
            () = self.core.cut.cancelled() => Err(SendError::CutOff),
        };
        if sent.is_ok() {
            self.core.metrics.first_byte(&self.backend.name, began.elapsed().as_secs_f64());
        }
        Some(sent)
    }

    async fn not_answered(&self, held: Option<Held>, error: SendError) -> Refusal {
        let backend = self.backend.name.clone();
        tracing::warn!(backend, %error, "backend did not answer");
        let (refusal, kind) = match error {
            SendError::NotSent(_) => {
                self.failed("unreachable");
                self.end(held, Ending::Release).await;
                return Refusal::BackendUnreachable { backend };
            }
            SendError::Unanswered(_) => (Refusal::BackendDied { backend }, Some("died")),
            SendError::TimedOut => (Refusal::BackendTimeout { backend }, Some("timeout")),
            SendError::CutOff => (Refusal::Stopping, None),
        };
        if let Some(kind) = kind {
            self.failed(kind);
        }
        let used = self.charge_input(held.as_ref(), "unanswered").await;
        self.end(held, Ending::Settle(used)).await;
        refusal
    }

    /// Notes a failure of the backend.
    pub(crate) fn failed(&self, kind: &'static str) {
        self.core.metrics.upstream_error(&self.backend.name, kind);
        self.core.health.saw(&self.backend.name, Sighting::failing(kind));
    }

    async fn relay(self, held: Option<Held>, response: Response<Incoming>, reply: Reply) {
        self.sighted(response.status(), response.headers());
        if response.status().is_redirection() {
            self.end(held, Ending::Release).await;
            let refusal = Refusal::BackendRedirect { backend: self.backend.name.clone() };
            return drop(reply.send(refusal.response()));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream"));
        if response.status().is_success() && is_stream {
            streamed::relay(&self, held, response, reply).await;
        } else {
            let answer = answered::relay(&self, held, response).await;
            drop(reply.send(answer));
        }
    }

    /// What the status says about the backend.
    fn sighted(&self, status: StatusCode, headers: &HeaderMap) {
        let backend = &self.backend.name;
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.core.metrics.upstream_error(backend, "limited");
            let sighting = Sighting {
                state: ProviderState::Limited,
                reason: "status 429".to_owned(),
                retry_after_ms: retry_after_ms(headers),
            };
            self.core.health.saw(backend, sighting);
        } else if status.is_server_error() {
            self.core.metrics.upstream_error(backend, "5xx");
            self.core.health.saw(backend, Sighting::failing(format!("status {}", status.as_u16())));
        } else if status.is_success() {
            self.core.health.saw(backend, Sighting::healthy());
        }
    }

    /// The input as it is charged when the backend says nothing: counted, and never more than was held for it.
    pub(crate) async fn charge_input(&self, held: Option<&Held>, why: &'static str) -> u64 {
        let Some(held) = held else { return 0 };
        self.core.metrics.estimated(why);
        let used = reserve::count_with(self, measuring(self.tokenizer())).await.min(held.input);
        self.core.metrics.charged(used, 0);
        used
    }

    pub(crate) async fn end(&self, held: Option<Held>, ending: Ending) -> Option<Settlement> {
        match held {
            Some(held) => settle::end(&self.core, held, ending).await,
            None => None,
        }
    }
}

/// `retry-after-ms` (OpenAI's), else `retry-after` in seconds; 0 if neither is a number. At most a day.
fn retry_after_ms(headers: &HeaderMap) -> u64 {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let ms = number("retry-after-ms")
        .or_else(|| number("retry-after").map(|seconds| seconds * 1000.0))
        .unwrap_or(0.0);
    let bounded = ms.clamp(0.0, 86_400_000.0);
    if bounded.is_nan() { 0 } else { Duration::from_secs_f64(bounded / 1000.0).as_millis() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delays() {
        for (name, value, ms) in [
            ("retry-after", "2", 2000),
            ("retry-after-ms", "250", 250),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", 0),
            ("retry-after", "-1", 0),
            ("retry-after", "NaN", 0),
            ("retry-after", "1e300", 86_400_000),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(retry_after_ms(&headers), ms, "{name}: {value}");
        }
    }
}
