//! `quorate mock-provider`: a simulated provider, until it is told to stop.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::StopOptions;
use crate::mock_provider::{MockProvider, Settings};

/// Run a simulated provider that speaks the OpenAI API
///
/// A request may overrule the settings in its `metadata`: `mock_latency_ms`, `mock_input_tokens`, `mock_cached_tokens` and
/// `mock_cache_write_tokens` (of the input), `mock_tokens`, `mock_reasoning_tokens` (of the output), `mock_status`,
/// `mock_retry_after`, `mock_cut_after` (chunks), `mock_chunk_ms`, `mock_no_usage`. What it served: `GET /mock/served`.
#[derive(Debug, Args)]
pub struct RunMockProvider {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "HOST:PORT")]
    listen: String,
    /// Milliseconds before each answer
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Milliseconds between the chunks of a stream
    #[arg(long, default_value_t = 0)]
    chunk_ms: u64,
    /// Output tokens of an answer, unless the request allows fewer
    #[arg(long, default_value_t = 16)]
    tokens: u64,
    /// Share of requests that are answered with 500, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    error_percent: u8,
    /// Share of requests that are answered with 429, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    limited_percent: u8,
    #[command(flatten)]
    stop: StopOptions,
}

impl RunMockProvider {
    pub async fn run(self) -> Result<()> {
        let settings = Settings {
            latency_ms: self.latency_ms,
            chunk_ms: self.chunk_ms,
            tokens: self.tokens,
            error_percent: self.error_percent,
            limited_percent: self.limited_percent,
        };
        let listener = std::net::TcpListener::bind(&self.listen)
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        let provider = MockProvider::start(settings, listener)?;
        tracing::info!(address = %provider.address(), "simulated provider runs");
        self.stop.told_to_stop().await?;
        provider.stop().await;
        Ok(())
    }
}
