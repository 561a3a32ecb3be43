//! How a new node finds its place: the first start of a cluster, a node that lost its folder, and two nodes with one id.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::BasicNode;
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::raft::{IdentifyRequest, IdentifyResponse};
use tracing::{info, warn};

use crate::error::ReplicaError;
use crate::replica::Replica;
use crate::status::Peer;

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Replica {
    /// Forms the cluster of these peers, this node among them, if nobody has yet. May be called on every node, at every
    /// start, at the same time: the node with the lowest id forms it, once all have answered that they are new too.
    /// Waits for the peers as long as it takes.
    ///
    /// # Errors
    /// The list is wrong, or somebody else runs under one of its ids.
    pub async fn bootstrap(&self, peers: &[Peer]) -> Result<(), ReplicaError> {
        self.check_peers(peers)?;
        let mut quiet = false;
        loop {
            let answers = self.ask(peers).await?;
            if self.is_initialized().await {
                return Ok(());
            }
            if let Some(known) = answers.values().find(|answer| answer.initialized) {
                if known.has_leader {
                    self.begin_rebuilding()?;
                }
                return Ok(());
            }
            let all_new = answers.len() == peers.len();
            if all_new && peers.iter().all(|peer| self.node_id() <= peer.id) {
                return self.form(peers).await;
            }
            if !all_new && !quiet {
                let missing: Vec<_> = peers
                    .iter()
                    .filter(|peer| !answers.contains_key(&peer.id))
                    .map(|peer| &peer.address)
                    .collect();
                info!(?missing, "waiting for the other nodes of the new cluster");
                quiet = true;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn form(&self, peers: &[Peer]) -> Result<(), ReplicaError> {
        let members: BTreeMap<u64, BasicNode> =
            peers.iter().map(|peer| (peer.id, BasicNode::new(&peer.address))).collect();
        info!(members = ?members.keys(), "forming the cluster");
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Another call of this node was faster.
            Err(_) if self.is_initialized().await => Ok(()),
            Err(error) => Err(ReplicaError::Stopped(error.to_string())),
        }
    }

    fn check_peers(&self, peers: &[Peer]) -> Result<(), ReplicaError> {
        let ids: BTreeSet<u64> = peers.iter().map(|peer| peer.id).collect();
        let addresses: BTreeSet<&str> = peers.iter().map(|peer| peer.address.as_str()).collect();
        if ids.len() != peers.len() || addresses.len() != peers.len() {
            return Err(ReplicaError::Peers("an id or an address stands there twice".to_owned()));
        }
        if !ids.contains(&self.node_id()) {
            return Err(ReplicaError::Peers(format!(
                "this node, {}, is not among them; add it",
                self.node_id()
            )));
        }
        Ok(())
    }

    /// Who answered, by id. Those that do not are left out; those that are somebody else are an error.
    async fn ask(&self, peers: &[Peer]) -> Result<BTreeMap<u64, IdentifyResponse>, ReplicaError> {
        let mut answers = BTreeMap::new();
        for peer in peers {
            if let Some(answer) = self.identify(&peer.address).await {
                self.check_answer(peer, &answer)?;
                answers.insert(peer.id, answer);
            }
        }
        Ok(answers)
    }

    /// Asks the node at `address` who it is; `None` if it does not answer in time.
    pub async fn identify(&self, address: &str) -> Option<IdentifyResponse> {
        let channel = quorate_rpc::endpoint(address).ok()?.connect_lazy();
        let request =
            IdentifyRequest { cluster: self.inner.sender.cluster.to_string(), from_node: self.node_id() };
        let mut client = RaftClient::new(channel);
        let answered = tokio::time::timeout(ASK_TIMEOUT, client.identify(request)).await;
        answered.ok()?.ok().map(tonic::Response::into_inner)
    }

    fn check_answer(&self, peer: &Peer, answer: &IdentifyResponse) -> Result<(), ReplicaError> {
        let wanted = self.inner.sender.cluster.to_string();
        if answer.cluster != wanted {
            return Err(ReplicaError::OtherCluster {
                address: peer.address.clone(),
                found: answer.cluster.clone(),
                wanted,
            });
        }
        let is_me = answer.incarnation == self.inner.incarnation.as_slice();
        if answer.node_id == self.node_id() && !is_me {
            return Err(ReplicaError::DuplicateNode { id: self.node_id(), address: peer.address.clone() });
        }
        if answer.node_id != peer.id {
            return Err(ReplicaError::OtherNode {
                address: peer.address.clone(),
                found: answer.node_id,
                wanted: peer.id,
            });
        }
        Ok(())
    }

    /// This node's folder is new, but its cluster is not: it may have voted before and forgotten it. Until it has caught up
    /// with a leader, it neither votes nor stands for election. Remembered on disk, in case it is restarted meanwhile.
    fn begin_rebuilding(&self) -> Result<(), ReplicaError> {
        warn!(
            "this folder is empty, but the cluster is not: rebuilding from the leader; no vote until caught up"
        );
        std::fs::File::create(self.inner.rebuilding_marker()).and_then(|file| file.sync_all()).map_err(
            |error| ReplicaError::Stopped(format!("cannot mark the folder as being rebuilt: {error}")),
        )?;
        self.set_rebuilding(true);
        Ok(())
    }
}
