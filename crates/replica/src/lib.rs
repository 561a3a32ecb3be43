//! The replicated ledger: openraft over a frame log in sled, snapshots in files.
//!
//! The only place that names openraft, sled and bincode. Propose a batch and get its outcomes when a quorum has them on
//! disk; look at the ledger as this node has applied it; ask first for a linearizable look.

mod append_stream;
mod backup;
mod backup_file;
mod backup_stream;
mod bootstrap;
mod clock;
mod config;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod damage_tests;
mod disk;
mod durable_file;
mod end_mark;
mod error;
mod frame;
mod identity;
mod inspect;
mod inspect_log;
mod log_store;
#[cfg(test)]
mod log_tests;
mod membership;
mod network;
mod open;
mod rejoin;
mod replica;
mod report;
mod restore;
mod service;
mod size;
mod snapshot;
mod snapshot_stream;
mod standing;
mod state_machine;
mod status;
mod tail;
mod types;
mod unsynced;
mod writer;

pub use backup::{Backup, BackupError, BackupInfo};
pub use backup_file::{BackupFile, FolderBackup};
pub use backup_stream::BackupChunks;
pub use clock::{Clock, ClockReport, PeerOffset};
pub use config::{ReplicaConfig, Timers};
pub use error::{OpenError, ProposeError, ReplicaError};
pub use identity::set_aside;
pub use inspect::check_folder;
pub use membership::{Changed, MembershipError};
pub use replica::{Applied, ReadPoint, Replica, StorageStats};
pub use report::{Damage, FolderReport, LedgerReport, LogReport, SnapshotReport};
pub use restore::restore;
pub use size::{BATCH_MAX_BYTES, size_bound};
pub use status::{Member, Peer, Role, Status};
