//! `quorate gateway`: a gateway, until it is told to stop.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use quorate_gateway::{Gateway, GatewayConfig};

use crate::command::told_to_stop;
use crate::config;

/// Example: `quorate gateway --config deploy/gateway-1.yaml`
#[derive(Debug, Args)]
pub struct RunGateway {
    /// YAML; every key is documented in docs/gateway.md
    #[arg(long, env = "QUORATE_GATEWAY_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Instead of the file's `listen`
    #[arg(long, env = "QUORATE_GATEWAY_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Instead of the file's `http_listen`
    #[arg(long, env = "QUORATE_GATEWAY_HTTP_LISTEN", value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// Instead of the file's `nodes`
    #[arg(long, env = "QUORATE_NODES", value_delimiter = ',', value_name = "HOST:PORT")]
    nodes: Option<Vec<String>>,
}

impl RunGateway {
    pub async fn run(self) -> Result<()> {
        let mut config: GatewayConfig = config::load(&self.config)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.http_listen = self.http_listen.unwrap_or(config.http_listen);
        config.nodes = self.nodes.unwrap_or(config.nodes);
        let listeners = Gateway::bind(&config)?;
        let gateway = Gateway::start(config, listeners)?;
        tracing::info!(proxy = %gateway.proxy_address(), http = %gateway.http_address(), "gateway runs");
        told_to_stop().await?;
        tracing::info!("gateway stops");
        gateway.stop().await;
        Ok(())
    }
}
