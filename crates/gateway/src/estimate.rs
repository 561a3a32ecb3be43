//! The most that a request can cost: in tokens, and from these in every budget's own unit.
//!
//! Input: the bytes of the text (a byte-pair token covers at least one) while the budgets are rich, or the exact count
//! plus the model's overheads. Output: what the request names, or what the policy gives to those that name nothing.

use quorate_ledger::Enforcement;
use quorate_policy::runtime::{BudgetMatch, WhenShort};

use crate::{
    provider::{Endpoint, Facts, tally::Input},
    refusal::Refusal,
    tokenizer::{Overheads, Tokenizer},
};

/// What /v1/completions generates if nothing is named (OpenAI's reference: "defaults to 16").
const COMPLETION_DEFAULT: u64 = 16;
/// So little text is always counted exactly: it takes microseconds, and small budgets are not held up by loose bounds.
pub(crate) const EXACT_BYTES: u64 = 2048;

/// The output tokens of all answers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) most: u64,
    /// For each budget, the fewest that are accepted there; `most`: all or nothing.
    pub(crate) least: Vec<u64>,
    /// What the client named itself.
    named: Option<u64>,
    /// Somebody holds a bound on it: the backend must be told.
    bounded: bool,
    answers: u64,
}

impl Output {
    /// Embeddings have none. A request that names a limit gets it whole, or less where all budgets that are short say
    /// `Clamp`; one that names none gets what is left of the smallest default.
    pub(crate) fn of(facts: &Facts, matches: &[BudgetMatch]) -> Result<Self, Refusal> {
        let answers = facts.answers.max(1);
        let whole = |most: u64, named, bounded| Self {
            most: most.saturating_mul(answers),
            least: vec![most.saturating_mul(answers); matches.len()],
            named,
            bounded,
            answers,
        };
        if facts.endpoint == Endpoint::Embeddings {
            return Ok(whole(0, None, false));
        }
        // Those that only count change nothing about a request.
        let binding = || matches.iter().filter(|found| binds(found));
        let largest = binding().filter_map(|found| found.budget.output_max).min().unwrap_or(u64::MAX);
        let floor =
            |most: u64, found: &BudgetMatch| found.budget.output_floor.clamp(1, most.max(1)).min(most);
        let mut output = if let Some(named) = facts.output_named {
            let refusing = binding().find(|found| {
                found.budget.when_short == WhenShort::Deny
                    && found.budget.output_max.is_some_and(|max| max < named)
            });
            if let Some(found) = refusing {
                let budget = found.budget.rule.name.clone();
                let max = found.budget.output_max.unwrap_or(0);
                return Err(Refusal::OutputTooLarge { budget, named, max });
            }
            whole(named.min(largest), Some(named), true)
        } else {
            let smallest = binding().map(|found| found.budget.output_default).min();
            let counted = || matches.iter().map(|found| found.budget.output_default).min();
            let most = smallest.or_else(counted).unwrap_or(0).min(largest).max(1);
            let completions = facts.endpoint == Endpoint::Completions;
            whole(if completions { most.min(COMPLETION_DEFAULT) } else { most }, None, smallest.is_some())
        };
        let one = output.most / answers;
        // The largest floor of all, where it is not above that.
        let floor_of_all = binding().map(|found| floor(one, found)).max().unwrap_or(one);
        for (least, found) in output.least.iter_mut().zip(matches) {
            if binds(found) && output.named.is_none() {
                *least = floor_of_all.saturating_mul(answers);
            } else if binds(found) && found.budget.when_short == WhenShort::Clamp {
                *least = floor(one, found).saturating_mul(answers);
            }
        }
        Ok(output)
    }

    /// The limit of one answer to send upstream, for `granted` tokens of all answers. `None`: the request names it.
    pub(crate) fn limit(&self, granted: u64) -> Option<u64> {
        let limit = granted / self.answers;
        match self.named {
            Some(named) => (limit < named).then_some(limit),
            None => self.bounded.then_some(limit),
        }
    }
}

/// Budgets that can deny, and so hold a bound on what a request may do.
pub(crate) fn binds(found: &BudgetMatch) -> bool {
    found.budget.rule.enforcement == Enforcement::Reserve
}

/// The bound by bytes.
pub(crate) fn input_bound(facts: &Facts, model: &str) -> u64 {
    Overheads::for_model(model).bound(facts.endpoint, &facts.input)
}

/// The bound with the text measured by the model's tokenizer.
pub(crate) fn input_exact(facts: &Facts, model: &str, measured: &Input) -> u64 {
    Overheads::for_model(model).bound(facts.endpoint, measured).min(input_bound(facts, model))
}

/// For amounts that are charged and not held: models of unknown families count roughly like OpenAI's.
pub(crate) fn measuring(tokenizer: Tokenizer) -> Tokenizer {
    if tokenizer == Tokenizer::Bytes { Tokenizer::O200k } else { tokenizer }
}
