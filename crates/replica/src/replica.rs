//! The replicated ledger of one group: propose batches, read what is applied, follow who leads.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::{Config, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use quorate_ledger::{Command, Ledger, Outcome, TimestampMs};
use quorate_rpc::raft::raft_server::RaftServer;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::{Disk, DiskStats};
use crate::error::{OpenError, ProposeError, ReplicaError};
use crate::identity::{self, Identity};
use crate::log_store::LogStore;
use crate::network::{MESSAGE_MAX_BYTES, Network, Sender};
use crate::service::Service;
use crate::size::{BATCH_MAX_BYTES, size_bound};
use crate::snapshot::SnapshotFolder;
use crate::state_machine::StateMachine;
use crate::status::{Peer, Role, Status, status_of};
use crate::types::{Batch, Raft, TypeConfig};

/// The only group so far. Its number stands in every message and key, so that others can follow.
const GROUP: u32 = 0;
const READ_TIMEOUT: Duration = Duration::from_secs(3);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const REBUILDING: &str = "rebuilding";

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
    /// Log entries (batches) between snapshots.
    pub snapshot_every_entries: u64,
    /// Log entries kept behind a snapshot for followers that are a little behind.
    pub keep_entries: u64,
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
        }
    }
}

/// Where something stands in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadPoint {
    pub term: u64,
    pub index: u64,
}

/// A batch that a quorum has on disk and this node has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub term: u64,
    pub index: u64,
    /// One for each command, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageStats {
    pub log_bytes: u64,
    pub snapshot_bytes: u64,
    pub flushes: u64,
    pub frames: u64,
    pub flush_micros_total: u64,
}

/// Cheap to clone; all clones are one replica.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub sender: Sender,
    pub incarnation: [u8; 16],
    pub raft: Raft,
    pub state_machine: StateMachine,
    config: ReplicaConfig,
    status: watch::Receiver<Status>,
    rebuilding: AtomicBool,
    disk_stats: Arc<DiskStats>,
    /// Taken by `shutdown`, which waits until the last user has let go of them.
    open: Mutex<Option<Open>>,
}

struct Open {
    disk: Arc<Disk>,
    /// Closing it lets another process open the folder.
    lock: File,
    follower: JoinHandle<()>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Inner {
    pub fn rebuilding_marker(&self) -> PathBuf {
        self.config.data_dir.join(REBUILDING)
    }
}

impl Replica {
    /// Opens the data folder, making it if need be, and starts Raft on it.
    ///
    /// # Errors
    /// The folder is another node's, in use, damaged or not writable. Nothing was changed in it.
    pub async fn open(config: ReplicaConfig) -> Result<Self, OpenError> {
        let folder = config.data_dir.clone();
        let io = |error| OpenError::io(&folder, error);
        std::fs::create_dir_all(&folder).map_err(io)?;
        let lock = identity::lock(&folder)?;
        let identity = Identity::open(&folder, &config.cluster, config.node_id)?;
        let log_folder = folder.join("log");
        let log = tokio::task::spawn_blocking(move || LogStore::open(&log_folder, GROUP));
        let log = log
            .await
            .map_err(|error| OpenError::damaged(&folder, format!("sled cannot open it: {error}")))?
            .map_err(io)?;
        let snapshots = SnapshotFolder::open(folder.join("snapshots")).map_err(io)?;
        let state_machine = StateMachine::open(snapshots).map_err(io)?;
        let sender =
            Sender { cluster: config.cluster.as_str().into(), group: GROUP, node_id: config.node_id };
        let disk = log.disk();
        let raft = Raft::new(
            config.node_id,
            raft_config(&config)?,
            Network { sender: sender.clone() },
            log,
            state_machine.clone(),
        );
        let raft = raft.await.map_err(|error| OpenError::Raft(error.to_string()))?;
        let rebuilding = folder.join(REBUILDING).exists();
        raft.runtime_config().elect(!rebuilding);
        let (status_sender, status) = watch::channel(status_of(&raft));
        let replica = Self {
            inner: Arc::new(Inner {
                sender,
                incarnation: identity.incarnation,
                state_machine,
                config,
                status,
                rebuilding: AtomicBool::new(rebuilding),
                disk_stats: disk.stats.clone(),
                open: Mutex::new(None),
                raft,
            }),
        };
        let follower = tokio::spawn(follow(replica.clone(), status_sender));
        *replica.inner.open.lock() = Some(Open { disk, lock, follower });
        Ok(replica)
    }

    pub fn node_id(&self) -> u64 {
        self.inner.sender.node_id
    }

    /// Applies the commands, in their order, as one log entry.
    ///
    /// # Errors
    /// See [`ProposeError`]: some leave the effect unknown.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Applied, ProposeError> {
        let bytes = commands.iter().map(size_bound).sum();
        if bytes > BATCH_MAX_BYTES {
            return Err(ProposeError::TooLarge { bytes, max: BATCH_MAX_BYTES });
        }
        let written = self.inner.raft.client_write(Batch { at: now(), commands }).await;
        match written {
            Ok(response) => {
                let (term, index) = (response.log_id.committed_leader_id().term, response.log_id.index);
                Ok(Applied { term, index, outcomes: response.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: peer_of(forward) })
            }
            Err(RaftError::APIError(_)) => {
                Err(ProposeError::LostLeadership { leader: self.inner.status.borrow().leader.clone() })
            }
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// A look at what this node has applied, which may be old. The ledger is locked meanwhile: be brief.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger, ReadPoint) -> T) -> T {
        let applied = self.inner.state_machine.applied().read();
        let point = applied.last.map_or_else(ReadPoint::default, |last| ReadPoint {
            term: last.committed_leader_id().term,
            index: last.index,
        });
        look(&applied.ledger, point)
    }

    /// Returns when everything that was committed before the call is applied here: a read after it is linearizable.
    ///
    /// # Errors
    /// This node does not lead, or cannot reach a quorum.
    pub async fn linearize(&self) -> Result<(), ReplicaError> {
        let confirm = async {
            let linearizer = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(
                |error| match error {
                    RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                        ReplicaError::NotLeader { leader: peer_of(forward) }
                    }
                    RaftError::APIError(_) => ReplicaError::NoQuorum,
                    RaftError::Fatal(fatal) => ReplicaError::Stopped(fatal.to_string()),
                },
            )?;
            linearizer
                .await_ready(&self.inner.raft)
                .await
                .map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))
        };
        tokio::time::timeout(READ_TIMEOUT, confirm).await.map_err(|_| ReplicaError::NoQuorum)??;
        Ok(())
    }

    /// Does this node surely still lead? A quorum has acknowledged it recently enough that no other can have been elected.
    pub fn has_lease(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.last_quorum_acked.as_ref().map(|acked| acked.into_inner().elapsed());
        let lease = Duration::from_millis(self.inner.config.timers.election_min_ms / 2);
        metrics.state == ServerState::Leader && acked.is_some_and(|elapsed| elapsed < lease)
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Index of the last entry applied here; changes with every entry.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.state_machine.progress()
    }

    pub async fn is_initialized(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Hands the leadership to `to`, or to the voter that is furthest along; returns when another leads.
    ///
    /// # Errors
    /// This node does not lead, there is nobody else, or nobody took over in time.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<u64, ReplicaError> {
        let status = self.status();
        let (role, leader) = {
            let status = status.borrow();
            (status.role, status.leader.clone())
        };
        if role != Role::Leader {
            return Err(ReplicaError::NotLeader { leader });
        }
        let to = to
            .or_else(|| self.best_successor())
            .ok_or_else(|| ReplicaError::Peers("there is no other voter".to_owned()))?;
        self.inner
            .raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))?;
        let mut status = status;
        let me = self.node_id();
        let taken = status.wait_for(|status| status.leader.as_ref().is_some_and(|leader| leader.id != me));
        match tokio::time::timeout(TRANSFER_TIMEOUT, taken).await {
            Ok(Ok(status)) => Ok(status.leader.as_ref().map_or(to, |leader| leader.id)),
            _ => Err(ReplicaError::NoQuorum),
        }
    }

    fn best_successor(&self) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<u64> =
            metrics.membership_config.membership().voter_ids().filter(|id| *id != self.node_id()).collect();
        let replication = metrics.replication.as_ref();
        let matched = |id: &u64| {
            replication
                .and_then(|progress| progress.get(id))
                .and_then(|log_id| log_id.as_ref().map(|id| id.index))
        };
        voters.into_iter().max_by_key(matched)
    }

    /// To be mounted by the node's gRPC server.
    pub fn raft_service(&self) -> RaftServer<impl quorate_rpc::raft::raft_server::Raft> {
        RaftServer::new(Service { replica: self.clone() })
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub fn storage_stats(&self) -> StorageStats {
        let disk = &self.inner.disk_stats;
        StorageStats {
            log_bytes: self.inner.open.lock().as_ref().map_or(0, |open| open.disk.size_on_disk()),
            snapshot_bytes: self.inner.state_machine.folder().size_on_disk(),
            flushes: disk.flushes.load(Ordering::Relaxed),
            frames: disk.frames.load(Ordering::Relaxed),
            flush_micros_total: disk.flush_micros_total.load(Ordering::Relaxed),
        }
    }

    /// Takes a snapshot now, whatever the log's length.
    ///
    /// # Errors
    /// The replica has stopped.
    pub async fn trigger_snapshot(&self) -> Result<(), ReplicaError> {
        self.inner.raft.trigger().snapshot().await.map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))
    }

    /// Stops Raft and closes the folder; when it returns, the folder can be opened again.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        let Some(Open { disk, lock, follower }) = self.inner.open.lock().take() else { return };
        follower.abort();
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Arc::strong_count(&disk) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Joins the writer thread, which has written everything by then.
        let closed = tokio::task::spawn_blocking(move || drop((disk, lock))).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the log did not close cleanly");
        }
    }

    pub(crate) fn is_rebuilding(&self) -> bool {
        self.inner.rebuilding.load(Ordering::Relaxed)
    }

    pub(crate) fn set_rebuilding(&self, rebuilding: bool) {
        self.inner.rebuilding.store(rebuilding, Ordering::Relaxed);
        self.inner.raft.runtime_config().elect(!rebuilding);
    }

    /// Ends the rebuilding once everything is applied that the leader says the cluster has committed.
    fn end_rebuilding_if_caught_up(&self) {
        let caught_up = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.current_leader.is_some()
                && metrics.cluster_committed.is_some()
                && metrics.last_applied >= metrics.cluster_committed
        };
        if caught_up && std::fs::remove_file(self.inner.rebuilding_marker()).is_ok() {
            tracing::info!("rebuilt from the leader; this node votes again");
            self.set_rebuilding(false);
        }
    }
}

/// Turns openraft's metrics into a status, as they change.
async fn follow(replica: Replica, status: watch::Sender<Status>) {
    let mut metrics = replica.inner.raft.metrics();
    loop {
        let next = status_of(&replica.inner.raft);
        status.send_if_modified(|known| {
            let changed = *known != next;
            *known = next;
            changed
        });
        if replica.is_rebuilding() {
            replica.end_rebuilding_if_caught_up();
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn peer_of(forward: ForwardToLeader<TypeConfig>) -> Option<Peer> {
    Some(Peer { id: forward.leader_id?, address: forward.leader_node?.addr })
}

fn raft_config(config: &ReplicaConfig) -> Result<Arc<Config>, OpenError> {
    let raft = Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: config.timers.heartbeat_ms,
        election_timeout_min: config.timers.election_min_ms,
        election_timeout_max: config.timers.election_max_ms,
        enable_pre_vote: Some(true),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 64,
        replication_lag_threshold: config.keep_entries,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: 256,
        ..Config::default()
    };
    raft.validate().map(Arc::new).map_err(|error| OpenError::Raft(error.to_string()))
}

/// The leader's clock, with which it stamps batches.
fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
