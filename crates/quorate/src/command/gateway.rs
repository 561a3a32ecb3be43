//! `quorate gateway`: a gateway, until it is told to stop.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use quorate_gateway::{Gateway, GatewayConfig};

use crate::command::StopOptions;
use crate::config::{self, Override, SetOptions};

/// Run a gateway
///
/// Stops in good order on SIGTERM and Ctrl-C: answers that are on their way are finished and settled.
///
/// Examples:
///   quorate gateway --config deploy/gateway-1.yaml
///   quorate gateway --config gateway.yaml --name gateway-7 --listen 127.0.0.1:8090 --set timeouts.reserve_ms=2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RunGateway {
    /// YAML; every key is documented in docs/gateway.md
    #[arg(long, env = "QUORATE_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Instead of the file's `name`
    #[arg(long, env = "QUORATE_GATEWAY_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Instead of the file's `listen`
    #[arg(long, env = "QUORATE_GATEWAY_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Instead of the file's `http_listen`
    #[arg(long, env = "QUORATE_GATEWAY_HTTP_LISTEN", value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// Instead of the file's `nodes`
    #[arg(long, env = "QUORATE_NODES", value_delimiter = ',', value_name = "HOST:PORT")]
    nodes: Option<Vec<String>>,
    /// Where there is no TLS: let other machines connect all the same, unencrypted
    #[arg(long, env = "QUORATE_INSECURE")]
    insecure: bool,
    #[command(flatten)]
    set: SetOptions,
    #[command(flatten)]
    stop: StopOptions,
}

impl RunGateway {
    pub async fn run(self) -> Result<()> {
        let config = self.load()?;
        let listeners = Gateway::bind(&config)?;
        let gateway = Gateway::start(config, listeners)?;
        self.stop.told_to_stop().await?;
        tracing::info!("gateway stops");
        gateway.stop().await;
        Ok(())
    }

    fn load(&self) -> Result<GatewayConfig> {
        let flags = [
            Override::flag("name", "name", self.name.clone()),
            Override::flag("listen", "listen", self.listen.clone()),
            Override::flag("http-listen", "http_listen", self.http_listen.clone()),
            Override::flag("insecure", "insecure", self.insecure.then_some(true)),
            Override::flag("nodes", "nodes", self.nodes.clone()),
        ];
        let overrides: Vec<Override> =
            self.set.set.iter().cloned().chain(flags.into_iter().flatten()).collect();
        config::load(self.config.as_deref(), &overrides)
    }
}
