//! Before a node is rebuilt from its peers: moves its data folder aside. Only while the others have a leader: a cluster
//! whose nodes all had empty folders would start anew.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_rpc::raft::IdentifyRequest;
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::tls::Security;

use crate::config::{NodeConfig, PeerConfig};
use crate::error::NodeError;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Renames the data folder to `to`. False: there was none.
///
/// # Errors
/// No other node knows a leader, the files of `tls` cannot be used, a running process uses the folder, or it cannot be renamed. Nothing was changed.
pub async fn set_data_folder_aside(config: &NodeConfig, to: PathBuf) -> Result<bool, NodeError> {
    let others: Vec<&PeerConfig> = config.peers.iter().filter(|peer| peer.id != config.id).collect();
    let security = config.security()?;
    let led = join_all(others.iter().map(|peer| knows_a_leader(config, &security, &peer.address))).await;
    if !led.contains(&true) {
        let others: Vec<&str> = others.iter().map(|peer| peer.address.as_str()).collect();
        return Err(NodeError::Rebuild(format!(
            "none of the other nodes of cluster {} knows a leader ({}); rebuild one node at a time, while the others run",
            config.cluster,
            if others.is_empty() { "there are none in `peers`".to_owned() } else { others.join(", ") }
        )));
    }
    let folder = config.data_dir.clone();
    let moved = tokio::task::spawn_blocking(move || quorate_replica::set_aside(&folder, to)).await;
    Ok(moved.map_err(|error| NodeError::Rebuild(error.to_string()))??)
}

async fn knows_a_leader(config: &NodeConfig, security: &Security, address: &str) -> bool {
    let asked = async {
        let channel = quorate_rpc::channel(address, security).ok()?;
        let request = IdentifyRequest { cluster: config.cluster.clone(), from_node: config.id };
        let answer = RaftClient::new(channel).identify(request).await.ok()?.into_inner();
        Some(answer.cluster == config.cluster && answer.node_id != config.id && answer.has_leader)
    };
    tokio::time::timeout(ASK_TIMEOUT, asked).await.ok().flatten().unwrap_or(false)
}
