//! `quorate node`: a budget node, until it is told to stop or its storage fails.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quorate_node::{Node, NodeConfig};

use crate::command::StopOptions;
use crate::config::{self, Override, SetOptions};

/// Run a budget node
///
/// Stops in good order on SIGTERM and Ctrl-C: hands the leadership over, answers what is in flight, closes its folder.
///
/// Examples:
///   quorate node --config deploy/node-1.yaml
///   quorate node --config node.yaml --id 2 --listen 10.0.0.2:7701 --set limits.drain_ms=10000
///   quorate node --config node.yaml --rebuild
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RunNode {
    #[command(flatten)]
    options: NodeOptions,
    /// Once, for a damaged data folder: move it aside to `<data_dir>.damaged-<UTC time>`, start with an empty one, and take
    /// everything from the other nodes, which have to be running
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    stop: StopOptions,
}

impl RunNode {
    pub async fn run(self) -> Result<()> {
        let config = self.options.load()?;
        let listeners = Node::bind(&config)?;
        if self.rebuild {
            set_aside(&config).await?;
        }
        let id = config.id;
        let node = Node::start(config, listeners).await?;
        tracing::info!(id, grpc = %node.grpc_address(), http = %node.http_address(), "node runs");
        tokio::select! {
            told = self.stop.told_to_stop() => told?,
            reason = node.failed() => {
                node.give_up().await;
                bail!("{reason}");
            }
        }
        tracing::info!(id, "node stops");
        node.stop().await;
        Ok(())
    }
}

/// Which node: what the file says, overruled by the environment and by flags.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// YAML; every key is documented in docs/operations.md
    #[arg(long, env = "QUORATE_NODE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Instead of the file's `cluster`
    #[arg(long, env = "QUORATE_NODE_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// Instead of the file's `id`
    #[arg(long, env = "QUORATE_NODE_ID", value_name = "NUMBER")]
    id: Option<u64>,
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
    /// Without TLS: let other machines connect all the same, unencrypted, anybody
    #[arg(long, env = "QUORATE_INSECURE")]
    insecure: bool,
    #[command(flatten)]
    set: SetOptions,
}

impl NodeOptions {
    /// # Errors
    /// Names the file and the place.
    pub fn load(&self) -> Result<NodeConfig> {
        let flags = [
            Override::flag("cluster", "cluster", self.cluster.clone()),
            Override::flag("id", "id", self.id),
            Override::flag("listen", "listen", self.listen.clone()),
            Override::flag("advertise", "advertise", self.advertise.clone()),
            Override::flag("http-listen", "http_listen", self.http_listen.clone()),
            Override::flag("insecure", "insecure", self.insecure.then_some(true)),
            Override::flag("data-dir", "data_dir", self.data_dir.as_deref().map(config::text)),
        ];
        let overrides: Vec<Override> =
            self.set.set.iter().cloned().chain(flags.into_iter().flatten()).collect();
        config::load(self.config.as_deref(), &overrides)
    }
}

/// Nothing is deleted: what turns out to be needed is still there.
async fn set_aside(config: &NodeConfig) -> Result<()> {
    let folder = &config.data_dir;
    let name = folder.file_name().with_context(|| format!("data_dir: {} has no name", folder.display()))?;
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = folder.with_file_name(format!("{}.damaged-{now}", name.to_string_lossy()));
    if quorate_node::set_data_folder_aside(config, aside.clone()).await? {
        tracing::warn!(folder = %folder.display(), aside = %aside.display(), "moved the data folder aside");
    } else {
        tracing::warn!(folder = %folder.display(), "there is no data folder to move aside");
    }
    Ok(())
}
