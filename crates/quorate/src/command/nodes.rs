//! `quorate nodes`: who belongs to the cluster, and changing that while it runs.

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use quorate_rpc::ClientError;
use quorate_rpc::admin::{AddNodeRequest, ListNodesRequest, RemoveNodeRequest, ReplaceNodeRequest};
use tonic::Code;

use crate::command::transfer_leader::TransferLeader;
use crate::command::{ClusterOptions, tables};
use crate::output::{Format, OutputOptions};

/// List, add, remove and replace the nodes of a running cluster
///
/// A new node is started first, with its own id, a new data folder, and the members and itself
/// as its `peers`. It waits until it is added, and says so. A change that could cost the cluster
/// its quorum is refused. Each may be given again, and then goes on where it was.
///
/// Examples:
///   quorate nodes list
///   quorate nodes add --id 4 --address 10.0.0.4:7701
///   quorate nodes remove 4
///   quorate nodes replace 3 --id 4 --address 10.0.0.4:7701
///   quorate nodes transfer-leader --to 2
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Nodes {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The members, as `quorate get nodes`
    List {
        #[command(flatten)]
        cluster: ClusterOptions,
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Make a node that waits for it a member
    Add {
        #[command(flatten)]
        new: New,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// Remove a member, dead or alive; a live one ends its process
    Remove {
        /// The node that is to go
        #[arg(value_name = "ID")]
        id: u64,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// Put a node that waits for it in the place of a member, dead or alive
    Replace {
        /// The node that is to go
        #[arg(value_name = "OLD")]
        old: u64,
        #[command(flatten)]
        new: New,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    TransferLeader(TransferLeader),
}

#[derive(Debug, Args)]
struct New {
    /// The new node's id, which no member has
    #[arg(long, value_name = "ID")]
    id: u64,
    /// Where it runs
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
}

impl Nodes {
    /// # Errors
    /// The cluster refuses it or cannot be reached.
    pub async fn run(self) -> Result<()> {
        match self.what {
            What::List { cluster, output } => {
                let answer = cluster.admin()?.list_nodes(ListNodesRequest {}).await?;
                output.print(&answer, || tables::nodes(&answer.nodes, output.output == Format::Wide))
            }
            What::Add { new: New { id, address }, cluster } => {
                let request = AddNodeRequest { id, address };
                let done = cluster.admin()?.add_node(request).await.map_err(half_done)?;
                say(&format!("node {id}"), "added", done.changed, &done.voters);
                Ok(())
            }
            What::Remove { id, cluster } => {
                let request = RemoveNodeRequest { id };
                let done = cluster.admin()?.remove_node(request).await.map_err(half_done)?;
                say(&format!("node {id}"), "removed", done.changed, &done.voters);
                Ok(())
            }
            What::Replace { old, new: New { id, address }, cluster } => {
                let request = ReplaceNodeRequest { old_id: old, new_id: id, address };
                let done = cluster.admin()?.replace_node(request).await.map_err(half_done)?;
                say(&format!("node {old}"), &format!("replaced by node {id}"), done.changed, &done.voters);
                Ok(())
            }
            What::TransferLeader(command) => command.run().await,
        }
    }
}

fn say(node: &str, what: &str, changed: bool, voters: &[u64]) {
    let was = if changed { "" } else { "was " };
    let already = if changed { "" } else { " already" };
    let voters: Vec<String> = voters.iter().map(u64::to_string).collect();
    println!("{node} {was}{what}{already}; voters: {}", voters.join(", "));
}

/// Not a refusal: something may have been changed, so the exit code is another.
fn half_done(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Rejected { code: Code::Aborted, message } => anyhow!("not finished: {message}"),
        ClientError::Rejected { code: Code::Unimplemented, .. } => {
            anyhow!(
                "the node that was asked runs a release that cannot change the membership; update all nodes first"
            )
        }
        other => other.into(),
    }
}
