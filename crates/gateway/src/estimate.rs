//! The third stage: the most that a request can cost, in tokens.
//!
//! Input: the bytes of the text (a byte-pair token covers at least one) while the budgets are rich, or the exact count
//! plus the model's overheads. Output: what the request names, or what the policy gives to those that name nothing.

use quorate_ledger::{Amount, Charge};
use quorate_policy::BudgetMatch;

use crate::{
    provider::{Endpoint, Facts, tally::Input},
    tokenizer::{Overheads, Tokenizer},
};

/// What /v1/completions generates if nothing is named (OpenAI's reference: "defaults to 16").
const COMPLETION_DEFAULT: u64 = 16;
/// So little text is always counted exactly: it takes microseconds, and small budgets are not held up by loose bounds.
const EXACT_BYTES: u64 = 2048;
/// A budget whose limit is below this many times the bound is not rich: count exactly at once.
const RICH_FACTOR: u64 = 16;

/// The output tokens of all answers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Embeddings.
    None,
    /// As the request says: whole or denied.
    Named(u64),
    /// The request says nothing: as much of `most` as is left, `least` at least. Sent upstream.
    Granted { most: u64, least: u64 },
}

impl Output {
    pub(crate) fn of(facts: &Facts, matches: &[BudgetMatch]) -> Self {
        if facts.endpoint == Endpoint::Embeddings {
            return Self::None;
        }
        if let Some(named) = facts.output_named {
            return Self::Named(named.saturating_mul(facts.answers));
        }
        // The smallest default binds; the largest floor of all, where it is not above that.
        let most = matches.iter().map(|found| found.budget.output_default).min().unwrap_or(0).max(1);
        let most = if facts.endpoint == Endpoint::Completions { most.min(COMPLETION_DEFAULT) } else { most };
        let least = matches.iter().map(|found| found.budget.output_floor).max().unwrap_or(0).clamp(1, most);
        Self::Granted { most: most.saturating_mul(facts.answers), least: least.saturating_mul(facts.answers) }
    }

    fn most(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Named(tokens) => tokens,
            Self::Granted { most, .. } => most,
        }
    }

    fn least(self) -> u64 {
        match self {
            Self::Granted { least, .. } => least,
            other => other.most(),
        }
    }
}

/// Whether to count exactly before asking at all.
pub(crate) fn count_at_once(facts: &Facts, bound: u64, matches: &[BudgetMatch]) -> bool {
    let rich = matches.iter().all(|found| found.budget.limit.units_floor() / RICH_FACTOR > bound);
    facts.input.text_bytes <= EXACT_BYTES || !rich
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

/// One charge for each budget, the same tokens in each.
pub(crate) fn charges(matches: &[BudgetMatch], input: u64, output: Output) -> Vec<Charge> {
    let tokens = |output: u64| {
        let units = input.saturating_add(output).max(1);
        Amount::from_units(units).unwrap_or(Amount::MAX)
    };
    let (amount, at_least) = (tokens(output.most()), tokens(output.least()));
    matches
        .iter()
        .map(|found| Charge {
            budget: found.budget.name.clone(),
            subject: found.subject.clone(),
            amount,
            at_least,
        })
        .collect()
}
