//! `quorate mock-provider`: a simulated provider, until it is told to stop.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::StopOptions;
use crate::mock_provider::{AwsAccount, MockProvider, Settings};

/// Run a simulated provider: OpenAI, Azure OpenAI, Anthropic and AWS Bedrock
///
/// What it answers, and the phrases that make it hang, fail or send half: docs/simulated-provider.md.
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
    /// The one API key that is taken; without it any or none will do
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Access key id of Bedrock's callers
    #[arg(long, default_value_t = AwsAccount::default().access_key_id, value_name = "ID")]
    aws_access_key_id: String,
    /// Secret access key of Bedrock's callers: a made-up one, never a real one
    #[arg(long, default_value_t = AwsAccount::default().secret_access_key, value_name = "SECRET")]
    aws_secret_access_key: String,
    /// Session token of Bedrock's callers, if they have one
    #[arg(long, value_name = "TOKEN")]
    aws_session_token: Option<String>,
    /// Region that Bedrock's callers sign for
    #[arg(long, default_value_t = AwsAccount::default().region, value_name = "REGION")]
    aws_region: String,
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
            api_key: self.api_key,
            aws: AwsAccount {
                access_key_id: self.aws_access_key_id,
                secret_access_key: self.aws_secret_access_key,
                session_token: self.aws_session_token,
                region: self.aws_region,
            },
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
