//! What a request asks of the simulated provider: OpenAI's fields, and overrides in `metadata`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::Settings;

#[derive(Debug, Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub stream: bool,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    messages: Value,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    pub input: Value,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// A request as it is to be answered.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub model: String,
    pub stream: bool,
    pub include_usage: bool,
    pub input_tokens: u64,
    /// For each choice.
    pub output_tokens: u64,
    pub choices: u64,
    /// The output was cut by the request's limit.
    pub cut_by_limit: bool,
    pub latency_ms: u64,
    pub chunk_ms: u64,
    pub status: u16,
    pub retry_after: Option<u64>,
    /// The connection breaks after so many chunks.
    pub cut_after: Option<u64>,
    pub no_usage: bool,
    /// Of the input, and of the output: kinds of tokens that have prices of their own.
    pub cached_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
}

impl Body {
    pub fn plan(self, settings: &Settings, status: u16) -> Plan {
        let number = |key: &str| self.metadata.get(key).and_then(|value| value.parse::<u64>().ok());
        let text = [&self.messages, &self.prompt, &self.input].map(text_bytes).iter().sum::<u64>();
        let wanted = number("mock_tokens").unwrap_or(settings.tokens);
        let limit = self.max_completion_tokens.or(self.max_tokens);
        Plan {
            stream: self.stream,
            include_usage: self.stream_options.as_ref().is_some_and(|options| options.include_usage),
            input_tokens: number("mock_input_tokens").unwrap_or_else(|| text.div_ceil(4)),
            output_tokens: limit.map_or(wanted, |limit| wanted.min(limit)),
            choices: self.n.unwrap_or(1).clamp(1, 16),
            cut_by_limit: limit.is_some_and(|limit| limit <= wanted),
            latency_ms: number("mock_latency_ms").unwrap_or(settings.latency_ms),
            chunk_ms: number("mock_chunk_ms").unwrap_or(settings.chunk_ms),
            status: number("mock_status").and_then(|status| u16::try_from(status).ok()).unwrap_or(status),
            retry_after: number("mock_retry_after"),
            cut_after: number("mock_cut_after"),
            no_usage: self.metadata.contains_key("mock_no_usage"),
            cached_tokens: number("mock_cached_tokens").unwrap_or(0),
            cache_write_tokens: number("mock_cache_write_tokens").unwrap_or(0),
            reasoning_tokens: number("mock_reasoning_tokens").unwrap_or(0),
            model: self.model,
        }
    }
}

/// Bytes of all texts in a value: a quarter of them counts as tokens, the usual rule of thumb.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(fields) => fields.values().map(text_bytes).sum(),
        _ => 0,
    }
}
