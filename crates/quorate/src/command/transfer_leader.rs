//! `quorate transfer-leader`: before a node is taken down, for example.

use anyhow::{Context as _, Result};
use clap::Args;
use quorate_rpc::admin::TransferLeadershipRequest;

use crate::command::ClusterOptions;

/// Hand the leadership to another node
///
/// Example: `quorate transfer-leader --to 2`
#[derive(Debug, Args)]
pub struct TransferLeader {
    /// The node that is to lead; default: the one that is furthest along
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    to: u64,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl TransferLeader {
    pub async fn run(self) -> Result<()> {
        let request = TransferLeadershipRequest { to_node: self.to };
        let transferred = self
            .cluster
            .admin()?
            .transfer_leadership(request)
            .await
            .context("the leadership was not handed over")?;
        println!("node {} leads", transferred.leader);
        Ok(())
    }
}
