//! Why a change of the membership was not made, and what to do about it.

use thiserror::Error;

use crate::error::ReplicaError;
use crate::status::Peer;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembershipError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<Peer> },
    #[error(
        "another change of the membership is under way; look at `quorate nodes list` and try again when it is done"
    )]
    Busy,
    #[error("id {id} belongs to the node at {address}; choose another id, or remove that node first")]
    IdInUse { id: u64, address: String },
    #[error(
        "address {address} belongs to node {id}; give the new node another one, or remove that node first"
    )]
    AddressInUse { id: u64, address: String },
    #[error(
        "nobody answers at {address}; first start node {id} there, with a new data folder, and with the members and itself \
         as its `peers`"
    )]
    Silent { id: u64, address: String },
    #[error(
        "the node at {address} belongs to cluster {found}, not {wanted}; correct the address, or its `cluster`"
    )]
    OtherCluster { address: String, found: String, wanted: String },
    #[error("the node at {address} has id {found}, not {wanted}; correct the id")]
    OtherNode { address: String, found: u64, wanted: u64 },
    #[error(
        "node {id} at {address} is part of a cluster already, or was: its data folder is not new. Stop it, move the folder \
         away, start it with an empty one, and give this command again"
    )]
    HasCluster { id: u64, address: String },
    #[error(
        "node {id} runs a release that cannot read this change; update it first, or stop it if it is to go"
    )]
    OldRelease { id: u64 },
    #[error("there is no node {id}; the members are {members}")]
    Unknown { id: u64, members: String },
    #[error("node {id} is the last voter; a cluster needs one. Add its successor first, or use replace")]
    Last { id: u64 },
    #[error(
        "the voters would be {voters}, and a quorum takes {needed} of them; those that can be reached and are up to date \
         now: {live}. Bring others back first, or replace the dead ones instead"
    )]
    NoQuorumLeft { voters: String, needed: usize, live: String },
    /// Some of it was done; the rest can follow.
    #[error("{0}; nothing is lost, give the same command again to go on")]
    Unfinished(String),
    #[error(transparent)]
    Replica(ReplicaError),
}

impl From<ReplicaError> for MembershipError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::NotLeader { leader } => Self::NotLeader { leader },
            other => Self::Replica(other),
        }
    }
}

/// `1, 2, 3`, or `none`
pub(crate) fn list(ids: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}
