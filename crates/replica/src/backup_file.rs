//! A backup on its way into a file: written beside under another name, checked, and only then given its own.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::backup::{Backup, BackupError, Head};
use crate::durable_file;
use crate::inspect::{self, Content};
use crate::report::Damage;

/// Nobody but its owner reads it: it holds the hashes of API keys, and who spent what.
const MODE: u32 = 0o600;
const COPY_BYTES: usize = 1 << 20;

/// Removed again if it is dropped before [`BackupFile::finish`].
#[derive(Debug)]
pub struct BackupFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    replace: bool,
    finished: bool,
}

impl BackupFile {
    /// # Errors
    /// The file is there and is not to be replaced, or cannot be made.
    pub fn create(path: &Path, replace: bool) -> Result<Self, BackupError> {
        refuse_existing(path, replace)?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let io = |error| BackupError::io(&partial, error);
        let file = File::options().write(true).create(true).truncate(false).mode(MODE).open(&partial);
        let file = file.map_err(io)?;
        let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        // Whoever had the lock may be done by now: then this is the finished file.
        let mine = file.metadata().map_err(io)?;
        let named = fs::metadata(&partial).map(|named| (named.dev(), named.ino()));
        if taken || !named.is_ok_and(|named| named == (mine.dev(), mine.ino())) {
            return Err(BackupError::Busy { path: partial });
        }
        // One that was killed may have left it.
        file.set_permissions(Permissions::from_mode(MODE)).and_then(|()| file.set_len(0)).map_err(io)?;
        Ok(Self { path: path.to_owned(), partial, file, replace, finished: false })
    }

    /// The next bytes. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(|error| BackupError::io(&self.partial, error))
    }

    /// Reads it again, and gives it its name. Blocking.
    ///
    /// # Errors
    /// What was written is no whole backup, or there is a file of that name by now.
    pub fn finish(mut self) -> Result<Backup, BackupError> {
        self.file.sync_all().map_err(|error| BackupError::io(&self.partial, error))?;
        let backup = Backup::open(&self.partial)?;
        refuse_existing(&self.path, self.replace)?;
        let absolute = std::path::absolute(&self.path).map_err(|error| BackupError::io(&self.path, error))?;
        durable_file::rename(&self.partial, &absolute).map_err(|error| BackupError::io(&self.path, error))?;
        self.finished = true;
        Ok(backup)
    }
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is written over by the next backup of that name.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn refuse_existing(path: &Path, replace: bool) -> Result<(), BackupError> {
    match path.try_exists().map_err(|error| BackupError::io(path, error))? {
        true if !replace => Err(BackupError::Exists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// How a backup of a folder is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct FolderBackup {
    /// Replace the file if it is there.
    pub replace: bool,
    /// Of a damaged folder, take what comes before the damage.
    pub salvage: bool,
}

impl FolderBackup {
    /// A backup of the folder of a node that is stopped: all of its log, because what was acknowledged must not be lost; the
    /// last entries of it may not have been committed. With what is damaged there. Blocking.
    ///
    /// # Errors
    /// The folder is in use, damaged or empty, or the file cannot be written.
    pub fn make(self, folder: &Path, path: &Path) -> Result<(Backup, Vec<Damage>), BackupError> {
        refuse_existing(path, self.replace)?;
        let (report, content) = inspect::read(folder)?;
        let damaged = |what: String| BackupError::DamagedFolder { folder: folder.to_owned(), what };
        if let Some(first) = report.damage.first().filter(|_| !self.salvage) {
            return Err(damaged(first.to_string()));
        }
        let Some(Content { log_id, ledger }) = content else {
            return Err(damaged("no ledger can be made from it".to_owned()));
        };
        let committed = report.ledgers.first().map_or(log_id.index, |ledger| ledger.point.index);
        let head = Head::new(&report.cluster, report.node_id, log_id, committed, &ledger);
        let mut file = BackupFile::create(path, self.replace)?;
        let written = head.write(&ledger, &mut BufWriter::with_capacity(COPY_BYTES, &mut file.file));
        written.map_err(|error| BackupError::io(&file.partial, error))?;
        file.finish().map(|backup| (backup, report.damage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_backups_are_not_written_into_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prod.quorate");
        let partial = folder.path().join("prod.quorate.partial");
        // Of a backup that was killed.
        fs::write(&partial, "left behind").unwrap();
        let mut first = BackupFile::create(&path, true).unwrap();
        let metadata = fs::metadata(&partial).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (0, MODE));
        first.write(b"the first").unwrap();
        let second = BackupFile::create(&path, true).unwrap_err().to_string();
        assert!(second.contains("is being written"), "{second}");
        assert_eq!(fs::read(&partial).unwrap(), b"the first");
        drop(first);
        drop(BackupFile::create(&path, true).unwrap());
        assert!(!partial.exists());
    }
}
