//! What a replica needs to know before it starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_rpc::tls::Security;

use crate::clock::Clock;
use crate::error::OpenError;

/// Far below what depends on clocks: ids may be 10 s ahead of the ledger's time, a probe's lease is 3 s. Far above what NTP
/// leaves: some ten milliseconds.
const CLOCK_OFFSET_MAX_MS: u64 = 500;

/// Milliseconds. The defaults hold under flush stalls of several hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { heartbeat_ms: 200, election_min_ms: 800, election_max_ms: 1_600 }
    }
}

#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub cluster: String,
    pub node_id: u64,
    pub data_dir: PathBuf,
    pub timers: Timers,
    /// Log entries (batches) between snapshots; on some nodes up to a third more.
    pub snapshot_every_entries: u64,
    /// Log entries kept behind a snapshot for followers that are a little behind.
    pub keep_entries: u64,
    /// Where this node takes its time from.
    pub clock: Clock,
    /// A node whose clock is further from the others' does not lead if another one can.
    pub clock_offset_max_ms: u64,
    /// How the peers are spoken to.
    pub security: Security,
}

impl ReplicaConfig {
    pub fn new(cluster: impl Into<String>, node_id: u64, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            cluster: cluster.into(),
            node_id,
            data_dir: data_dir.into(),
            timers: Timers::default(),
            snapshot_every_entries: 20_000,
            keep_entries: 5_000,
            clock: Clock::system(),
            clock_offset_max_ms: CLOCK_OFFSET_MAX_MS,
            security: Security::Plain,
        }
    }

    /// How long after a quorum's acknowledgement a leader is sure that it still leads: well below the time after which
    /// a follower listens to another candidate, whatever the clocks' drift.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.timers.election_min_ms / 2)
    }

    /// So long a node whose clock is wrong, or not yet compared, leaves the leadership to others. Two tries of theirs.
    pub(crate) fn clock_patience_ms(&self) -> u64 {
        2 * self.timers.election_max_ms
    }

    /// Later on some nodes than on others, by up to a third: a snapshot takes time from the disk and the processors, and a
    /// quorum should be free of that.
    fn snapshot_distance(&self) -> u64 {
        let every = self.snapshot_every_entries;
        every.saturating_add(every / 6 * (self.node_id.saturating_sub(1) % 3))
    }

    pub(crate) fn for_raft(&self) -> Result<Arc<Config>, OpenError> {
        let raft = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.timers.heartbeat_ms,
            election_timeout_min: self.timers.election_min_ms,
            election_timeout_max: self.timers.election_max_ms,
            enable_pre_vote: Some(true),
            // A leader that was restarted has lost its lease and may have lost its committed id: it asks for votes.
            enable_leader_restore: Some(false),
            install_snapshot_timeout: 60_000,
            max_payload_entries: 64,
            // A snapshot may be as old as the distance between two.
            replication_lag_threshold: self.snapshot_distance().saturating_add(self.keep_entries),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_distance()),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: 256,
            backoff: "100ms 200ms 400ms ..1s".to_owned(),
            ..Config::default()
        };
        raft.validate().map(Arc::new).map_err(|error| OpenError::Raft(error.to_string()))
    }
}
