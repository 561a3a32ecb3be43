//! What the node knows of its group, in words that do not name openraft.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{Fatal, ForwardToLeader};

use crate::types::{Raft, TypeConfig};

/// A node as its peers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: u64,
    /// `host:port` of its gRPC endpoint.
    pub address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub peer: Peer,
    pub voter: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub leader: Option<Peer>,
    pub term: u64,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub members: Vec<Member>,
    /// Why the replica has stopped, if it has: its storage failed.
    pub fatal: Option<String>,
}

pub(crate) fn status_of(raft: &Raft) -> Status {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let member = |(id, node): (&u64, &openraft::BasicNode)| Member {
        peer: Peer { id: *id, address: node.addr.clone() },
        voter: voters.contains(id),
    };
    let members: Vec<Member> = membership.nodes().map(member).collect();
    let leader =
        metrics.current_leader.and_then(|leader| members.iter().find(|member| member.peer.id == leader));
    Status {
        role: match metrics.state {
            _ if metrics.running_state.is_err() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        },
        leader: leader.map(|member| member.peer.clone()),
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |last| last.index),
        snapshot_index: metrics.snapshot.map_or(0, |last| last.index),
        members,
        fatal: metrics.running_state.as_ref().err().and_then(fatal_text),
    }
}

/// `None`: stopped on request.
fn fatal_text(fatal: &Fatal<TypeConfig>) -> Option<String> {
    match fatal {
        Fatal::Stopped => None,
        Fatal::Panicked => Some("raft panicked; see the log".to_owned()),
        Fatal::StorageError(error) => Some(format!(
            "storage failed: {error}; if the disk is full, free space and start this node again; \
             if the data folder is damaged, the next start says so and what to do"
        )),
    }
}

pub(crate) fn peer_of(forward: ForwardToLeader<TypeConfig>) -> Option<Peer> {
    Some(Peer { id: forward.leader_id?, address: forward.leader_node?.addr })
}
