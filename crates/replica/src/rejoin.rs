//! The way back of a node that lost its folder: `standing.rs` says why it is safe.
//!
//! The node asks its peers until the leader answers. The leader removes it from the cluster by a change of membership,
//! which needs a quorum without it, and adds it again as a learner; the node takes a snapshot and the log; when it has
//! caught up and asks again, the leader makes it a voter.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers};
use quorate_ledger::AuditAction;
use quorate_rpc::raft::RaftMessageKind as Kind;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::error::ReplicaError;
use crate::membership::NEARLY_THERE;
use crate::network::Connection;
use crate::replica::Replica;
use crate::standing::Standing;
use crate::status::{Peer, Role};
use crate::types::LogId;

/// Above the leader's own: it answers even if its change is stuck.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(7);

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
    /// One attempt, at whichever of these leads; true when this node is a full member. What it waits for is logged when it
    /// becomes another than `told`.
    pub(crate) async fn come_back(
        &self,
        address: &str,
        known: &[Peer],
        told: &mut String,
    ) -> Result<bool, ReplicaError> {
        let standing = self.inner.standing.get();
        let applied = self.read(|_, point| point.index);
        let caught_up = standing != Standing::New && standing.may_vote(applied);
        if standing != Standing::New && !caught_up {
            return Ok(false);
        }
        // The leader cannot be asked if that is this node itself, by the votes of the others.
        let is_voter = self.committed_membership().is_some() && self.view().voters.contains(&self.node_id());
        if caught_up && is_voter {
            return self.is_back();
        }
        let address = address.to_owned();
        let request = RejoinRequest { address, incarnation: self.inner.incarnation, caught_up };
        for peer in known {
            let connection = Connection::new(self.inner.sender.clone(), peer.id, &peer.address);
            let Ok(answer) = connection.ask(Kind::Rejoin, &request, ASK_TIMEOUT).await else { continue };
            match answer {
                RejoinAnswer::TakenIn { term, index } => {
                    info!(term, index, "taken in again; rebuilding from the leader");
                    self.set_standing(Standing::Rebuilding { term, index })?;
                    return Ok(false);
                }
                RejoinAnswer::Voter => return self.is_back(),
                RejoinAnswer::Duplicate { address } => {
                    return Err(ReplicaError::DuplicateNode { id: self.node_id(), address });
                }
                RejoinAnswer::NotLeader => {}
                RejoinAnswer::NotYet(why) if why == *told => {}
                RejoinAnswer::NotYet(why) => {
                    warn!("the leader cannot take this node in yet: {why}");
                    *told = why;
                }
            }
        }
        Ok(false)
    }

    fn is_back(&self) -> Result<bool, ReplicaError> {
        info!("rebuilt; this node is a full member");
        self.set_standing(Standing::Member)?;
        Ok(true)
    }

    /// What the leader does for a node with a new folder.
    pub(crate) async fn take_in(&self, id: u64, request: RejoinRequest) -> RejoinAnswer {
        if self.status().borrow().role != Role::Leader {
            return RejoinAnswer::NotLeader;
        }
        let Ok(_changing) = self.inner.changing.try_lock() else {
            return RejoinAnswer::NotYet("a change of the membership is under way".to_owned());
        };
        if self.view().joint {
            return RejoinAnswer::NotYet("a change of the membership is half done".to_owned());
        }
        let work = async {
            if request.caught_up {
                return self.promote(id).await;
            }
            if let Some(address) = self.other_with_id(id, &request.incarnation).await {
                return Ok(RejoinAnswer::Duplicate { address });
            }
            self.may_come_back(id, &request.address).await?;
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

    /// Only a member may, or one that a leader had begun to take in again. It is noted in the audit log, unless a member
    /// runs an older release, which could not read that.
    async fn may_come_back(&self, id: u64, address: &str) -> Result<(), String> {
        self.linearize().await.map_err(|error| error.to_string())?;
        let survey = self.survey().await;
        let view = &survey.view;
        if view.members.contains_key(&id) {
            if view.voters.contains(&id) {
                view.quorum_of(&view.voters_without(id)).map_err(|error| error.to_string())?;
            } else if self.joins_by_command(id) {
                return Err(not_finished(id));
            }
        } else if !self.is_coming_back(id) {
            return Err(format!(
                "node {id} is no member of cluster {}. An operator has to add it: `quorate nodes add --id {id} --address \
                 {address}`, or, in the place of node N, `quorate nodes replace N --id {id} --address {address}`",
                self.inner.sender.cluster
            ));
        }
        if survey.all_can_read().is_ok() {
            let recorded =
                self.record(AuditAction::RejoinNode, id, address.to_owned(), "the node itself").await;
            recorded.map_err(|error| error.to_string())?;
        }
        Ok(())
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
        let view = self.view();
        let ids = BTreeSet::from([id]);
        let change = match (view.members.contains_key(&id), view.voters.contains(&id)) {
            (_, true) => ChangeMembers::RemoveVoters(ids),
            (true, false) => ChangeMembers::RemoveNodes(ids),
            // Was it committed? Whatever this leader had found in its log is: its reads are linearizable.
            (false, false) => {
                return self.committed_membership().ok_or_else(|| "a change is under way".to_owned());
            }
        };
        self.change_members(change).await.map(|made| made.log_id).map_err(|error| error.to_string())
    }

    async fn promote(&self, id: u64) -> Result<RejoinAnswer, String> {
        self.linearize().await.map_err(|error| error.to_string())?;
        let view = self.view();
        if !view.members.contains_key(&id) {
            return Err(format!("node {id} is no member"));
        }
        let Some((matched, last)) = self.progress_of(id) else { return Ok(RejoinAnswer::NotLeader) };
        if view.voters.contains(&id) {
            return Ok(RejoinAnswer::Voter);
        }
        if self.joins_by_command(id) {
            return Err(not_finished(id));
        }
        if matched + NEARLY_THERE < last {
            return Err(format!("its log is at {matched}, the leader's at {last}"));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change_members(change).await.map(|_| RejoinAnswer::Voter).map_err(|error| error.to_string())
    }
}

fn not_finished(id: u64) -> String {
    format!(
        "node {id} is a learner, and the command that was to make it a voter was not finished; give it again, or `quorate \
         nodes remove {id}`"
    )
}
