//! Snapshots in files: written beside, synced, renamed. A file that is there under its name is whole.
//!
//! Layout: magic (8 bytes), length of the metadata (8, big-endian), bincode of the metadata, bincode of the ledger, CRC-32
//! of all before (4).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_ledger::Ledger;

use crate::durable_file;
use crate::frame::damaged;
use crate::types::{SnapshotMeta, decode, encode};

const MAGIC: &[u8; 8] = b"QUORSNP1";
const SUFFIX: &str = "snapshot";
/// Written and synced at a time. Left to the end, the sync of a large file would make those of the log wait for all of it:
/// a file system writes the data of every file before its journal.
const COPY_BYTES: usize = 1 << 20;

/// A snapshot on this node's disk.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub(crate) path: PathBuf,
    /// What is in it, where it was read already. Cheap to clone.
    pub(crate) content: Option<Ledger>,
}

/// The folder that holds them: the newest, and those being written or received.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFolder {
    folder: PathBuf,
}

impl SnapshotFolder {
    /// Removes what a crash left half written.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "partial") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { folder })
    }

    /// The newest snapshot, checked.
    pub fn load_newest(&self) -> io::Result<Option<(SnapshotMeta, Ledger, SnapshotFile)>> {
        let Some(path) = self.paths()?.pop() else { return Ok(None) };
        let (meta, ledger) = read(&path)?;
        Ok(Some((meta, ledger, SnapshotFile { path, content: None })))
    }

    /// Writes a snapshot and removes older ones. Blocking.
    pub fn write(&self, meta: &SnapshotMeta, ledger: &Ledger) -> io::Result<SnapshotFile> {
        let partial = self.partial_path();
        let written = write_file(&partial, meta, ledger).and_then(|()| self.adopt(&partial, meta));
        if written.is_err() {
            // What cannot be removed now goes at the next start.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    /// Gives a complete file its name and removes older ones. Blocking.
    pub fn adopt(&self, partial: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let (term, index) =
            meta.last_log_id.map_or((0, 0), |last| (last.committed_leader_id().term, last.index));
        let path = self.folder.join(format!("{index:020}-{term:020}.{SUFFIX}"));
        durable_file::rename(partial, &path)?;
        for older in self.paths()?.into_iter().filter(|older| *older < path) {
            remove_if_there(&older)?;
        }
        Ok(SnapshotFile { path, content: None })
    }

    /// Where a snapshot that is being written or received stands.
    pub fn partial_path(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.folder.join(format!("{}.partial", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn size_on_disk(&self) -> u64 {
        let sizes = self.paths().unwrap_or_default().into_iter().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|metadata| metadata.len()).sum()
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        Self::files(&self.folder)
    }

    /// By index, oldest first.
    pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// A snapshot of our own and one that was received may become the newest at the same time, and remove the same older one.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn write_file(path: &Path, meta: &SnapshotMeta, ledger: &Ledger) -> io::Result<()> {
    let checked = Checked { inner: File::create(path)?, crc: crc32fast::Hasher::new() };
    let mut file = BufWriter::with_capacity(COPY_BYTES, checked);
    let meta = encode(meta)?;
    file.write_all(MAGIC)?;
    file.write_all(&(meta.len() as u64).to_be_bytes())?;
    file.write_all(&meta)?;
    bincode::serde::encode_into_std_write(ledger, &mut file, bincode::config::standard())
        .map_err(encode_error)?;
    let Checked { inner: mut file, crc } = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.write_all(&crc.finalize().to_be_bytes())?;
    file.sync_all()
}

/// A full disk stays recognisable.
fn encode_error(error: bincode::error::EncodeError) -> io::Error {
    match error {
        bincode::error::EncodeError::Io { inner, .. } => inner,
        other => io::Error::other(other),
    }
}

/// Reads and checks a whole file. Blocking.
///
/// # Errors
/// `InvalidData` that names the file.
pub(crate) fn read(path: &Path) -> io::Result<(SnapshotMeta, Ledger)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wrong = |what: &str| damaged(format!("snapshot {name}: {what}"));
    let bytes = fs::read(path)?;
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| wrong("it ends too early"))?;
    if crc32fast::hash(body).to_be_bytes() != *crc {
        return Err(wrong("wrong checksum"));
    }
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| wrong("it is no snapshot of this version"))?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(|| wrong("it ends too early"))?;
    let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (meta, ledger) = rest.split_at_checked(length).ok_or_else(|| wrong("it ends too early"))?;
    let meta = decode(meta).map_err(|error| wrong(&error.to_string()))?;
    let ledger = decode(ledger).map_err(|error| wrong(&error.to_string()))?;
    Ok((meta, ledger))
}

/// Keeps the CRC of everything that goes through, and syncs it.
struct Checked {
    inner: File,
    crc: crc32fast::Hasher,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.inner.sync_data()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    #[test]
    fn two_become_the_newest_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = SnapshotFolder::open(folder.path().to_owned()).unwrap();
        let write = |index| {
            let meta = SnapshotMeta { last_log_id: Some(log_id(index)), ..SnapshotMeta::default() };
            snapshots.write(&meta, &Ledger::default()).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..500).map(|index| 2 * index).for_each(write));
            scope.spawn(|| (0..500).map(|index| 2 * index + 1).for_each(write));
        });
        assert_eq!(snapshots.load_newest().unwrap().unwrap().0.last_log_id.unwrap().index, 999);
    }
}
