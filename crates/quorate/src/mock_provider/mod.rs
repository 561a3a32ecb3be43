//! A simulated provider: OpenAI, Azure OpenAI, Anthropic and AWS Bedrock on one port, of a settable size, speed and
//! unreliability, and a record of what it served.
//!
//! The record (`GET /mock/served`) is the truth that tests compare charges with. Each dialect reads its requests into an
//! `Ask`, `brain.rs` answers it, and the dialect writes the `Reply`. What it can be told: docs/simulated-provider.md.

mod anthropic;
mod anthropic_answer;
mod ask;
mod behaviour;
mod brain;
mod cache;
mod converse;
mod converse_answer;
mod dialect;
mod error;
mod event_stream;
mod job;
#[cfg(test)]
mod job_tests;
mod keys;
mod openai_chat;
mod openai_media;
mod openai_responses;
mod openai_text;
mod output;
mod read;
mod schema;
mod served;
mod server;
#[cfg(test)]
mod server_tests;
mod sigv4;
mod switches;

pub use server::MockProvider;
pub use sigv4::AwsAccount;

/// What an answer is like unless its request says otherwise, and who may ask.
#[derive(Debug, Clone)]
pub struct Settings {
    pub latency_ms: u64,
    pub chunk_ms: u64,
    pub tokens: u64,
    pub error_percent: u8,
    pub limited_percent: u8,
    /// The one key that is taken; any or none if absent.
    pub api_key: Option<String>,
    pub aws: AwsAccount,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            chunk_ms: 0,
            tokens: 16,
            error_percent: 0,
            limited_percent: 0,
            api_key: None,
            aws: AwsAccount::default(),
        }
    }
}
