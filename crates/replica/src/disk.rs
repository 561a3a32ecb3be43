//! The log on disk: a sled tree of frames, read here, written by the one thread of `writer.rs`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::durable_file;
use crate::end_mark::EndMark;
use crate::frame::{Frame, damaged};
use crate::types::{Entry, LogId, Vote, decode};
use crate::unsynced;
use crate::writer::{Files, Job, WaitingCommitted, Writer};

/// Jobs that may wait; openraft itself has only a few in flight.
const QUEUE: usize = 4_096;
const LET_GO_WITHIN: Duration = Duration::from_secs(5);
const LET_GO_AGAIN: Duration = Duration::from_millis(1);
const CACHE_BYTES: u64 = 16 << 20;
/// sled moves pages above a quarter of this to files of their own, which it never syncs. A page is rewritten whole, with
/// up to twenty frames in it: they stay inside.
const SEGMENT_BYTES: usize = 8 << 20;
/// Beside sled's own files.
pub(crate) const VOTE_COPY: &str = "vote";

/// Keys of one group: its id, then what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub group: u32,
}

impl Keys {
    fn of(self, kind: u8) -> [u8; 5] {
        let [a, b, c, d] = self.group.to_be_bytes();
        [a, b, c, d, kind]
    }

    pub fn vote(self) -> [u8; 5] {
        self.of(b'v')
    }

    pub fn committed(self) -> [u8; 5] {
        self.of(b'c')
    }

    pub fn purged(self) -> [u8; 5] {
        self.of(b'p')
    }

    pub fn frame(self, first_index: u64) -> [u8; 13] {
        let mut key = [0; 13];
        key[..5].copy_from_slice(&self.of(b'f'));
        key[5..].copy_from_slice(&first_index.to_be_bytes());
        key
    }

    /// The first index of the frame, if this is the key of one.
    pub fn frame_index(self, key: &[u8]) -> Option<u64> {
        let index = key.strip_prefix(&self.of(b'f'))?;
        Some(u64::from_be_bytes(index.try_into().ok()?))
    }
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub(crate) struct DiskStats {
    pub flushes: AtomicU64,
    pub frames: AtomicU64,
    pub flush_micros_total: AtomicU64,
    /// Index of the last entry known to be on disk, plus one.
    pub durable_end: AtomicU64,
}

/// What was found on opening.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// Index of the first entry that is there, purged or not.
    pub first: Option<u64>,
    pub last: Option<LogId>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    keys: Keys,
    db: sled::Db,
    queue: SyncSender<Job>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<DiskStats>,
    committed: Arc<WaitingCommitted>,
}

impl Disk {
    /// Opens the log and checks every frame of it.
    pub fn open(folder: &Path, group: u32) -> io::Result<(Self, Found)> {
        let keys = Keys { group };
        unsynced::write_anew(folder)?;
        wait_until_let_go(&folder.join("db"))?;
        let db = open_db(folder)?;
        let found = scan(&db, keys)?;
        let vote_copy = folder.join(VOTE_COPY);
        check_vote(found.vote.as_ref(), durable_file::read(&vote_copy)?.as_ref())?;
        check_end(found.last, EndMark::read(folder)?.flatten())?;
        let mark = EndMark::open(folder, found.last)?;
        let file = File::options().read(true).write(true).open(folder.join("db"))?;
        sync_names(folder)?;
        let end = found.last.map_or(0, |last| last.index + 1);
        let stats = Arc::new(DiskStats::default());
        stats.durable_end.store(end, Ordering::Release);
        let (queue, jobs) = sync_channel(QUEUE);
        let purge_below = found.purged.map_or(0, |purged| purged.index + 1);
        let committed = Arc::new(WaitingCommitted::default());
        let bounds = (found.last, purge_below);
        let files = Files { db: file, vote_copy, mark, folder: folder.to_owned() };
        let writer = Writer::new(keys, db.clone(), files, stats.clone(), bounds, committed.clone());
        let thread =
            std::thread::Builder::new().name("quorate-log".to_owned()).spawn(move || writer.run(&jobs))?;
        Ok((Self { keys, db, queue, thread: Some(thread), stats, committed }, found))
    }

    pub fn submit(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    /// Written some time later.
    pub fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        if self.committed.replace(committed) { self.submit(Job::Committed) } else { Ok(()) }
    }

    pub fn stats(&self) -> Arc<DiskStats> {
        self.stats.clone()
    }

    pub fn durable_end(&self) -> u64 {
        self.stats.durable_end.load(Ordering::Acquire)
    }

    /// Entries `start..end` as far as they are on disk, and their bytes; stops after the frame that exceeds `max_bytes`.
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<(Vec<Entry>, usize)> {
        let before = self.db.range(..=self.keys.frame(start)).next_back().transpose().map_err(sled_error)?;
        let first = before.and_then(|(key, _)| self.keys.frame_index(&key)).unwrap_or(start);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for item in self.db.range(self.keys.frame(first)..self.keys.frame(end)) {
            let (key, value) = item.map_err(sled_error)?;
            let frame = Frame::read(self.keys.frame_index(&key).unwrap_or(u64::MAX), &value)?;
            let next = start + entries.len() as u64;
            if frame.last_index() < next {
                continue;
            }
            if frame.first_index > next {
                // The caller decides whether what is missing was purged.
                break;
            }
            let skip = usize::try_from(next - frame.first_index).unwrap_or(usize::MAX);
            entries
                .extend(frame.entries()?.into_iter().skip(skip).take_while(|entry| entry.log_id.index < end));
            bytes += value.len();
            if bytes >= max_bytes {
                break;
            }
        }
        Ok((entries, bytes))
    }

    pub fn size_on_disk(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

impl Drop for Disk {
    /// Waits for the writer, so that the folder can be opened again at once.
    fn drop(&mut self) {
        let _ = self.queue.send(Job::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// sled's pool threads hold its lock for a moment after the last handle was dropped. Another process does not: the data
/// folder is locked. If somebody still has it after the wait, sled says so.
fn wait_until_let_go(db: &Path) -> io::Result<()> {
    let file = match File::open(db) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let deadline = Instant::now() + LET_GO_WITHIN;
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LET_GO_AGAIN);
    }
    Ok(())
}

pub(crate) fn open_db(folder: &Path) -> io::Result<sled::Db> {
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    config.segment_size(SEGMENT_BYTES).open().map_err(sled_error)
}

fn scan(db: &sled::Db, keys: Keys) -> io::Result<Found> {
    let mut found = Found {
        vote: get(db, keys.vote(), "vote")?,
        committed: get::<Option<LogId>>(db, keys.committed(), "committed")?.flatten(),
        purged: get(db, keys.purged(), "purged")?,
        first: None,
        last: None,
    };
    found.last = found.purged;
    // Whether the very start is missing is for those to say who know of the snapshots.
    let mut next = None;
    for item in db.range(keys.frame(0)..=keys.frame(u64::MAX)) {
        let (key, value) = item.map_err(sled_error)?;
        let frame = Frame::read(keys.frame_index(&key).unwrap_or(u64::MAX), &value)?;
        if let Some(missing) = next.filter(|expected| *expected != frame.first_index) {
            let next = frame.first_index;
            return Err(damaged(format!(
                "log entry {missing} is missing, the next frame is at index {next}"
            )));
        }
        found.first = found.first.or(Some(frame.first_index));
        next = Some(frame.last_index() + 1);
        found.last = frame.entries()?.last().map(|entry| entry.log_id);
    }
    Ok(found)
}

/// Is everything there that was acknowledged? See `end_mark.rs`.
pub(crate) fn check_end(last: Option<LogId>, mark: Option<LogId>) -> io::Result<()> {
    match mark.filter(|reached| Some(*reached) > last) {
        None => Ok(()),
        Some(reached) => {
            let (from, to) = (last.map_or(0, |last| last.index + 1), reached.index);
            let term = reached.committed_leader_id().term;
            Err(damaged(format!(
                "log entry {from} is missing; the log had reached entry {to} of term {term}"
            )))
        }
    }
}

/// sled passes over what it cannot read. A node that has forgotten a vote could vote twice: hence the copy.
pub(crate) fn check_vote(found: Option<&Vote>, copy: Option<&Vote>) -> io::Result<()> {
    match copy {
        Some(copy) if !found.is_some_and(|found| found >= copy) => {
            Err(damaged(format!("the vote of term {} is missing", copy.leader_id.term)))
        }
        _ => Ok(()),
    }
}

pub(crate) fn get<T: serde::de::DeserializeOwned>(
    db: &sled::Db,
    key: [u8; 5],
    name: &str,
) -> io::Result<Option<T>> {
    let bytes = db.get(key).map_err(sled_error)?;
    let value = bytes.map(|bytes| decode(&bytes)).transpose();
    value.map_err(|error| damaged(format!("log key {name:?}: {error}")))
}

/// sled leaves its files' names to the operating system.
fn sync_names(folder: &Path) -> io::Result<()> {
    for name in ["conf", "db"] {
        File::open(folder.join(name))?.sync_all()?;
    }
    File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// What sled cannot read is damage: it takes the flipped bits of a version for another version. Everything else is what the
/// operating system said.
pub(crate) fn sled_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(format!("sled: {error}"))
        }
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::Unsupported(_) => {
            damaged(format!("sled: {error}"))
        }
        other => io::Error::other(other.to_string()),
    }
}
