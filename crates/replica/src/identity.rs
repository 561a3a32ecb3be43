//! Whose data folder this is: written once, checked at every start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::OpenError;
use crate::frame::damaged;
use crate::types::{decode, encode};

const FILE: &str = "identity";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub format: u32,
    pub cluster: String,
    pub node_id: u64,
    /// Made with the folder: two folders of one node id differ in it.
    pub incarnation: [u8; 16],
}

impl Identity {
    /// Reads the folder's identity, or makes one in a new folder.
    pub fn open(folder: &Path, cluster: &str, node_id: u64) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let identity = match fs::read(&path) {
            Ok(bytes) => decode(&bytes)
                .map_err(|_| OpenError::damaged(folder, "the file \"identity\" cannot be read"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(&path, cluster, node_id).map_err(|error| OpenError::io(folder, error))?
            }
            Err(error) => return Err(OpenError::io(folder, error)),
        };
        let folder = folder.to_owned();
        if identity.format != FORMAT {
            return Err(OpenError::damaged(
                &folder,
                format!("its format is {}, this version knows {FORMAT}", identity.format),
            ));
        }
        if identity.cluster != cluster {
            return Err(OpenError::OtherCluster {
                folder,
                found: identity.cluster,
                wanted: cluster.to_owned(),
            });
        }
        if identity.node_id != node_id {
            return Err(OpenError::OtherNode { folder, found: identity.node_id, wanted: node_id });
        }
        Ok(identity)
    }

    fn create(path: &Path, cluster: &str, node_id: u64) -> io::Result<Self> {
        let identity = Self {
            format: FORMAT,
            cluster: cluster.to_owned(),
            node_id,
            incarnation: uuid::Uuid::new_v4().into_bytes(),
        };
        let folder = path.parent().ok_or_else(|| damaged("the data folder has no path"))?;
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(&encode(&identity)?)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()?;
        Ok(identity)
    }
}

/// Held while the folder is open. The operating system gives it back when the process ends, however it ends.
pub(crate) fn lock(folder: &Path) -> Result<File, OpenError> {
    let file = File::create(folder.join(LOCK)).map_err(|error| OpenError::io(folder, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(OpenError::io(folder, error)),
    }
}
