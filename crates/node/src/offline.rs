//! What is done to the data folders of nodes that do not run: backups, restoring them, checking. All of it blocks.

use std::path::Path;

use quorate_replica::Peer;

pub use quorate_replica::{
    Backup, BackupError, BackupFile, BackupInfo, Damage, FolderBackup, FolderReport, LedgerReport, OpenError,
    SnapshotReport, check_folder,
};

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::node::{check_peers, replica_config};

/// Makes the data folder of this node from a backup; see `quorate restore --help`.
///
/// # Errors
/// The config contradicts itself, the file is not as it was written, or the folder is not empty.
pub fn restore(file: &Path, config: &NodeConfig) -> Result<Backup, NodeError> {
    let peers: Vec<Peer> =
        config.peers.iter().map(|peer| Peer { id: peer.id, address: peer.address.clone() }).collect();
    check_peers(config, &peers)?;
    Ok(quorate_replica::restore(file, &replica_config(config)?, &peers)?)
}
