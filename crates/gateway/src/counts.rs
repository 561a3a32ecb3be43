//! The input of one request, measured by its models' tokenizers: once each, and only when the bytes are too loose.

use crate::{call::Call, estimate, plan::Candidate, provider::tally::Input, tokenizer::Tokenizer};

/// Larger texts are counted on a thread of their own.
const INLINE_BYTES_MAX: u64 = 32 << 10;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    exact: bool,
    o200k: Option<Input>,
    cl100k: Option<Input>,
}

impl Counts {
    /// There is nothing more to count.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Measures with those of `tokenizers` that have not yet.
    pub(crate) async fn count(&mut self, call: &Call, tokenizers: &[Tokenizer]) {
        self.exact = true;
        for tokenizer in tokenizers {
            let place = match tokenizer {
                Tokenizer::O200k => &mut self.o200k,
                Tokenizer::Cl100k => &mut self.cl100k,
                Tokenizer::Bytes => continue,
            };
            if place.is_none() {
                call.core.metrics.exact_counts.inc();
                *place = measure(call, *tokenizer).await;
            }
        }
    }

    /// The most tokens that this candidate can count: measured, or by the bytes.
    pub(crate) fn input(&self, call: &Call, candidate: &Candidate) -> u64 {
        let measured = match candidate.tokenizer() {
            Tokenizer::O200k => &self.o200k,
            Tokenizer::Cl100k => &self.cl100k,
            Tokenizer::Bytes => &None,
        };
        match measured {
            Some(measured) => estimate::input_exact(&call.facts, candidate.overheads(), measured),
            None => estimate::input_bound(&call.facts, candidate.overheads()),
        }
    }
}

/// The input by `tokenizer`; by its bytes if that fails. `heard`: the tokens of its audio, where they are known.
pub(crate) async fn count_with(
    call: &Call,
    tokenizer: Tokenizer,
    candidate: &Candidate,
    heard: Option<u64>,
) -> u64 {
    let measured = measure(call, tokenizer).await;
    let heard = |input: Input| Input { audio: heard.unwrap_or(input.audio), ..input };
    match measured.map(heard) {
        Some(measured) => estimate::input_exact(&call.facts, candidate.overheads(), &measured),
        None => estimate::input_bound(&call.facts, candidate.overheads()),
    }
}

/// Long texts do not hold up other requests.
async fn measure(call: &Call, tokenizer: Tokenizer) -> Option<Input> {
    if call.facts.input.text_bytes <= INLINE_BYTES_MAX {
        return call.facts.measure(&call.body, |text| tokenizer.count(text)).ok();
    }
    let (facts, body) = (call.facts.clone(), call.body.clone());
    let _turn = call.core.counting.acquire().await;
    let count = move || facts.measure(&body, |text| tokenizer.count(text)).ok();
    tokio::task::spawn_blocking(count).await.ok().flatten()
}
