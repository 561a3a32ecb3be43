//! A new data folder from a backup: its ledger as a snapshot, with the peers of the new cluster as members.
//!
//! Every node of the new cluster gets such a folder, made from the same file; they then start as one cluster. The name of the
//! cluster holds the file's checksum: so neither a node of the old cluster, nor one restored from another file, can take
//! part. Its log goes on where the backup's ended, and the ledger's time with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use openraft::BasicNode;
use tokio::sync::oneshot;

use crate::backup::{Backup, BackupError};
use crate::config::ReplicaConfig;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::identity::{self, Identity};
use crate::open::GROUP;
use crate::snapshot::SnapshotFolder;
use crate::standing::{Standing, StandingFile};
use crate::status::Peer;
use crate::types::{LogId, Membership, SnapshotMeta, Vote};
use crate::writer::Job;

/// Makes the folder of one node. Blocking; not to be called on a thread of the runtime.
///
/// # Errors
/// The file, the name or the peers are wrong, or the folder is not empty. If the disk fails on the way, what is there is no
/// data folder yet, and says so when it is opened.
pub fn restore(file: &Path, config: &ReplicaConfig, peers: &[Peer]) -> Result<Backup, BackupError> {
    let backup = Backup::open(file)?;
    check_name(&backup, &config.cluster)?;
    let membership = membership(backup.head.log_id, config.node_id, peers)?;
    let folder = config.data_dir.as_path();
    let io = |error: io::Error| OpenError::io(folder, error);
    fs::create_dir_all(folder).map_err(io)?;
    if fs::read_dir(folder).map_err(io)?.next().is_some() {
        return Err(BackupError::NotEmpty { folder: folder.to_owned() });
    }
    let ledger = backup.ledger()?;
    let _lock = identity::lock(folder)?;
    let last = backup.head.log_id;
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership };
    let snapshots = SnapshotFolder::open(folder.join("snapshots")).map_err(io)?;
    snapshots.write(&meta, &ledger).map_err(io)?;
    write_log(folder, last).map_err(io)?;
    StandingFile::open(folder).and_then(|standing| standing.set(Standing::Member)).map_err(io)?;
    // Last: without it, the folder is not taken for one.
    Identity::create(folder, &config.cluster, config.node_id)?;
    Ok(backup)
}

fn check_name(backup: &Backup, name: &str) -> Result<(), BackupError> {
    let mark = backup.mark();
    if name.strip_suffix(&mark).is_some_and(|base| base.len() > 1 && base.ends_with('-')) {
        return Ok(());
    }
    Err(BackupError::Name { name: name.to_owned(), mark, example: backup.restored_name() })
}

fn membership(at: LogId, node_id: u64, peers: &[Peer]) -> Result<Membership, BackupError> {
    let ids: BTreeSet<u64> = peers.iter().map(|peer| peer.id).collect();
    if ids.len() != peers.len() || !ids.contains(&node_id) {
        return Err(BackupError::Peers(format!("each stands there once, and node {node_id} among them")));
    }
    let nodes: BTreeMap<u64, BasicNode> =
        peers.iter().map(|peer| (peer.id, BasicNode::new(&peer.address))).collect();
    let membership = openraft::Membership::new(vec![ids], nodes);
    let membership = membership.map_err(|error| BackupError::Peers(error.to_string()))?;
    Ok(Membership::new(Some(at), membership))
}

/// A log that ends where the snapshot does. The vote is in the term of its last entry: the next leader's is later.
fn write_log(folder: &Path, last: LogId) -> io::Result<()> {
    let (disk, _) = Disk::open(&folder.join("log"), GROUP)?;
    let leader = last.committed_leader_id();
    let vote = Vote::new(leader.term, leader.node_id);
    wait(&disk, |done| Job::Vote { vote, done })?;
    wait(&disk, |done| Job::Purge { log_id: last, done })
}

fn wait(disk: &Disk, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
    let (done, waited) = oneshot::channel();
    disk.submit(job(done))?;
    waited.blocking_recv().map_err(|_| io::Error::other("the log's writer has stopped"))?
}
