//! What decides among the backends of a rule, besides the rule itself: the same for the whole request, however often it
//! is planned anew.

use std::sync::Arc;

use quorate_policy::runtime::{BackendRef, Prices, RequestView, RouteMatch, Signals};

use crate::{
    budget::BudgetKeeper, core::Core, estimate, latency::Latencies, provider::Endpoint, provider::Facts,
    tokenizer::Overheads,
};

/// Output of a request that names none, to compare prices; what it is admitted with is up to its budgets.
const OUTPUT_DEFAULT: u64 = 1_024;

#[derive(Debug, Clone)]
pub(crate) struct Choosing {
    /// Drawn.
    draw: u64,
    conversation: Option<u64>,
    /// Bounds, in tokens.
    input: u64,
    output: u64,
    latencies: Arc<Latencies>,
    /// Knows the ledger's clock.
    keeper: Arc<dyn BudgetKeeper>,
}

impl Choosing {
    /// `model`: the one that was asked for.
    pub(crate) fn new(core: &Core, facts: &Facts, model: &str) -> Self {
        let one = match facts.endpoint {
            Endpoint::Embeddings => 0,
            _ => facts.output_named.unwrap_or(OUTPUT_DEFAULT),
        };
        Self {
            draw: rand::random(),
            conversation: facts.conversation,
            input: estimate::input_bound(facts, Overheads::for_model(model)),
            output: one.saturating_mul(facts.answers),
            latencies: Arc::clone(&core.latencies),
            keeper: Arc::clone(&core.keeper),
        }
    }

    /// The backends of the rule that the request met, in the order in which to try them.
    pub(crate) fn order<'a>(
        &self,
        found: &RouteMatch<'a>,
        request: &RequestView<'_>,
        prices: &Prices,
    ) -> Vec<&'a BackendRef> {
        let signals = Signals {
            draw: self.draw,
            conversation: self.conversation,
            input: self.input,
            output: self.output,
            prices,
            latency_ms: &|backend, model| self.latencies.of(backend, model, || self.keeper.now()),
        };
        found.ordered(request, &signals).into_iter().map(|ranked| ranked.backend).collect()
    }
}
