//! `TokenUsage`: `inputTokens` hold neither what was read from a cache nor what was written to one (Bedrock's user guide,
//! "Prompt caching"); `totalTokens` hold all.

use serde::Deserialize;
use serde_json::Value;

use crate::provider::Usage;

/// As on the wire. A member that is no whole number counts as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TokenUsage {
    input_tokens: Value,
    output_tokens: Value,
    total_tokens: Value,
    cache_read_input_tokens: Value,
    cache_write_input_tokens: Value,
}

impl TokenUsage {
    pub(super) fn usage(&self) -> Option<Usage> {
        let (fresh, output) = (self.input_tokens.as_u64(), self.output_tokens.as_u64());
        if fresh.is_none() && output.is_none() {
            return None;
        }
        let (fresh, output) = (fresh.unwrap_or(0), output.unwrap_or(0));
        let read = self.cache_read_input_tokens.as_u64().unwrap_or(0);
        let written = self.cache_write_input_tokens.as_u64().unwrap_or(0);
        let input = fresh.saturating_add(read).saturating_add(written);
        let sum = input.saturating_add(output);
        let total = self.total_tokens.as_u64().unwrap_or(0).max(sum);
        Some(Usage { input, cached_input: read, cache_creation_input: written, output, reasoning: 0, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_tokens_are_counted_once() {
        let usage = |json: &str| serde_json::from_str::<TokenUsage>(json).unwrap().usage();
        let all = |input, cached_input, cache_creation_input, output, total| {
            Some(Usage { input, cached_input, cache_creation_input, output, reasoning: 0, total })
        };
        for (json, expected) in [
            (
                r#"{"inputTokens":9,"outputTokens":234,"totalTokens":1570,"cacheReadInputTokens":1327,"cacheWriteInputTokens":0}"#,
                all(1336, 1327, 0, 234, 1570),
            ),
            (r#"{"inputTokens":3,"outputTokens":4,"totalTokens":7}"#, all(3, 0, 0, 4, 7)),
            (
                r#"{"inputTokens":3,"outputTokens":4,"cacheWriteInputTokens":5,"cacheDetails":[{"ttl":"5m","inputTokens":5}]}"#,
                all(8, 0, 5, 4, 12),
            ),
            (r#"{"inputTokens":3,"outputTokens":-4,"totalTokens":"x"}"#, all(3, 0, 0, 0, 3)),
            (r#"{"totalTokens":9}"#, None),
            ("{}", None),
        ] {
            assert_eq!(usage(json), expected, "{json}");
        }
        let most = u64::MAX;
        let huge = format!(r#"{{"inputTokens":{most},"outputTokens":{most},"cacheReadInputTokens":{most}}}"#);
        assert_eq!(usage(&huge).unwrap().total, most);
    }
}
