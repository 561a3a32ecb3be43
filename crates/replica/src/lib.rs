//! The replicated ledger: openraft over a frame log in sled, snapshots in files.
//!
//! The only place that names openraft, sled and bincode. Propose a batch and get its outcomes when a quorum has them on
//! disk; look at the ledger as this node has applied it; ask first for a linearizable look.

mod bootstrap;
mod clock;
mod config;
#[cfg(test)]
mod conformance_tests;
mod disk;
mod durable_file;
mod error;
mod frame;
mod identity;
mod log_store;
#[cfg(test)]
mod log_tests;
mod membership;
mod network;
mod open;
mod rejoin;
mod replica;
mod service;
mod size;
mod snapshot;
mod snapshot_stream;
mod standing;
mod state_machine;
mod status;
mod tail;
mod types;
mod writer;

pub use clock::{Clock, ClockReport, PeerOffset};
pub use config::{ReplicaConfig, Timers};
pub use error::{OpenError, ProposeError, ReplicaError};
pub use identity::set_aside;
pub use membership::{Changed, MembershipError};
pub use replica::{Applied, ReadPoint, Replica, StorageStats};
pub use size::{BATCH_MAX_BYTES, size_bound};
pub use status::{Member, Peer, Role, Status};
