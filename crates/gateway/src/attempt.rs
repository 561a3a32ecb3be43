//! One try at one backend: what is sent, and what its failure or its answer says about the backend and costs.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use quorate_ledger::{Balance, TimestampMs};
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

/// Names made here: a text would be checked and lowered for every answer.
const AI_PROVIDER: HeaderName = HeaderName::from_static("x-ai-provider");
const BACKEND: HeaderName = HeaderName::from_static("x-quorate-backend");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-quorate-attempts");
const DROPPED: HeaderName = HeaderName::from_static("x-quorate-dropped");
const DOWNGRADED: HeaderName = HeaderName::from_static("x-quorate-model-downgraded");

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
    /// The same, to measure with; again right before it is sent.
    pub(crate) began: Instant,
    /// From sending to the first byte of an answer of a good status, once it is there.
    pub(crate) first_byte: OnceLock<Duration>,
    /// What it says about the backend was noted: each call is one success or one failure, or neither.
    pub(crate) judged: AtomicBool,
    /// Some of what it is charged was counted here: the account marks it as an estimate.
    pub(crate) estimated: AtomicBool,
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
        &mut self,
        sent: Sent,
        reply: &mut Reply,
    ) -> Option<Result<Response<UpstreamBody>, SendError>> {
        let facts = &self.call.facts;
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
        self.began = Instant::now();
        let core = self.core();
        let sending =
            core.upstream.send(&self.backend, http::Method::POST, (&sent.path, query), headers, sent.body);
        let sent = tokio::select! {
            sent = tokio::time::timeout_at(self.deadline(), sending) => sent.unwrap_or(Err(SendError::TimedOut)),
            () = reply.closed(), if self.call.facts.stream => return None,
            () = core.cut.cancelled() => Err(SendError::CutOff),
        };
        if sent.is_ok() {
            core.metrics.first_byte(self.name(), self.began.elapsed().as_secs_f64());
        }
        Some(sent)
    }

    /// The end of everything for this request but its settlement.
    pub(crate) fn deadline(&self) -> Instant {
        self.call.deadline_of(&self.plan)
    }

    /// The request's time ran out before this attempt had half of it.
    pub(crate) fn had_no_time(&self) -> bool {
        let deadline = self.deadline();
        Instant::now() >= deadline && self.began.elapsed() * 2 < deadline.duration_since(self.call.began)
    }

    /// Between two pieces of a stream.
    pub(crate) fn stream_idle(&self) -> Duration {
        Duration::from_millis(self.plan.idle_ms.unwrap_or(self.core().config.timeouts.idle_ms))
    }

    /// Notes a failure of the backend: `unreachable` is one of all its models, the others are of this one.
    pub(crate) fn failed(&self, kind: &'static str) {
        if !self.judge() {
            return;
        }
        self.core().metrics.upstream_error(self.name(), kind);
        match kind {
            "unreachable" => self.core().health.unreachable(self.place(), kind),
            _ => self.core().health.failed(self.place(), kind),
        }
    }

    /// The first to judge this call does.
    fn judge(&self) -> bool {
        !self.judged.swap(true, Ordering::Relaxed)
    }

    /// The first bytes of an answer of a good status are here; whether they are any good is not known yet.
    pub(crate) fn saw_first_byte(&self) -> Duration {
        *self.first_byte.get_or_init(|| self.began.elapsed())
    }

    /// The first piece of a stream's answer is here, and it is good.
    pub(crate) fn begun(&self) {
        let (core, took) = (self.core(), self.saw_first_byte());
        core.latencies.saw(self.name(), &self.candidate.model, took);
        core.health.begun(self.place(), as_ms(took));
    }

    /// An answer that had begun is complete, or as much of it as the client wanted.
    pub(crate) fn completed(&self) {
        if self.judge() {
            self.core().health.completed(self.place());
        }
    }

    /// A whole answer is here, and it is good.
    pub(crate) fn served(&self) {
        if !self.judge() {
            return;
        }
        let (core, took) = (self.core(), self.saw_first_byte());
        core.latencies.saw(self.name(), &self.candidate.model, took);
        core.health.served(self.place(), Some(as_ms(took)));
    }

    /// What the head of an answer says about the backend. A good status says nothing yet: garbage, an error or half an
    /// answer may follow.
    pub(crate) fn sighted(&self, status: StatusCode, headers: &HeaderMap) {
        let (core, place, now) = (self.core(), self.place(), SystemTime::now());
        if status.is_success() {
            if let Some(ms) = limit_headers::rest_of_success(headers, now) {
                core.health.used_up(place, ms);
            }
            return;
        }
        if status.is_redirection() {
            return self.failed("redirect");
        }
        if !self.judge() {
            return;
        }
        let reason = || format!("status {}", status.as_u16());
        let count = |kind| core.metrics.upstream_error(self.name(), kind);
        // 424: Bedrock's, of a model that broke.
        let broke = status.is_server_error() || status == StatusCode::FAILED_DEPENDENCY;
        // The client's own key is nobody else's trouble.
        let own_key = !self.backend.pass_client_key;
        if status == StatusCode::TOO_MANY_REQUESTS {
            count("limited");
            core.health.limited(place, &reason(), limit_headers::rest_of_limited(headers, now));
        } else if broke || status == StatusCode::REQUEST_TIMEOUT {
            count(if broke { "5xx" } else { "timeout" });
            // One that is overloaded and says for how long is left alone for so long.
            match limit_headers::retry_after_ms(headers, now) {
                Some(ms) => core.health.limited(place, &reason(), ms),
                None => core.health.failed(place, &reason()),
            }
        } else if matches!(status.as_u16(), 401 | 402) && own_key {
            // No client can bring this about: the key is wrong, or its account is empty.
            count("unauthorized");
            core.health.failed(place, &reason());
        } else if status.is_client_error() {
            match status.as_u16() {
                403 if own_key => count("forbidden"),
                404 => count("not_found"),
                _ => {}
            }
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
        let used = self.input_of(held, why, heard).await;
        self.core().metrics.charged(Usage::of(used, 0));
        used
    }

    /// The same, and nothing of it is in the metrics of what was charged.
    pub(crate) async fn input_of(&self, held: &Held, why: &'static str, heard: Option<u64>) -> u64 {
        self.estimates(why);
        let tokenizer = measuring(self.tokenizer());
        let counted = counts::count_with(self.call, tokenizer, &self.candidate, heard).await;
        counted.min(held.input)
    }

    /// Notes that the backend did not say what it used, in the metrics and for the account.
    pub(crate) fn estimates(&self, why: &'static str) {
        self.core().metrics.estimated(why);
        self.estimated.store(true, Ordering::Relaxed);
    }

    /// Charges what was used, in every budget's own unit. The accounts afterwards, one for each match of what was held.
    pub(crate) async fn settle(&self, held: Option<Held>, usage: Usage) -> Vec<Balance> {
        self.settle_as(held, usage, true).await
    }

    /// Charges an attempt after which there will be another.
    pub(crate) async fn settle_wasted(&self, held: Option<Held>, usage: Usage) {
        self.settle_as(held, usage, false).await;
    }

    async fn settle_as(&self, held: Option<Held>, usage: Usage, whole: bool) -> Vec<Balance> {
        let Some(held) = held else { return Vec::new() };
        let (plan, core) = (&held.plan, self.core());
        let prices = plan.policy.policy.prices();
        let at = plan.context(&self.candidate);
        let estimated = self.estimated.load(Ordering::Relaxed);
        let amounts = cost::actual(&core.metrics, &plan.matches, usage, &at, prices, whole);
        settle::end(core, held, Ending::Settle { amounts, tokens: usage.total, estimated }).await
    }

    pub(crate) async fn release(&self, held: Option<Held>) {
        if let Some(held) = held {
            settle::end(self.core(), held, Ending::Release).await;
        }
    }

    /// Says who served the request, and with which model if it is not the one that was asked for.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(AI_PROVIDER, &self.backend.name);
        set(BACKEND, self.name());
        set(ATTEMPTS, &self.number.to_string());
        if !self.dropped.is_empty() {
            set(DROPPED, &self.dropped.join(", "));
        }
        if self.plan.model != self.call.model {
            set(DOWNGRADED, &format!("{} -> {}", self.call.model, self.plan.model));
        }
    }
}

fn as_ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
