//! What can go wrong with a replica.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::status::Peer;

/// Why a data folder cannot be opened. Nothing was changed in it.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("data folder {folder} belongs to cluster {found}, not {wanted}; give this node another folder", folder = .folder.display())]
    OtherCluster { folder: PathBuf, found: String, wanted: String },
    #[error("data folder {folder} belongs to node {found}, not {wanted}; give each node its own folder", folder = .folder.display())]
    OtherNode { folder: PathBuf, found: u64, wanted: u64 },
    #[error("data folder {folder} is in use by another process; stop it first", folder = .folder.display())]
    InUse { folder: PathBuf },
    #[error(
        "data folder {folder} is damaged: {what}. Rebuild this node from its peers: start it once with --rebuild \
         (`quorate node --config FILE --rebuild`), which moves the folder aside; keep it until the node is back",
        folder = .folder.display()
    )]
    Damaged { folder: PathBuf, what: String },
    #[error(
        "data folder {folder} is of no use any more: node {id} was removed from the cluster {cluster}. To take it in \
         again, move the folder away, start it with an empty one, and give `quorate nodes add --id {id} --address \
         HOST:PORT`",
        folder = .folder.display()
    )]
    Removed { folder: PathBuf, id: u64, cluster: String },
    #[error("cannot move data folder {folder} aside to {to}: {error}; is it a mount point? Empty it by hand then",
        folder = .folder.display(), to = .to.display())]
    Aside { folder: PathBuf, to: PathBuf, error: std::io::Error },
    #[error(
        "data folder {folder} has format {found}, this release knows {known}; use the release that wrote it",
        folder = .folder.display()
    )]
    Format { folder: PathBuf, found: u32, known: u32 },
    #[error("data folder {folder}: {error}", folder = .folder.display())]
    Io { folder: PathBuf, error: std::io::Error },
    #[error("raft cannot start: {0}")]
    Raft(String),
}

impl OpenError {
    pub(crate) fn io(folder: &Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => {
                Self::Damaged { folder: folder.to_owned(), what: error.to_string() }
            }
            _ => Self::Io { folder: folder.to_owned(), error },
        }
    }

    pub(crate) fn damaged(folder: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { folder: folder.to_owned(), what: what.into() }
    }
}

/// Why a batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<Peer> },
    /// Another leader took over while it was in flight: the effect is unknown.
    #[error("leadership was lost while the batch was in flight")]
    LostLeadership { leader: Option<Peer> },
    #[error("batch encodes to {bytes} bytes, more than {max}; split it")]
    TooLarge { bytes: usize, max: usize },
    /// The effect is unknown.
    #[error("replica has stopped: {0}")]
    Stopped(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplicaError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<Peer> },
    #[error("peer list: {0}")]
    Peers(String),
    #[error("two nodes run with id {id}: this one and the one at {address}; give each its own id")]
    DuplicateNode { id: u64, address: String },
    #[error("peer {address} belongs to cluster {found}, not {wanted}")]
    OtherCluster { address: String, found: String, wanted: String },
    #[error("peer {address} is node {found}, not {wanted}; correct the peer list")]
    OtherNode { address: String, found: u64, wanted: u64 },
    #[error("node {id} cannot lead: its clock is {seconds} s {side} the cluster's; see to its NTP, or name another node",
        seconds = .ahead_ms.unsigned_abs() as f64 / 1e3, side = if *.ahead_ms < 0 { "behind" } else { "ahead of" })]
    WrongClock { id: u64, ahead_ms: i64 },
    #[error(
        "node {id} was removed from the cluster {cluster}: it is no member any more, and its data folder is of no use. \
         To take it in again, start it with an empty folder and give `quorate nodes add --id {id} --address HOST:PORT`"
    )]
    Removed { id: u64, cluster: String },
    #[error("no leader was confirmed by a quorum in time")]
    NoQuorum,
    #[error("replica has stopped: {0}")]
    Stopped(String),
}
