//! `quorate restore`: a new data folder for one node of a new cluster, from a backup.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use quorate_node::offline::restore;
use tokio::task::spawn_blocking;

use crate::command::backup::summary;
use crate::command::node::NodeOptions;

/// Make a node's data folder from a backup
///
/// To be run once for each node of the new cluster, with the same file and the node's own config:
/// its name, id, peers and data folder come from there. Start the nodes after it; they form one
/// cluster and go on where the backup ends. The name of the cluster must end in the file's
/// checksum, as `quorate backup` has printed it: so no node of the old cluster can be taken for a
/// member of the new one. Only the data folder is written, and only if it is new or empty.
///
/// Example:
///   quorate restore prod.quorate --config node-1.yaml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeOptions,
}

impl Restore {
    pub async fn run(self) -> Result<()> {
        let config = self.node.load()?;
        let (id, folder, cluster) =
            (config.id, config.data_dir.display().to_string(), config.cluster.clone());
        let backup = spawn_blocking(move || restore(&self.file, &config)).await??;
        println!("{folder} is node {id} of cluster {cluster}, restored from: {}", summary(&backup));
        Ok(())
    }
}
