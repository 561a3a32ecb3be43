//! `quorate node`: a budget node, until it is told to stop or its storage fails.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use quorate_node::{Node, NodeConfig};

use crate::command::told_to_stop;
use crate::config;

/// Example: `quorate node --config deploy/node-1.yaml`
#[derive(Debug, Args)]
pub struct RunNode {
    /// YAML; every key is documented in docs/operations.md
    #[arg(long, env = "QUORATE_NODE_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Instead of the file's `listen`
    #[arg(long, env = "QUORATE_NODE_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Instead of the file's `advertise`
    #[arg(long, env = "QUORATE_NODE_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Instead of the file's `http_listen`
    #[arg(long, env = "QUORATE_NODE_HTTP_LISTEN", value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// Instead of the file's `data_dir`
    #[arg(long, env = "QUORATE_NODE_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl RunNode {
    pub async fn run(self) -> Result<()> {
        let mut config: NodeConfig = config::load(&self.config)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.advertise = self.advertise.or(config.advertise);
        config.http_listen = self.http_listen.unwrap_or(config.http_listen);
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        let listeners = Node::bind(&config)?;
        let id = config.id;
        let node = Node::start(config, listeners).await?;
        tracing::info!(id, grpc = %node.grpc_address(), http = %node.http_address(), "node runs");
        tokio::select! {
            told = told_to_stop() => told?,
            reason = node.failed() => {
                node.stop().await;
                bail!("node {id} cannot go on: {reason}");
            }
        }
        tracing::info!(id, "node stops");
        node.stop().await;
        Ok(())
    }
}
