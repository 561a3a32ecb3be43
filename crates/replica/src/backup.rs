//! A backup: the whole ledger as it was at one point of the log, in one file that says what it holds.
//!
//! Layout, numbers big-endian: magic (8 bytes), format (4), length of the head (4), bincode of the head, bincode of the
//! ledger, number of all bytes before (8), CRC-32 of all before (4). The checksum is for accidents, as in snapshots; whoever
//! can write the file could forge any other too. What writes files and data folders is in `backup_file.rs`, `restore.rs`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_ledger::Ledger;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::OpenError;
use crate::identity;
use crate::types::{LogId, decode, encode};

const MAGIC: &[u8; 8] = b"QUORBKUP";
const FORMAT: u32 = 1;
const FIXED_BYTES: u64 = 16;
const TAIL_BYTES: u64 = 12;
/// The head is a few hundred bytes.
const HEAD_MAX_BYTES: u32 = 1 << 20;
const READ_BYTES: usize = 1 << 20;

/// Why a backup cannot be made, read or restored. Nothing was changed.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error("{path}: {error}", path = .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is there already; give another name, or --force to replace it", path = .path.display())]
    Exists { path: PathBuf },
    #[error("{path} is being written by another backup; wait for it, or give another name", path = .path.display())]
    Busy { path: PathBuf },
    #[error("{path} is damaged: {what}; take another copy of it, or another backup", path = .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{path} is no backup", path = .path.display())]
    NoBackup { path: PathBuf },
    #[error("{path} has {what} {found}, this release reads {known}; use the release that made it", path = .path.display())]
    Format { path: PathBuf, what: &'static str, found: u32, known: u32 },
    #[error("data folder {folder} is not empty; restore makes a new one, so move it away first", folder = .folder.display())]
    NotEmpty { folder: PathBuf },
    #[error(
        "cluster {name} does not end in -{mark}. Give the restored cluster a name that does, for example {example}, in the \
         config of every node: nodes of the old cluster that come back, and nodes restored from another file, are then \
         refused"
    )]
    Name { name: String, mark: String, example: String },
    #[error("peers: {0}")]
    Peers(String),
    #[error(transparent)]
    Folder(#[from] OpenError),
    #[error("data folder {folder} is damaged: {what}; `quorate check` says more. Take the folder of another survivor, or, if there is none, what comes before the damage: --salvage", folder = .folder.display())]
    DamagedFolder { folder: PathBuf, what: String },
}

impl BackupError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    pub cluster: String,
    /// The node that it was taken from.
    pub node_id: u64,
    pub release: String,
    /// By the clock of whoever made it.
    pub made_at_ms: u64,
    /// The last log entry in it.
    pub log_term: u64,
    pub log_index: u64,
    /// Entries behind this one may or may not have been committed: only in a backup of a stopped node's folder.
    pub committed_index: u64,
    pub ledger_time_ms: u64,
    pub policy_version: u64,
    pub tenants: u64,
    pub accounts: u64,
    pub open_reservations: u64,
    pub keys: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Of commands and of the ledger: see `identity.rs`.
    pub ledger_format: u32,
    pub log_id: LogId,
    pub info: BackupInfo,
}

impl Head {
    pub fn new(cluster: &str, node_id: u64, log_id: LogId, committed_index: u64, ledger: &Ledger) -> Self {
        let (mut tenants, mut accounts, mut open_reservations) = (0, 0, 0);
        for tenant in ledger.tenants("") {
            tenants += 1;
            accounts += tenant.accounts;
            open_reservations += tenant.open_reservations;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let info = BackupInfo {
            cluster: cluster.to_owned(),
            node_id,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            made_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            log_term: log_id.committed_leader_id().term,
            log_index: log_id.index,
            committed_index,
            ledger_time_ms: ledger.time().0,
            policy_version: ledger.policy_version(),
            tenants,
            accounts,
            open_reservations,
            keys: ledger.keys().count() as u64,
        };
        Self { ledger_format: identity::FORMAT, log_id, info }
    }

    /// All of a backup. The ledger is encoded piece by piece.
    pub fn write(&self, ledger: &Ledger, out: &mut impl Write) -> io::Result<()> {
        let mut summed = Summed { inner: out, crc: crc32fast::Hasher::new(), bytes: 0 };
        let head = encode(self)?;
        summed.write_all(MAGIC)?;
        summed.write_all(&FORMAT.to_be_bytes())?;
        summed.write_all(&u32::try_from(head.len()).map_err(io::Error::other)?.to_be_bytes())?;
        summed.write_all(&head)?;
        bincode::serde::encode_into_std_write(ledger, &mut summed, bincode::config::standard())
            .map_err(io::Error::other)?;
        let bytes = summed.bytes;
        summed.write_all(&bytes.to_be_bytes())?;
        let crc = summed.crc.finalize();
        summed.inner.write_all(&crc.to_be_bytes())?;
        summed.inner.flush()
    }
}

/// A file whose checksum was right.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    pub(crate) head: Head,
    pub bytes: u64,
    crc: u32,
    ledger_at: u64,
}

impl Backup {
    /// Reads the whole file once, and keeps the head of it. Blocking.
    ///
    /// # Errors
    /// It is no backup, damaged, or of another format.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let io = |error| BackupError::io(path, error);
        let damaged = |what: &str| BackupError::Damaged { path: path.to_owned(), what: what.to_owned() };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut reader = Summed {
            inner: BufReader::with_capacity(READ_BYTES, file),
            crc: crc32fast::Hasher::new(),
            bytes: 0,
        };
        let mut fixed = [0; FIXED_BYTES as usize];
        let magic_read = reader.read_exact(&mut fixed);
        if magic_read.is_err() || !fixed.starts_with(MAGIC) {
            return Err(BackupError::NoBackup { path: path.to_owned() });
        }
        let number = |at: usize| fixed[at..].first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four));
        let (format, head_bytes) = (number(8), number(12));
        if format != FORMAT {
            return Err(BackupError::Format {
                path: path.to_owned(),
                what: "format",
                found: format,
                known: FORMAT,
            });
        }
        let body = bytes.checked_sub(FIXED_BYTES + TAIL_BYTES).ok_or_else(|| damaged("it ends too early"))?;
        if head_bytes > HEAD_MAX_BYTES || u64::from(head_bytes) > body {
            return Err(damaged("its head ends too early"));
        }
        let mut head = vec![0; head_bytes as usize];
        reader.read_exact(&mut head).map_err(io)?;
        let ledger_bytes = body - u64::from(head_bytes);
        io::copy(&mut (&mut reader).take(ledger_bytes), &mut io::sink()).map_err(io)?;
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(io)?;
        let computed = reader.crc.clone().finalize();
        let mut crc = [0; 4];
        reader.read_exact(&mut crc).map_err(io)?;
        if u64::from_be_bytes(length) != bytes - TAIL_BYTES || u32::from_be_bytes(crc) != computed {
            return Err(damaged("wrong checksum"));
        }
        let head: Head = decode(&head).map_err(|error| damaged(&format!("its head: {error}")))?;
        let known = identity::FORMAT;
        if head.ledger_format != known {
            let (what, found) = ("ledger format", head.ledger_format);
            return Err(BackupError::Format { path: path.to_owned(), what, found, known });
        }
        let ledger_at = FIXED_BYTES + u64::from(head_bytes);
        Ok(Self { path: path.to_owned(), head, bytes, crc: computed, ledger_at })
    }

    pub fn info(&self) -> &BackupInfo {
        &self.head.info
    }

    /// What the name of a cluster restored from this file ends in: the checksum.
    pub fn mark(&self) -> String {
        format!("{:08x}", self.crc)
    }

    /// A name for the cluster restored from it.
    pub fn restored_name(&self) -> String {
        let old = &self.head.info.cluster;
        // One that was restored before has a mark already.
        let marked = |tail: &str| tail.len() == 8 && tail.bytes().all(|byte| byte.is_ascii_hexdigit());
        let base =
            old.rsplit_once('-').filter(|(_, tail)| marked(tail)).map_or(old.as_str(), |(base, _)| base);
        format!("{base}-{}", self.mark())
    }

    /// The ledger. Blocking.
    pub(crate) fn ledger(&self) -> Result<Ledger, BackupError> {
        let damaged = |what: String| BackupError::Damaged { path: self.path.clone(), what };
        let mut file = BufReader::with_capacity(
            READ_BYTES,
            File::open(&self.path).map_err(|e| BackupError::io(&self.path, e))?,
        );
        let skipped = io::copy(&mut (&mut file).take(self.ledger_at), &mut io::sink());
        skipped.map_err(|error| BackupError::io(&self.path, error))?;
        let mut body = file.take(self.bytes.saturating_sub(self.ledger_at + TAIL_BYTES));
        let ledger = bincode::serde::decode_from_std_read(&mut body, bincode::config::standard())
            .map_err(|error| damaged(error.to_string()))?;
        if body.limit() > 0 { Err(damaged("bytes behind the ledger".to_owned())) } else { Ok(ledger) }
    }
}

/// Keeps the CRC and the number of all bytes that go through.
struct Summed<T> {
    inner: T,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.crc.update(&bytes[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
