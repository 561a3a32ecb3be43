//! What a gateway counts. Label values are bounded: they come from the config, the policy or from here.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{lease_metrics::LeaseMetrics, provider::Usage, rate_limit::RateLimitMetrics};

/// Budgets that get a label of their own; a policy has fewer, this bounds a long life with many policies.
const BUDGET_LABELS_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labelled {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BudgetLabel {
    budget: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabel {
    backend: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendKind {
    backend: String,
    kind: &'static str,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    tokens: Family<Labelled, Counter>,
    denials: Family<BudgetLabel, Counter>,
    accounts_capped: Family<BudgetLabel, Counter>,
    cost_errors: Family<BudgetLabel, Counter>,
    fallbacks: Family<BackendLabel, Counter>,
    passed_over: Family<BackendLabel, Counter>,
    pub(crate) fail_open: Counter,
    pub(crate) fail_open_charged: Counter,
    pub(crate) fail_open_lost: Counter,
    pub(crate) leases: LeaseMetrics,
    budgets_seen: Mutex<std::collections::HashSet<String>>,
    /// Usage that the provider did not send.
    usage_estimated: Family<Labelled, Counter>,
    first_byte: Family<BackendLabel, Histogram, fn() -> Histogram>,
    upstream_errors: Family<BackendKind, Counter>,
    pub(crate) provider_state: ProviderStates,
    probes: Family<Labelled, Counter>,
    pub(crate) resting: Counter,
    pub(crate) overdrafts: Counter,
    pub(crate) overdraft_tokens: Counter,
    pub(crate) hang_ups: Counter,
    pub(crate) exact_counts: Counter,
    pub(crate) unresolved: Counter,
    pub(crate) policy_errors: Counter,
    pub(crate) policy_version: Gauge<u64, AtomicU64>,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) reserve_seconds: Histogram,
    pub(crate) resolve_seconds: Histogram,
    pub(crate) rate_limit: RateLimitMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CircuitLabels {
    backend: String,
    model: String,
}

/// 0 closed, 1 open, 2 half-open, 3 drained; as the ledger says. No more than it keeps.
#[derive(Debug, Default)]
pub(crate) struct ProviderStates {
    family: Family<CircuitLabels, Gauge>,
    /// Which change of the circuit that is: what this gateway has seen, it goes by.
    revisions: Family<CircuitLabels, Gauge>,
    shown: Mutex<std::collections::HashSet<CircuitLabels>>,
}

impl ProviderStates {
    pub(crate) fn set(&self, backend: &str, model: &str, state: i64, revision: u64) {
        let labels = CircuitLabels { backend: backend.to_owned(), model: model.to_owned() };
        self.family.get_or_create(&labels).set(state);
        self.revisions.get_or_create(&labels).set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.shown.lock().insert(labels);
    }

    /// Those that the ledger has forgotten are shown no more.
    pub(crate) fn keep(&self, known: &quorate_rpc::Providers) {
        self.shown.lock().retain(|labels| {
            let kept = quorate_rpc::circuit(known, &labels.backend, &labels.model).is_some();
            if !kept {
                self.family.remove(labels);
                self.revisions.remove(labels);
            }
            kept
        });
    }
}

/// From 100 µs to 13 s.
fn latency() -> Histogram {
    Histogram::new((0..18).map(|step| 0.0001 * f64::from(1 << step)))
}

/// From 1 ms to 500 s.
fn long_latency() -> Histogram {
    Histogram::new((0..20).map(|step| 0.001 * f64::from(1 << step)))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("quorate_gateway"),
            requests: Family::default(),
            tokens: Family::default(),
            denials: Family::default(),
            accounts_capped: Family::default(),
            cost_errors: Family::default(),
            fallbacks: Family::default(),
            passed_over: Family::default(),
            fail_open: Counter::default(),
            fail_open_charged: Counter::default(),
            fail_open_lost: Counter::default(),
            leases: LeaseMetrics::default(),
            budgets_seen: Mutex::default(),
            usage_estimated: Family::default(),
            first_byte: Family::new_with_constructor(long_latency),
            upstream_errors: Family::default(),
            provider_state: ProviderStates::default(),
            probes: Family::default(),
            resting: Counter::default(),
            overdrafts: Counter::default(),
            overdraft_tokens: Counter::default(),
            hang_ups: Counter::default(),
            exact_counts: Counter::default(),
            unresolved: Counter::default(),
            policy_errors: Counter::default(),
            policy_version: Gauge::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            reserve_seconds: latency(),
            resolve_seconds: latency(),
            rate_limit: RateLimitMetrics::new(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests by endpoint and class of status", self.requests.clone());
        r.register(
            "tokens",
            "Tokens charged, by kind; cached ones and reasoning are parts of input and output",
            self.tokens.clone(),
        );
        r.register("denials", "Requests denied, by the budget that was short", self.denials.clone());
        r.register(
            "accounts_capped",
            "Requests denied because their subject would be one account too many, by budget",
            self.accounts_capped.clone(),
        );
        r.register(
            "cost_errors",
            "Costs that failed, charged as tokens, by budget",
            self.cost_errors.clone(),
        );
        r.register(
            "fallbacks",
            "Backends left for the next one before an answer began",
            self.fallbacks.clone(),
        );
        r.register(
            "passed_over",
            "Backends passed over because a budget of their own was short",
            self.passed_over.clone(),
        );
        r.register("fail_open", "Requests admitted without the budget nodes", self.fail_open.clone());
        r.register(
            "fail_open_charged",
            "Accounts charged afterwards for such requests",
            self.fail_open_charged.clone(),
        );
        r.register(
            "fail_open_lost",
            "Accounts that could not be charged for such requests",
            self.fail_open_lost.clone(),
        );
        r.register(
            "usage_estimated",
            "Answers without usage, counted here instead",
            self.usage_estimated.clone(),
        );
        r.register("upstream_errors", "Calls that failed, by backend", self.upstream_errors.clone());
        r.register(
            "provider_state",
            "0 closed, 1 open, 2 half-open, 3 drained; without a model: the whole backend",
            self.provider_state.family.clone(),
        );
        r.register(
            "provider_revision",
            "The ledger's number of the change that provider_state shows",
            self.provider_state.revisions.clone(),
        );
        r.register("probes", "Probes of backends that rested, by verdict", self.probes.clone());
        r.register(
            "resting",
            "Requests refused because none of their backends could be used",
            self.resting.clone(),
        );
        r.register("overdrafts", "Answers that used more than was reserved", self.overdrafts.clone());
        r.register("overdraft_tokens", "Tokens used beyond reservations", self.overdraft_tokens.clone());
        r.register("hang_ups", "Clients that left before their answer was complete", self.hang_ups.clone());
        r.register("exact_counts", "Inputs counted with a tokenizer", self.exact_counts.clone());
        r.register("unresolved", "Reservations left to expire, charged as reserved", self.unresolved.clone());
        r.register(
            "policy_errors",
            "Policies received that this gateway cannot read",
            self.policy_errors.clone(),
        );
        r.register("policy_version", "The policy in force here", self.policy_version.clone());
        r.register("in_flight", "Requests at work", self.in_flight.clone());
        r.register("connections", "Open client connections", self.connections.clone());
        self.leases.register(r);
        let seconds = Unit::Seconds;
        r.register_with_unit("reserve", "Time to a decision", seconds.clone(), self.reserve_seconds.clone());
        r.register_with_unit(
            "resolve",
            "Time to settle or release",
            seconds.clone(),
            self.resolve_seconds.clone(),
        );
        r.register_with_unit(
            "first_byte",
            "Time to the head of the backend's answer",
            seconds,
            self.first_byte.clone(),
        );
        self.rate_limit.register(r);
    }

    pub(crate) fn request(&self, endpoint: &'static str, status: u16) {
        let status = match status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 if status == 429 => "429",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { endpoint, status }).inc();
    }

    /// `input` and `output` are all of them; the other kinds are parts of these.
    pub(crate) fn charged(&self, usage: Usage) {
        let counted = [
            ("input", usage.input),
            ("cached_input", usage.cached_input),
            ("cache_creation_input", usage.cache_creation_input),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ];
        for (kind, tokens) in counted {
            self.tokens.get_or_create(&Labelled { kind }).inc_by(tokens);
        }
    }

    pub(crate) fn denied(&self, budget: &str) {
        self.denials.get_or_create(&self.budget_label(budget)).inc();
    }

    /// A subject that would be one account too many.
    pub(crate) fn accounts_capped(&self, budget: &str) {
        self.accounts_capped.get_or_create(&self.budget_label(budget)).inc();
    }

    /// A cost that failed, and was charged as tokens.
    pub(crate) fn cost_error(&self, budget: &str) {
        self.cost_errors.get_or_create(&self.budget_label(budget)).inc();
    }

    /// A backend was left for the next one.
    pub(crate) fn fallback(&self, backend: &str) {
        self.fallbacks.get_or_create(&BackendLabel { backend: backend.to_owned() }).inc();
    }

    /// A budget of the backend's own was short, and another one was asked.
    pub(crate) fn passed_over(&self, backend: &str) {
        self.passed_over.get_or_create(&BackendLabel { backend: backend.to_owned() }).inc();
    }

    pub(crate) fn budget_label(&self, budget: &str) -> BudgetLabel {
        let mut seen = self.budgets_seen.lock();
        if !seen.contains(budget) && seen.len() < BUDGET_LABELS_MAX {
            seen.insert(budget.to_owned());
        }
        let budget = if seen.contains(budget) { budget } else { "other" };
        BudgetLabel { budget: budget.to_owned() }
    }

    /// `kind`: why there is no usage (`missing`, `hang_up`, `upstream_died`, `unanswered`).
    pub(crate) fn estimated(&self, kind: &'static str) {
        self.usage_estimated.get_or_create(&Labelled { kind }).inc();
    }

    pub(crate) fn first_byte(&self, backend: &str, seconds: f64) {
        self.first_byte.get_or_create(&BackendLabel { backend: backend.to_owned() }).observe(seconds);
    }

    pub(crate) fn upstream_error(&self, backend: &str, kind: &'static str) {
        self.upstream_errors.get_or_create(&BackendKind { backend: backend.to_owned(), kind }).inc();
    }

    pub(crate) fn probe(&self, verdict: quorate_ledger::ProbeVerdict) {
        use quorate_ledger::ProbeVerdict;
        let kind = match verdict {
            ProbeVerdict::Passed => "passed",
            ProbeVerdict::Failed => "failed",
            ProbeVerdict::GivenUp => "given_up",
        };
        self.probes.get_or_create(&Labelled { kind }).inc();
    }

    /// OpenMetrics text.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_text_comes_out() {
        let metrics = Metrics::new();
        for index in 0..1000 {
            metrics.denied(&format!("budget-{index}"));
        }
        metrics.request("chat", 429);
        metrics.first_byte("openai", 0.2);
        let text = metrics.encode();
        assert!(
            text.contains("quorate_gateway_requests_total{endpoint=\"chat\",status=\"429\"} 1"),
            "{text}"
        );
        assert!(text.contains("quorate_gateway_denials_total{budget=\"other\"} 744"), "{text}");
        assert!(text.contains("quorate_gateway_first_byte_seconds_count{backend=\"openai\"} 1"));
    }
}
