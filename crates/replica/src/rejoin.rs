//! The way back of a node that lost its folder: `standing.rs` says why it is safe.
//!
//! The node asks its peers until the leader answers. The leader removes it from the cluster by a change of membership,
//! which needs a quorum without it, and adds it again as a learner; the node takes a snapshot and the log; when it has
//! caught up and asks again, the leader makes it a voter.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{BasicNode, ChangeMembers, LogIdOptionExt as _};
use quorate_rpc::raft::RaftMessageKind as Kind;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::error::ReplicaError;
use crate::network::Connection;
use crate::replica::Replica;
use crate::standing::Standing;
use crate::status::{Peer, Role};
use crate::types::LogId;

/// Above the leader's own: it answers even if its change is stuck.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// So close to the end of the log, a learner does not hold up commits as a voter.
const NEARLY_THERE: u64 = 1_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RejoinRequest {
    address: String,
    incarnation: [u8; 16],
    /// Taken in already: wants to vote.
    caught_up: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RejoinAnswer {
    /// Removed by this log entry, and added again as a learner.
    TakenIn {
        term: u64,
        index: u64,
    },
    Voter,
    NotLeader,
    NotYet(String),
    /// Another node runs with this id.
    Duplicate {
        address: String,
    },
}

impl Replica {
    /// One attempt; true when this node is a full member.
    pub(crate) async fn come_back(&self, peers: &[Peer]) -> Result<bool, ReplicaError> {
        let Some(address) = peers.iter().find(|peer| peer.id == self.node_id()).map(|me| me.address.clone())
        else {
            return Ok(false);
        };
        let standing = self.inner.standing.get();
        let applied = self.read(|_, point| point.index);
        let caught_up = standing != Standing::New && standing.may_vote(applied);
        if standing != Standing::New && !caught_up {
            return Ok(false);
        }
        let request = RejoinRequest { address, incarnation: self.inner.incarnation, caught_up };
        for peer in peers.iter().filter(|peer| peer.id != self.node_id()) {
            let connection = Connection::new(self.inner.sender.clone(), peer.id, &peer.address);
            let Ok(answer) = connection.ask(Kind::Rejoin, &request, ASK_TIMEOUT).await else { continue };
            match answer {
                RejoinAnswer::TakenIn { term, index } => {
                    info!(term, index, "taken in again; rebuilding from the leader");
                    self.set_standing(Standing::Rebuilding { term, index })?;
                    return Ok(false);
                }
                RejoinAnswer::Voter => {
                    info!("rebuilt; this node is a full member again");
                    self.set_standing(Standing::Member)?;
                    return Ok(true);
                }
                RejoinAnswer::Duplicate { address } => {
                    return Err(ReplicaError::DuplicateNode { id: self.node_id(), address });
                }
                RejoinAnswer::NotLeader => {}
                RejoinAnswer::NotYet(why) => info!(%why, "the leader cannot take this node in yet"),
            }
        }
        Ok(false)
    }

    /// What the leader does for a node with a new folder.
    pub(crate) async fn take_in(&self, id: u64, request: RejoinRequest) -> RejoinAnswer {
        if self.status().borrow().role != Role::Leader {
            return RejoinAnswer::NotLeader;
        }
        let Ok(_changing) = self.inner.changing.try_lock() else {
            return RejoinAnswer::NotYet("another node is being taken in".to_owned());
        };
        let work = async {
            if request.caught_up {
                return self.promote(id).await;
            }
            if let Some(address) = self.other_with_id(id, &request.incarnation).await {
                return Ok(RejoinAnswer::Duplicate { address });
            }
            let removed = self.remove(id).await?;
            let node = BasicNode::new(&request.address);
            self.inner.raft.add_learner(id, node, false).await.map_err(|error| error.to_string())?;
            warn!(node = id, address = request.address, "took in a node whose folder is new");
            Ok(RejoinAnswer::TakenIn { term: removed.committed_leader_id().term, index: removed.index })
        };
        let done = tokio::time::timeout(CHANGE_TIMEOUT, work).await;
        let done = done.unwrap_or_else(|_| Err("no quorum agreed in time".to_owned()));
        done.unwrap_or_else(RejoinAnswer::NotYet)
    }

    /// The address where the node with this id runs, if that is another one.
    async fn other_with_id(&self, id: u64, incarnation: &[u8; 16]) -> Option<String> {
        let members = self.status().borrow().members.clone();
        let address = members.into_iter().find(|member| member.peer.id == id)?.peer.address;
        let answer = self.identify(&address).await?;
        let same_id = answer.node_id == id && *answer.cluster == *self.inner.sender.cluster;
        (same_id && answer.incarnation != incarnation.as_slice()).then_some(address)
    }

    /// The committed log entry since which the node is no member.
    async fn remove(&self, id: u64) -> Result<LogId, String> {
        let (effective, is_node, is_voter) = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let is_voter = membership.voter_ids().any(|voter| voter == id);
            (*metrics.membership_config.log_id(), membership.get_node(&id).is_some(), is_voter)
        };
        let ids = BTreeSet::from([id]);
        let change = match (is_node, is_voter) {
            (_, true) => ChangeMembers::RemoveVoters(ids),
            (true, false) => ChangeMembers::RemoveNodes(ids),
            (false, false) => {
                // Was it committed? After this, whatever this leader has found in its log is.
                self.linearize().await.map_err(|error| error.to_string())?;
                let applied = self.read(|_, point| point.index);
                return effective
                    .filter(|log_id| log_id.index <= applied)
                    .ok_or_else(|| "a change is under way".to_owned());
            }
        };
        let changed = self.inner.raft.change_membership(change, false).await;
        changed.map(|response| response.log_id).map_err(|error| error.to_string())
    }

    async fn promote(&self, id: u64) -> Result<RejoinAnswer, String> {
        self.linearize().await.map_err(|error| error.to_string())?;
        let (last, matched, is_voter) = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&id).copied());
            let is_voter = metrics.membership_config.membership().voter_ids().any(|voter| voter == id);
            (metrics.last_log_index, matched, is_voter)
        };
        if is_voter {
            return Ok(RejoinAnswer::Voter);
        }
        let matched = matched.flatten().next_index();
        if matched + NEARLY_THERE < last.unwrap_or(0) {
            return Err(format!("its log is at {matched}, the leader's at {}", last.unwrap_or(0)));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        let changed = self.inner.raft.change_membership(change, true).await;
        changed.map(|_| RejoinAnswer::Voter).map_err(|error| error.to_string())
    }
}
