//! Snapshots in files: written beside, synced, renamed. A file that is there under its name is whole.
//!
//! Layout: magic (8 bytes), length of the metadata (8, big-endian), bincode of the metadata, bincode of the ledger, CRC-32
//! of all before (4).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use quorate_ledger::Ledger;

use crate::frame::damaged;
use crate::types::{SnapshotMeta, decode, encode};

const MAGIC: &[u8; 8] = b"QUORSNP1";
const SUFFIX: &str = "snapshot";
const COPY_BYTES: usize = 1 << 20;

/// A snapshot on this node's disk.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub(crate) path: PathBuf,
}

/// The folder that holds them. At most one is kept, and the one being received.
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
        Ok(Some((meta, ledger, SnapshotFile { path })))
    }

    /// Writes a snapshot and removes older ones. Blocking.
    pub fn write(&self, meta: &SnapshotMeta, ledger: &Ledger) -> io::Result<SnapshotFile> {
        let partial = self.partial_path();
        let mut file = Checked::new(BufWriter::with_capacity(COPY_BYTES, File::create(&partial)?));
        let meta_bytes = encode(meta)?;
        file.write_all(MAGIC)?;
        file.write_all(&(meta_bytes.len() as u64).to_be_bytes())?;
        file.write_all(&meta_bytes)?;
        bincode::serde::encode_into_std_write(ledger, &mut file, bincode::config::standard())
            .map_err(io::Error::other)?;
        file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.adopt(&partial, meta)
    }

    /// Gives a complete file its name and removes older ones. Blocking.
    pub fn adopt(&self, partial: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let (term, index) =
            meta.last_log_id.map_or((0, 0), |last| (last.committed_leader_id().term, last.index));
        let path = self.folder.join(format!("{index:020}-{term:020}.{SUFFIX}"));
        fs::rename(partial, &path)?;
        File::open(&self.folder)?.sync_all()?;
        for older in self.paths()?.into_iter().filter(|older| *older < path) {
            fs::remove_file(older)?;
        }
        Ok(SnapshotFile { path })
    }

    /// Where a snapshot that is being written or received stands.
    pub fn partial_path(&self) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.folder.join(format!("{number}.partial"))
    }

    pub fn size_on_disk(&self) -> u64 {
        let sizes = self.paths().unwrap_or_default().into_iter().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|metadata| metadata.len()).sum()
    }

    /// By index, oldest first.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// Reads and checks a whole file. Blocking.
pub(crate) fn read(path: &Path) -> io::Result<(SnapshotMeta, Ledger)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wrong = |what: &str| damaged(format!("snapshot {name}: {what}"));
    let mut bytes = Vec::new();
    BufReader::new(File::open(path)?).read_to_end(&mut bytes)?;
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

/// Writes the CRC of everything at the end.
struct Checked<W> {
    inner: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Checked<W> {
    fn new(inner: W) -> Self {
        Self { inner, crc: crc32fast::Hasher::new() }
    }

    fn finish(mut self) -> io::Result<W> {
        let crc = self.crc.finalize();
        self.inner.write_all(&crc.to_be_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
