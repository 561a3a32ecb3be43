//! A simulated provider: OpenAI-shaped answers of a settable size, speed and unreliability, and a record of what it served.
//!
//! The record (`GET /mock/served`) is the truth that tests compare charges with.

mod answers;
mod request;
mod server;

pub use server::MockProvider;

/// What an answer is like unless its request says otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    pub latency_ms: u64,
    pub chunk_ms: u64,
    pub tokens: u64,
    pub error_percent: u8,
    pub limited_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { latency_ms: 0, chunk_ms: 0, tokens: 16, error_percent: 0, limited_percent: 0 }
    }
}
