//! What Raft replicates: batches of commands, stamped by the leader.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use parking_lot::Mutex;
use quorate_ledger::{Command, Outcome, TimestampMs};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotFile;

/// One log entry: commands that are applied at the same time, in their order. Encoded once, where it is proposed; the
/// log, the network and the peers' logs copy the bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Batch {
    encoded: Bytes,
    /// Saves the proposing node the decoding. Taken when it is applied: the entry itself stays in memory for a while after
    /// that, and this is several times as large. A lock, because the entry's copies share it; nobody ever waits for it.
    #[serde(skip)]
    decoded: Option<Arc<Mutex<Option<Commands>>>>,
}

/// What a batch says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Commands {
    pub at: TimestampMs,
    pub commands: Vec<Command>,
}

impl Batch {
    pub(crate) fn new(at: TimestampMs, commands: Vec<Command>) -> io::Result<Self> {
        let commands = Commands { at, commands };
        Ok(Self { encoded: encode(&commands)?.into(), decoded: Some(Arc::new(Mutex::new(Some(commands)))) })
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// What it says, to be applied; asked again, it is decoded.
    ///
    /// # Errors
    /// `InvalidData`: the bytes are none of this version's.
    pub(crate) fn commands(&self) -> io::Result<Commands> {
        match self.decoded.as_ref().and_then(|decoded| decoded.lock().take()) {
            Some(commands) => Ok(commands),
            None => decode(&self.encoded),
        }
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch of {} bytes", self.encoded.len())
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

/// Of an entry that node 1 proposed in term 1.
#[cfg(test)]
pub(crate) fn log_id(index: u64) -> LogId {
    use openraft::vote::RaftLeaderId as _;

    LogId::new(openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(1, 1), index)
}

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
