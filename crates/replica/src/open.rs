//! Opening a data folder, starting Raft on it, and closing it again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::{Clocks, compare};
use crate::config::ReplicaConfig;
use crate::disk::{Disk, DiskStats};
use crate::error::OpenError;
use crate::identity::{self, Identity};
use crate::log_store::LogStore;
use crate::membership::finish_what_is_left;
use crate::network::{Network, Sender};
use crate::replica::Replica;
use crate::snapshot::SnapshotFolder;
use crate::standing::{Standing, StandingFile};
use crate::state_machine::StateMachine;
use crate::status::{Role, Status, status_of};
use crate::types::Raft;

/// The only group so far. Its number stands in every message and key, so that others can follow.
pub(crate) const GROUP: u32 = 0;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_AGAIN: Duration = Duration::from_millis(2);
/// From one change of the status to the look for the next.
const CHANGES_WITHIN: Duration = Duration::from_millis(20);

pub(crate) struct Inner {
    pub sender: Sender,
    pub incarnation: [u8; 16],
    pub raft: Raft,
    pub state_machine: StateMachine,
    pub config: ReplicaConfig,
    pub clocks: Clocks,
    pub standing: StandingFile,
    pub status: watch::Receiver<Status>,
    pub disk_stats: Arc<DiskStats>,
    pub votes_from: Instant,
    /// The term in which this node hands the leadership over.
    pub transfer_term: AtomicU64,
    /// One change of membership at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// When a leader was heard last, or this node started.
    pub heard: Mutex<Instant>,
    /// True from `shutdown` on: streams from peers end, so that a server can end.
    pub stopping: watch::Sender<bool>,
    /// Taken by `shutdown`, which waits until the last user has let go of them.
    open: Mutex<Option<Open>>,
}

struct Open {
    disk: Arc<Disk>,
    /// Closing it lets another process open the folder.
    lock: File,
    tasks: [JoinHandle<()>; 3],
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Inner {
    pub fn log_bytes(&self) -> u64 {
        self.open.lock().as_ref().map_or(0, |open| open.disk.size_on_disk())
    }

    /// Elections only with the right to vote, and with a clock that is right, if there is another way to get a leader.
    pub fn refresh_elections(&self) {
        let applied = self.state_machine.applied().read().last.map_or(0, |last| last.index);
        self.raft.runtime_config().elect(self.standing.get().may_vote(applied) && self.clocks.may_stand());
    }
}

/// What was read from the folder.
pub(crate) struct Folder {
    lock: File,
    identity: Identity,
    pub log: LogStore,
    pub state_machine: StateMachine,
    pub standing: StandingFile,
}

impl Replica {
    /// Opens the data folder, making it if need be, and starts Raft on it. It takes part in a cluster from
    /// [`Replica::bootstrap`] on.
    ///
    /// # Errors
    /// The folder is another node's, in use, damaged or not writable. Nothing in it was given up.
    pub async fn open(config: ReplicaConfig) -> Result<Self, OpenError> {
        let raft_config = config.for_raft()?;
        let folder = open_folder(&config).await?;
        let sender = Sender {
            cluster: config.cluster.as_str().into(),
            group: GROUP,
            node_id: config.node_id,
            security: config.security.clone(),
        };
        let pristine = folder.log.is_pristine();
        let disk = folder.log.disk().clone();
        let state_machine = folder.state_machine.clone();
        let network = Network { sender: sender.clone() };
        let raft = Raft::new(config.node_id, raft_config, network, folder.log, state_machine.clone()).await;
        let raft = raft.map_err(|error| OpenError::damaged(&config.data_dir, error.to_string()))?;
        let (status_sender, status) = watch::channel(status_of(&raft));
        let clocks =
            Clocks::new(config.clock.clone(), config.clock_offset_max_ms, config.clock_patience_ms());
        let lease = if pristine { Duration::ZERO } else { config.lease() };
        let inner = Arc::new(Inner {
            sender,
            incarnation: folder.identity.incarnation,
            raft,
            state_machine,
            config,
            clocks,
            standing: folder.standing,
            status,
            disk_stats: disk.stats(),
            votes_from: Instant::now() + lease,
            transfer_term: AtomicU64::new(0),
            changing: tokio::sync::Mutex::new(()),
            heard: Mutex::new(Instant::now()),
            stopping: watch::Sender::new(false),
            open: Mutex::new(None),
        });
        inner.refresh_elections();
        let follower = tokio::spawn(follow(Arc::downgrade(&inner), status_sender));
        let comparing = tokio::spawn(compare(Arc::downgrade(&inner)));
        let finisher = tokio::spawn(finish_what_is_left(Arc::downgrade(&inner)));
        *inner.open.lock() = Some(Open { disk, lock: folder.lock, tasks: [follower, comparing, finisher] });
        Ok(Self { inner })
    }

    /// Ends the streams of its peers. For a node that is about to stop: they would hold up the end of its server.
    pub fn leave_streams(&self) {
        self.inner.stopping.send_replace(true);
    }

    /// Stops Raft and closes the folder; when it returns, the folder can be opened again.
    pub async fn shutdown(&self) {
        self.leave_streams();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        let Some(Open { disk, lock, tasks }) = self.inner.open.lock().take() else { return };
        tasks.iter().for_each(JoinHandle::abort);
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Arc::strong_count(&disk) > 1 && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_AGAIN).await;
        }
        // Joins the writer thread, which has written everything by then.
        let closed = tokio::task::spawn_blocking(move || {
            drop(disk);
            drop(lock);
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "the log did not close cleanly");
        }
    }
}

pub(crate) async fn open_folder(config: &ReplicaConfig) -> Result<Folder, OpenError> {
    let (config, folder) = (config.clone(), config.data_dir.clone());
    let opened = tokio::task::spawn_blocking(move || read_folder(&config)).await;
    // sled may panic on what it does not expect to find.
    opened.map_err(|error| OpenError::damaged(&folder, format!("it cannot be read: {error}")))?
}

fn read_folder(config: &ReplicaConfig) -> Result<Folder, OpenError> {
    let folder = config.data_dir.as_path();
    let io = |error: io::Error| OpenError::io(folder, error);
    std::fs::create_dir_all(folder).map_err(io)?;
    let lock = identity::lock(folder)?;
    let identity = Identity::read(folder, &config.cluster, config.node_id)?;
    let log_folder = folder.join("log");
    if identity.is_some() && !log_folder.join("db").exists() {
        return Err(OpenError::damaged(folder, "its log is missing"));
    }
    let log = LogStore::open(&log_folder, GROUP).map_err(io)?;
    let snapshots = SnapshotFolder::open(folder.join("snapshots")).map_err(io)?;
    let state_machine = StateMachine::open(snapshots).map_err(io)?;
    let standing = StandingFile::open(folder).map_err(io)?;
    if standing.get() == Standing::Removed {
        let (folder, cluster) = (folder.to_owned(), config.cluster.clone());
        return Err(OpenError::Removed { folder, id: config.node_id, cluster });
    }
    check_parts(folder, identity.is_some(), &log, &state_machine, &standing)?;
    let identity = match identity {
        Some(identity) => identity,
        None => Identity::create(folder, &config.cluster, config.node_id)?,
    };
    Ok(Folder { lock, identity, log, state_machine, standing })
}

/// Do the parts of the folder belong together? Somebody may have removed some.
fn check_parts(
    folder: &Path,
    has_identity: bool,
    log: &LogStore,
    state_machine: &StateMachine,
    standing: &StandingFile,
) -> Result<(), OpenError> {
    let snapshot = state_machine.applied().read().last;
    let used = !log.is_pristine() || snapshot.is_some();
    // A member without its log has forgotten its votes. The identity is there before the first standing is written.
    if (used || standing.get() != Standing::New) && !has_identity {
        return Err(OpenError::damaged(folder, "the file \"identity\" is missing"));
    }
    if used && standing.get() == Standing::New {
        return Err(OpenError::damaged(folder, "the file \"standing\" is missing"));
    }
    if let Some(index) = log.missing_start() {
        return Err(OpenError::damaged(folder, format!("log entry {index} is missing")));
    }
    if let Some(purged) = log.purged().filter(|purged| Some(*purged) > snapshot) {
        let (first, last) = (purged.index + 1, snapshot.map_or(0, |snapshot| snapshot.index));
        let what = format!("the log starts at index {first}, but the newest snapshot ends at {last}");
        return Err(OpenError::damaged(folder, what));
    }
    Ok(())
}

/// Turns openraft's metrics into a status: at once when the role, the leader or the members change, and now and then for
/// the indices, which change several times with every entry. To follow each would wake this task, and all that wait for
/// the status, more often than the entry itself wakes anybody.
async fn follow(inner: Weak<Inner>, status: watch::Sender<Status>) {
    let Some((mut server, tick)) = inner
        .upgrade()
        .map(|inner| (inner.raft.server_metrics(), Duration::from_millis(inner.config.timers.heartbeat_ms)))
    else {
        return;
    };
    let (mut woken, mut over) = (false, false);
    loop {
        let Some(replica) = inner.upgrade().map(|inner| Replica { inner }) else { return };
        let mut next = status_of(&replica.inner.raft);
        if replica.has_lost_quorum() {
            (next.role, next.leader) = (Role::Candidate, None);
        }
        if over && next.fatal.is_none() && !*replica.inner.stopping.borrow() {
            // A panic leaves no word: this node would go on as a leader that does nothing.
            (next.role, next.leader) = (Role::Stopped, None);
            next.fatal = Some("raft ended by itself; see the log".to_owned());
        }
        let changed = status.send_if_modified(|known| {
            let changed = *known != next;
            *known = next;
            changed
        });
        replica.inner.refresh_elections();
        drop(replica);
        if over {
            return;
        }
        // What has just changed may not be all of it: openraft publishes its metrics one after the other.
        let wait = if changed || woken { tick.min(CHANGES_WITHIN) } else { tick };
        // The last look is after the end: it tells why raft stopped.
        (woken, over) = match tokio::time::timeout(wait, server.changed()).await {
            Ok(changed) => (true, changed.is_err()),
            Err(_) => (false, false),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_raft_is_the_end_of_the_node() {
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::open(ReplicaConfig::new("test", 1, folder.path())).await.unwrap();
        let mut status = replica.status();
        let asked = replica.inner.raft.with_raft_state(|_| panic!("on purpose")).await;
        assert!(asked.is_err());
        let told = tokio::time::timeout(CLOSE_TIMEOUT, status.wait_for(|status| status.fatal.is_some()));
        let status = told.await.unwrap().unwrap().clone();
        assert_eq!((status.role, status.leader), (Role::Stopped, None));
        replica.shutdown().await;
    }

    #[tokio::test]
    async fn a_stop_that_was_asked_for_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::open(ReplicaConfig::new("test", 1, folder.path())).await.unwrap();
        let status = replica.status();
        replica.shutdown().await;
        assert_eq!(status.borrow().fatal, None);
    }
}
