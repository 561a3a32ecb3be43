//! One try at one backend: what is sent, and what its failure or its answer says about the backend and costs.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use quorate_ledger::{ProviderState, Settlement};
use tokio::time::Instant;

use crate::{
    backend::Backend,
    call::{Call, Reply},
    core::Core,
    cost, counts,
    estimate::measuring,
    headers,
    health::Sighting,
    plan::{Candidate, Plan},
    provider::{
        Endpoint, Usage, body_mutation,
        splice::{self, Edits},
    },
    reserve::Held,
    settle::{self, Ending},
    tokenizer::Tokenizer,
    upstream::SendError,
};

#[derive(Debug)]
pub(crate) struct Attempt<'c> {
    pub(crate) call: &'c Call,
    pub(crate) plan: Arc<Plan>,
    pub(crate) candidate: Candidate,
    pub(crate) backend: Arc<Backend>,
    /// From 1.
    pub(crate) number: usize,
    /// Tokens that earlier attempts were charged.
    pub(crate) wasted: u64,
}

impl Attempt<'_> {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.call.core
    }

    /// In metrics, health and errors.
    pub(crate) fn name(&self) -> &str {
        &self.candidate.name
    }

    pub(crate) fn tokenizer(&self) -> Tokenizer {
        self.backend.tokenizer(&self.candidate.model)
    }

    /// `None`: the client of a stream left before the answer began. An answer that is not a stream is waited for all the
    /// same: its exact usage is the only way to know what it cost.
    pub(crate) async fn send(
        &self,
        held: Option<&Held>,
        reply: &mut Reply,
    ) -> Option<Result<Response<Incoming>, SendError>> {
        let facts = &self.call.facts;
        let (core, model) = (self.core(), self.candidate.model.as_str());
        let output_limit = held.and_then(|held| held.output_limit);
        let edits = Edits {
            model: (facts.model.as_deref() != Some(model)).then_some(model),
            output_limit: output_limit
                .map(|tokens| (self.backend.output_field(facts.endpoint, model), tokens)),
            include_usage: facts.stream
                && facts.endpoint != Endpoint::Embeddings
                && self.backend.stream_usage,
        };
        let body = splice::apply(&self.call.body, facts, &edits);
        let mutation = &self.candidate.body;
        let set = mutation.set.iter().map(|field| (field.name.as_str(), field.value.as_str()));
        let body = body_mutation::apply(body, &mutation.remove, set);
        let consumed = self.plan.who.consumed;
        let headers = headers::up(&self.call.asked.headers, &self.backend, consumed, &self.candidate.headers);
        let target = (facts.endpoint.path(), self.call.asked.query.as_deref());
        let began = Instant::now();
        let sending = core.upstream.send(&self.backend, http::Method::POST, target, headers, body);
        let sent = tokio::select! {
            sent = tokio::time::timeout_at(self.deadline(), sending) => sent.unwrap_or(Err(SendError::TimedOut)),
            () = reply.closed(), if facts.stream => return None,
            () = core.cut.cancelled() => Err(SendError::CutOff),
        };
        if let Ok(response) = &sent {
            let took = began.elapsed();
            core.metrics.first_byte(self.name(), took.as_secs_f64());
            // Refusals come fast.
            if response.status().is_success() {
                core.latencies.saw(self.name(), model, took);
            }
        }
        Some(sent)
    }

    /// The end of everything for this request but its settlement.
    pub(crate) fn deadline(&self) -> Instant {
        self.call.deadline_of(&self.plan)
    }

    /// Between two pieces of a stream.
    pub(crate) fn stream_idle(&self) -> Duration {
        Duration::from_millis(self.plan.idle_ms.unwrap_or(self.core().config.timeouts.idle_ms))
    }

    /// Notes a failure of the backend.
    pub(crate) fn failed(&self, kind: &'static str) {
        self.core().metrics.upstream_error(self.name(), kind);
        self.core().health.saw(self.name(), Sighting::failing(kind));
    }

    /// What the status says about the backend.
    pub(crate) fn sighted(&self, status: StatusCode, headers: &HeaderMap) {
        let (core, backend) = (self.core(), self.name());
        if status == StatusCode::TOO_MANY_REQUESTS {
            core.metrics.upstream_error(backend, "limited");
            let sighting = Sighting {
                state: ProviderState::Limited,
                reason: "status 429".to_owned(),
                retry_after_ms: retry_after_ms(headers),
            };
            core.health.saw(backend, sighting);
        } else if status.is_server_error() {
            core.metrics.upstream_error(backend, "5xx");
            core.health.saw(backend, Sighting::failing(format!("status {}", status.as_u16())));
        } else if status.is_success() {
            core.health.saw(backend, Sighting::healthy());
        }
    }

    /// The input as it is charged when the backend says nothing: counted, and never more than was held for it.
    pub(crate) async fn charge_input(&self, held: Option<&Held>, why: &'static str) -> u64 {
        let Some(held) = held else { return 0 };
        self.core().metrics.estimated(why);
        let counted = counts::count_with(self.call, measuring(self.tokenizer()), &self.candidate.model).await;
        let used = counted.min(held.input);
        self.core().metrics.charged(Usage::of(used, 0));
        used
    }

    /// Charges what was used, in every budget's own unit.
    pub(crate) async fn settle(&self, held: Option<Held>, usage: Usage) -> Option<Settlement> {
        self.settle_as(held, usage, true).await
    }

    /// Charges an attempt after which there will be another.
    pub(crate) async fn settle_wasted(&self, held: Option<Held>, usage: Usage) {
        self.settle_as(held, usage, false).await;
    }

    async fn settle_as(&self, held: Option<Held>, usage: Usage, whole: bool) -> Option<Settlement> {
        let held = held?;
        let (plan, core) = (&held.plan, self.core());
        let prices = plan.policy.policy.prices();
        let at = plan.context(&self.candidate);
        let amounts = cost::actual(&core.metrics, &plan.matches, usage, &at, prices, whole);
        settle::end(core, held, Ending::Settle { amounts, tokens: usage.total }).await
    }

    pub(crate) async fn release(&self, held: Option<Held>) {
        if let Some(held) = held {
            settle::end(self.core(), held, Ending::Release).await;
        }
    }

    /// Says who served the request, and with which model if it is not the one that was asked for.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set("x-ai-provider", &self.backend.name);
        set("x-quorate-backend", self.name());
        set("x-quorate-attempts", &self.number.to_string());
        if self.plan.model != self.call.model {
            set("x-quorate-model-downgraded", &format!("{} -> {}", self.call.model, self.plan.model));
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
