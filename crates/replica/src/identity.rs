//! Whose data folder this is: written once, checked at every start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable_file;
use crate::error::OpenError;

const FILE: &str = "identity";
const LOCK: &str = "lock";
/// 2: commands and outcomes know of units, enforcement, keys and alerts. 3: of circuits.
pub(crate) const FORMAT: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub format: u32,
    pub cluster: String,
    pub node_id: u64,
    /// Made with the folder: two folders of one node id differ in it.
    pub incarnation: [u8; 16],
}

impl Identity {
    /// Whoever it belongs to.
    pub fn of(folder: &Path) -> io::Result<Option<Self>> {
        durable_file::read(&folder.join(FILE))
    }

    /// `None`: the folder is new.
    pub fn read(folder: &Path, cluster: &str, node_id: u64) -> Result<Option<Self>, OpenError> {
        let found = Self::of(folder).map_err(|error| OpenError::io(folder, error))?;
        let Some(identity): Option<Self> = found else { return Ok(None) };
        identity.check_format(folder)?;
        let folder = folder.to_owned();
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
        Ok(Some(identity))
    }

    /// Another release's folder is no damaged one: to rebuild it would throw away what is whole.
    pub fn check_format(&self, folder: &Path) -> Result<(), OpenError> {
        let (found, known) = (self.format, FORMAT);
        if found == known {
            return Ok(());
        }
        Err(OpenError::Format { folder: folder.to_owned(), found, known })
    }

    /// Written last, when everything else of a new folder is there.
    pub fn create(folder: &Path, cluster: &str, node_id: u64) -> Result<Self, OpenError> {
        let incarnation = uuid::Uuid::new_v4().into_bytes();
        let identity = Self { format: FORMAT, cluster: cluster.to_owned(), node_id, incarnation };
        durable_file::write(&folder.join(FILE), &identity).map_err(|error| OpenError::io(folder, error))?;
        Ok(identity)
    }
}

/// Held while the folder is open. The operating system gives it back when the process ends, however it ends.
pub(crate) fn lock(folder: &Path) -> Result<File, OpenError> {
    let file = File::create(folder.join(LOCK)).map_err(|error| OpenError::io(folder, error))?;
    locked(folder, file.try_lock()).map(|()| file)
}

/// Keeps others from opening the folder while it is only looked at; changes nothing in it. `None`: nobody ever opened it.
pub(crate) fn lock_shared(folder: &Path) -> Result<Option<File>, OpenError> {
    match File::open(folder.join(LOCK)) {
        Ok(file) => locked(folder, file.try_lock_shared()).map(|()| Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(folder, error)),
    }
}

fn locked(folder: &Path, tried: Result<(), fs::TryLockError>) -> Result<(), OpenError> {
    tried.map_err(|error| match error {
        fs::TryLockError::WouldBlock => OpenError::InUse { folder: folder.to_owned() },
        fs::TryLockError::Error(error) => OpenError::io(folder, error),
    })
}

/// Renames the data folder, so that the node starts with an empty one and is rebuilt from its peers. False: there is none.
///
/// # Errors
/// A running process uses the folder, or it cannot be renamed.
pub fn set_aside(folder: &Path, to: PathBuf) -> Result<bool, OpenError> {
    if !folder.exists() {
        return Ok(false);
    }
    // Goes with the folder.
    let lock = lock(folder)?;
    let renamed = durable_file::rename(folder, &to);
    drop(lock);
    let aside = |error| OpenError::Aside { folder: folder.to_owned(), to, error };
    renamed.map(|()| true).map_err(aside)
}
