//! The most that a request can cost: in tokens, and from these in every budget's own unit.
//!
//! Input: the bytes of the text (a byte-pair token covers at least one) while the budgets are rich, or the exact count
//! plus the model's overheads. Output: what the request names, or what the policy gives to those that name nothing.

use quorate_policy::runtime::{BudgetMatch, OutputBounds, OutputTooLarge};

use crate::{
    provider::{Endpoint, Facts, tally::Input},
    refusal::Refusal,
    tokenizer::{self, Overheads, Tokenizer},
};

/// What /v1/completions generates if nothing is named (OpenAI's reference: "defaults to 16").
const COMPLETION_DEFAULT: u64 = 16;
/// So little text is always counted exactly: it takes microseconds, and small budgets are not held up by loose bounds.
pub(crate) const EXACT_BYTES: u64 = 2048;

/// The output of a request, as its budgets bound it. `models`: those that may serve it.
///
/// # Errors
/// It names more than a budget allows.
pub(crate) fn output<'a>(
    facts: &Facts,
    matches: &[BudgetMatch],
    models: impl Iterator<Item = &'a str>,
) -> Result<OutputBounds, Refusal> {
    let default_max = match facts.endpoint {
        Endpoint::Embeddings | Endpoint::CountTokens => return Ok(OutputBounds::none(matches)),
        Endpoint::Images | Endpoint::Speech => {
            return Ok(OutputBounds::fixed(facts.output_fixed.saturating_mul(facts.answers), matches));
        }
        Endpoint::Transcriptions | Endpoint::Translations => {
            let most = models.map(tokenizer::transcript_max).max().unwrap_or(u64::MAX);
            return Ok(OutputBounds::fixed(facts.output_fixed.min(most), matches));
        }
        Endpoint::Completions => COMPLETION_DEFAULT,
        Endpoint::Chat | Endpoint::Messages | Endpoint::Responses => u64::MAX,
    };
    let bounds = OutputBounds::of(facts.output_named, default_max, facts.answers, matches);
    bounds.map_err(|OutputTooLarge { budget, named, max }| Refusal::OutputTooLarge { budget, named, max })
}

/// The bound by bytes.
pub(crate) fn input_bound(facts: &Facts, overheads: Overheads) -> u64 {
    overheads.bound(facts.endpoint, &facts.input)
}

/// The bound with the text measured by the model's tokenizer.
pub(crate) fn input_exact(facts: &Facts, overheads: Overheads, measured: &Input) -> u64 {
    overheads.bound(facts.endpoint, measured).min(input_bound(facts, overheads))
}

/// For amounts that are charged and not held: models of unknown families count roughly like OpenAI's.
pub(crate) fn measuring(tokenizer: Tokenizer) -> Tokenizer {
    if tokenizer == Tokenizer::Bytes { Tokenizer::O200k } else { tokenizer }
}
