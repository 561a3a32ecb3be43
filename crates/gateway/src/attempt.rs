//! One try at one backend: what is sent, and what its failure or its answer says about the backend and costs.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use quorate_ledger::{Settlement, TimestampMs};
use tokio::time::Instant;

use crate::{
    backend::Backend,
    call::{Call, Reply},
    core::Core,
    cost, counts,
    estimate::measuring,
    headers,
    health::{Lease, Place, limit_headers},
    plan::{Candidate, Plan},
    provider::{
        Usage, Way, body_mutation,
        exchange::{self, NotSendable, Reading, Sent, To},
        reply::Context,
        tool_names::Renamed,
    },
    reserve::Held,
    settle::{self, Ending},
    tokenizer::Tokenizer,
    upstream::{SendError, UpstreamBody},
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
    /// Fields of the client that were left out.
    pub(crate) dropped: Vec<String>,
    /// Tools that go by another name at this backend.
    pub(crate) renamed: Vec<Renamed>,
    /// The probes that this attempt is.
    pub(crate) leases: Vec<Lease>,
    /// When it began, by the ledger's clock.
    pub(crate) sent: TimestampMs,
    /// From sending to the head of the answer, once it is there.
    pub(crate) first_byte_ms: OnceLock<u64>,
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

    /// The request as this backend gets it.
    ///
    /// # Errors
    /// It cannot serve this request; another one may.
    pub(crate) fn encode(&mut self, held: Option<&Held>) -> Result<Sent, NotSendable> {
        let facts = &self.call.facts;
        let betas = headers::betas(&self.call.asked.headers, &self.candidate.headers);
        let to = To {
            api: self.backend.api(),
            model: &self.candidate.model,
            output_limit: held.and_then(|held| held.output_limit),
            output_field: self.backend.output_field(facts.endpoint, &self.candidate.model),
            stream_usage: self.backend.stream_usage,
            betas: &betas,
        };
        let mut sent = exchange::send(facts, &self.call.body, &to)?;
        let mutation = &self.candidate.body;
        let set = mutation.set.iter().map(|field| (field.name.as_str(), field.value.as_str()));
        sent.body = body_mutation::apply(sent.body, &mutation.remove, set);
        self.dropped = std::mem::take(&mut sent.dropped);
        self.renamed = std::mem::take(&mut sent.renamed);
        Ok(sent)
    }

    /// How the answer of this backend is read.
    pub(crate) fn reading(&self) -> Reading {
        let facts = &self.call.facts;
        let api = self.backend.api();
        Reading {
            endpoint: facts.endpoint,
            api,
            way: facts.endpoint.way(api).unwrap_or(Way::Pass),
            context: Context {
                model: self.call.model.clone(),
                id: format!("{}{}", facts.endpoint.dialect().id_prefix(), uuid::Uuid::now_v7().simple()),
                created: self.core().keeper.now().0 / 1000,
                usage_asked: facts.usage_asked,
                renamed: self.renamed.clone(),
            },
            hides_usage: self.backend.stream_usage && !facts.usage_asked,
            plain: facts.form.as_ref().is_some_and(|form| form.plain),
        }
    }

    /// `None`: the client of a stream left before the answer began. An answer that is not a stream is waited for all the
    /// same: its exact usage is the only way to know what it cost.
    pub(crate) async fn send(
        &self,
        sent: Sent,
        reply: &mut Reply,
    ) -> Option<Result<Response<UpstreamBody>, SendError>> {
        let (core, facts) = (self.core(), &self.call.facts);
        let consumed = self.plan.who.consumed;
        let mut headers =
            headers::up(&self.call.asked.headers, &self.backend, consumed, &self.candidate.headers);
        if facts.endpoint.takes_form() {
            // It names the boundary.
            if let Some(kind) = self.call.asked.headers.get(header::CONTENT_TYPE) {
                headers.insert(header::CONTENT_TYPE, kind.clone());
            }
        }
        // The client's query means something to those only who speak as it does.
        let passes = facts.endpoint.way(self.backend.api()) == Some(Way::Pass);
        let query = self.call.asked.query.as_deref().filter(|_| passes);
        let began = Instant::now();
        let sending =
            core.upstream.send(&self.backend, http::Method::POST, (&sent.path, query), headers, sent.body);
        let sent = tokio::select! {
            sent = tokio::time::timeout_at(self.deadline(), sending) => sent.unwrap_or(Err(SendError::TimedOut)),
            () = reply.closed(), if facts.stream => return None,
            () = core.cut.cancelled() => Err(SendError::CutOff),
        };
        if let Ok(response) = &sent {
            let took = began.elapsed();
            core.metrics.first_byte(self.name(), took.as_secs_f64());
            self.first_byte_ms.get_or_init(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            // Refusals come fast.
            if response.status().is_success() {
                core.latencies.saw(self.name(), &self.candidate.model, took);
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

    /// Notes a failure of the backend: `unreachable` is one of all its models, the others are of this one.
    pub(crate) fn failed(&self, kind: &'static str) {
        self.core().metrics.upstream_error(self.name(), kind);
        match kind {
            "unreachable" => self.core().health.unreachable(self.place(), kind),
            _ => self.core().health.failed(self.place(), kind),
        }
    }

    /// What the head of an answer says about the backend.
    pub(crate) fn sighted(&self, status: StatusCode, headers: &HeaderMap) {
        let (core, place, now) = (self.core(), self.place(), SystemTime::now());
        let reason = || format!("status {}", status.as_u16());
        let count = |kind| core.metrics.upstream_error(self.name(), kind);
        if status == StatusCode::TOO_MANY_REQUESTS {
            count("limited");
            core.health.limited(place, &reason(), limit_headers::rest_of_limited(headers, now), false);
        } else if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            count(if status.is_server_error() { "5xx" } else { "timeout" });
            // One that is overloaded and says for how long is left alone for so long.
            match limit_headers::retry_after_ms(headers, now) {
                Some(ms) => core.health.limited(place, &reason(), ms, false),
                None => core.health.failed(place, &reason()),
            }
        } else if status.is_success() {
            core.health.served(place, self.first_byte_ms.get().copied());
            if let Some(ms) = limit_headers::rest_of_success(headers, now) {
                core.health.limited(place, "nothing left of its limit", ms, true);
            }
        } else if status.is_client_error() {
            core.health.answered(place);
        }
    }

    fn place(&self) -> Place<'_> {
        let (model, leases, sent) = (self.candidate.model.as_str(), self.leases.as_slice(), self.sent);
        Place { backend: self.name(), model, leases, sent }
    }

    /// The input as it is charged when the backend says nothing: counted, and never more than was held for it.
    pub(crate) async fn charge_input(&self, held: Option<&Held>, why: &'static str) -> u64 {
        self.charge_input_of(held, why, None).await
    }

    /// The same with `heard` tokens in place of the most that the audio can be.
    pub(crate) async fn charge_input_of(
        &self,
        held: Option<&Held>,
        why: &'static str,
        heard: Option<u64>,
    ) -> u64 {
        let Some(held) = held else { return 0 };
        self.core().metrics.estimated(why);
        let tokenizer = measuring(self.tokenizer());
        let counted = counts::count_with(self.call, tokenizer, &self.candidate.model, heard).await;
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
        if !self.dropped.is_empty() {
            set("x-quorate-dropped", &self.dropped.join(", "));
        }
        if self.plan.model != self.call.model {
            set("x-quorate-model-downgraded", &format!("{} -> {}", self.call.model, self.plan.model));
        }
    }
}
