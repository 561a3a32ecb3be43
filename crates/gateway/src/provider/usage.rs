//! Tokens as a provider counted them, of whatever kind it tells apart.
//!
//! Sources: OpenAI's API reference (`prompt_tokens` holds the cached ones, `completion_tokens` the reasoning), Anthropic's
//! (`input_tokens` holds neither what was read from a cache nor what was written to one). Each token is counted once.

use serde::{Deserialize, de::Deserializer};

/// What an answer cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// All input, cached or not.
    pub(crate) input: u64,
    /// Of the input: read from a cache.
    pub(crate) cached_input: u64,
    /// Of the input: written to a cache.
    pub(crate) cache_creation_input: u64,
    /// All output.
    pub(crate) output: u64,
    /// Of the output: never shown.
    pub(crate) reasoning: u64,
    /// At least input and output together.
    pub(crate) total: u64,
}

impl Usage {
    pub(crate) fn of(input: u64, output: u64) -> Self {
        Self { input, output, total: input.saturating_add(output), ..Self::default() }
    }

    /// The same with more output than was said.
    pub(crate) fn with_output(self, output: u64) -> Self {
        let more = output.saturating_sub(self.output);
        Self { output: self.output.saturating_add(more), total: self.total.saturating_add(more), ..self }
    }
}

/// `usage` as on the wire, in the words of both houses. A member that is no whole number counts as absent.
struct Wire(serde_json::Map<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire(Deserialize::deserialize(deserializer)?);
        let besides = wire.besides();
        let more = |tokens: Option<u64>, more: u64| tokens.map(|tokens| tokens.saturating_add(more));
        let input = more(wire.input(), besides.input);
        let output = wire.count("completion_tokens").or(wire.count("output_tokens"));
        let output = more(output, besides.output);
        let total = more(wire.count("total_tokens"), besides.total);
        if input.is_none() && output.is_none() && total.is_none() {
            return Err(serde::de::Error::custom("usage without numbers"));
        }
        let input = input.unwrap_or(0);
        let total = total.unwrap_or(0).max(input.saturating_add(output.unwrap_or(0)));
        // Some name tokens in the total alone (Gemini's thoughts): they were generated.
        let output = total.saturating_sub(input);
        let cached_input = wire.of_input("cached_tokens", "cache_read_input_tokens").min(input);
        let written = wire.of_input("cache_write_tokens", "cache_creation_input_tokens");
        Ok(Self {
            input,
            cached_input,
            cache_creation_input: written.min(input - cached_input),
            output,
            reasoning: wire.reasoning().min(output),
            total,
        })
    }
}

impl Wire {
    fn count(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    fn detail(&self, of: &str, name: &str) -> Option<u64> {
        self.0.get(of)?.get(name)?.as_u64()
    }

    /// All input. Anthropic's own `input_tokens` leave the cache's out; `prompt_tokens` never do, nor do OpenAI's
    /// `input_tokens`, which speak of the cache in their details only.
    fn input(&self) -> Option<u64> {
        let cache = ["cache_read_input_tokens", "cache_creation_input_tokens"].map(|name| self.count(name));
        let cache: u64 = cache.into_iter().flatten().fold(0, u64::saturating_add);
        let without = self.count("input_tokens").map(|tokens| tokens.saturating_add(cache));
        self.count("prompt_tokens").or(without)
    }

    /// A part of the input: by OpenAI's name, in the details, or by Anthropic's.
    fn of_input(&self, openai: &str, anthropic: &str) -> u64 {
        let details = self.detail("prompt_tokens_details", openai);
        let details = details.or_else(|| self.detail("input_tokens_details", openai));
        details.or_else(|| self.count(anthropic)).unwrap_or(0)
    }

    /// What other rounds than the answer's own cost (Anthropic's pages on compaction and on the advisor): the counts
    /// beside them leave it out.
    fn besides(&self) -> Usage {
        let rounds = self.0.get("iterations").and_then(serde_json::Value::as_array);
        let other = |round: &&serde_json::Value| {
            round.get("type").is_some_and(|kind| kind == "compaction" || kind == "advisor_message")
        };
        let usages = rounds.into_iter().flatten().filter(other).map(|round| {
            let round = round.as_object().cloned().unwrap_or_default();
            let round = Self(round.into_iter().filter(|(name, _)| name != "iterations").collect());
            Usage::of(round.input().unwrap_or(0), round.count("output_tokens").unwrap_or(0))
        });
        usages.fold(Usage::default(), |sum, usage| {
            Usage::of(sum.input.saturating_add(usage.input), sum.output.saturating_add(usage.output))
        })
    }

    fn reasoning(&self) -> u64 {
        let details = self.detail("completion_tokens_details", "reasoning_tokens");
        let details = details.or_else(|| self.detail("output_tokens_details", "reasoning_tokens"));
        details.or_else(|| self.detail("output_tokens_details", "thinking_tokens")).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<Usage> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn every_kind_of_token_is_counted_once() {
        let all = |input, cached_input, cache_creation_input, output, reasoning, total| {
            Some(Usage { input, cached_input, cache_creation_input, output, reasoning, total })
        };
        for (json, expected) in [
            (
                r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":64,
                    "audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":30}}"#,
                all(100, 64, 0, 50, 30, 150),
            ),
            (
                r#"{"input_tokens":10,"cache_read_input_tokens":64,"cache_creation_input_tokens":20,"output_tokens":5}"#,
                all(94, 64, 20, 5, 0, 99),
            ),
            (
                r#"{"prompt_tokens":94,"completion_tokens":5,"total_tokens":99,"cache_read_input_tokens":64,"cache_creation_input_tokens":20}"#,
                all(94, 64, 20, 5, 0, 99),
            ),
            (
                r#"{"input_tokens":75,"input_tokens_details":{"cached_tokens":32},"output_tokens":1186,
                    "output_tokens_details":{"reasoning_tokens":1024},"total_tokens":1261}"#,
                all(75, 32, 0, 1186, 1024, 1261),
            ),
            (
                r#"{"input_tokens":10,"output_tokens":50,"output_tokens_details":{"thinking_tokens":40}}"#,
                all(10, 0, 0, 50, 40, 60),
            ),
            // A summary of the conversation, and the answer.
            (
                r#"{"input_tokens":23,"output_tokens":10,"iterations":[{"type":"compaction","input_tokens":180,"output_tokens":35},
                    {"type":"message","input_tokens":23,"output_tokens":10},7]}"#,
                all(203, 0, 0, 45, 0, 248),
            ),
            // Thoughts in the total only.
            (r#"{"prompt_tokens":8,"completion_tokens":2,"total_tokens":40}"#, all(8, 0, 0, 32, 0, 40)),
            // Less than its parts: the parts count.
            (r#"{"prompt_tokens":8,"completion_tokens":2,"total_tokens":5}"#, all(8, 0, 0, 2, 0, 10)),
            (
                r#"{"prompt_tokens":8,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":99},"completion_tokens_details":null}"#,
                all(8, 8, 0, 2, 0, 10),
            ),
            (r#"{"prompt_tokens":8,"prompt_tokens_details":[1]}"#, all(8, 0, 0, 0, 0, 8)),
        ] {
            assert_eq!(usage(json), expected, "{json}");
        }
    }

    #[test]
    fn odd_shapes() {
        for json in ["null", "{}", "[]", r#"{"total_tokens":-4}"#, r#"{"prompt_tokens":"8"}"#] {
            assert_eq!(usage(json), None, "{json}");
        }
        assert_eq!(usage(r#"{"prompt_tokens":7,"total_tokens":7}"#), Some(Usage::of(7, 0)));
        assert_eq!(usage(r#"{"prompt_tokens":3,"completion_tokens":4}"#), Some(Usage::of(3, 4)));
        let most = u64::MAX;
        let huge = usage(&format!(r#"{{"prompt_tokens":{most},"completion_tokens":{most}}}"#)).unwrap();
        assert_eq!(huge.total, most);
    }
}
