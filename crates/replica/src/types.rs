//! What Raft replicates: batches of commands, stamped by the leader.

use std::io;

use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use quorate_ledger::{Command, Outcome, TimestampMs};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotFile;

/// One log entry: commands that are applied at the same time, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub at: TimestampMs,
    pub commands: Vec<Command>,
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} commands at {}", self.commands.len(), self.at.0)
    }
}

/// One outcome for each command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Outcome>);

openraft::declare_raft_types!(
    /// The Raft of one group.
    pub TypeConfig:
        D = Batch,
        R = Outcomes,
        Node = openraft::BasicNode,
);

pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;

/// bincode of what openraft and the ledger define.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "bytes behind the end"))
    }
}
