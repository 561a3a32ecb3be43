//! The log on disk, and the one thread that writes it.
//!
//! Everything that changes the log goes through one queue, votes too, so nothing can overtake. The thread takes all that
//! is queued, writes it as one sled batch, flushes, syncs the database file, and only then acknowledges.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use crate::frame::{Frame, FrameBuilder, damaged};
use crate::types::{LogId, TypeConfig, Vote, decode, encode};

/// Jobs that may wait; openraft itself has only a few in flight.
const QUEUE: usize = 4_096;
/// Jobs in one group commit.
const GROUP_MAX: usize = 1_024;
const CACHE_BYTES: u64 = 32 << 20;

/// Keys of one group: its id, then what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    group: u32,
}

impl Keys {
    fn meta(self, kind: u8) -> [u8; 5] {
        let [a, b, c, d] = self.group.to_be_bytes();
        [a, b, c, d, kind]
    }

    fn frame(self, first_index: u64) -> [u8; 13] {
        let mut key = [0; 13];
        key[..5].copy_from_slice(&self.meta(b'f'));
        key[5..].copy_from_slice(&first_index.to_be_bytes());
        key
    }
}

pub(crate) enum Job {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Box<Vote>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Committed {
        committed: Option<LogId>,
    },
    /// Drops every entry above this index; `None`: all.
    TruncateAfter {
        index: Option<u64>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        log_id: LogId,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Everything before it is on disk when this is answered.
    Close,
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct DiskStats {
    pub flushes: AtomicU64,
    pub frames: AtomicU64,
    pub flush_micros_total: AtomicU64,
    /// Index of the last entry known to be on disk, plus one.
    pub(crate) durable_end: AtomicU64,
}

/// What was found on opening.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    keys: Keys,
    db: sled::Db,
    queue: SyncSender<Job>,
    thread: Option<JoinHandle<()>>,
    pub stats: Arc<DiskStats>,
}

impl Disk {
    /// Opens the log and checks every frame of it.
    pub fn open(folder: &Path, group: u32) -> io::Result<(Self, Found)> {
        let keys = Keys { group };
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(sled_error)?;
        let found = scan(&db, keys)?;
        let file = File::options().read(true).write(true).open(folder.join("db"))?;
        let stats = Arc::new(DiskStats::default());
        stats.durable_end.store(found.last.map_or(0, |last| last.index + 1), Ordering::Relaxed);
        let (queue, jobs) = sync_channel(QUEUE);
        let writer = Writer { keys, db: db.clone(), file, stats: stats.clone() };
        let thread =
            std::thread::Builder::new().name("quorate-log".to_owned()).spawn(move || writer.run(&jobs))?;
        Ok((Self { keys, db, queue, thread: Some(thread), stats }, found))
    }

    pub fn submit(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    /// Entries from `start` up to but without `end`, as far as they are on disk.
    pub fn read(&self, start: u64, end: u64) -> io::Result<Vec<crate::types::Entry>> {
        let from = self.db.range(..=self.keys.frame(start)).next_back();
        let from = match from.transpose().map_err(sled_error)? {
            Some((key, _)) if key.starts_with(&self.keys.meta(b'f')) => key,
            _ => self.keys.frame(start).as_slice().into(),
        };
        let mut entries = Vec::new();
        for item in self.db.range(from..self.keys.frame(end).as_slice().into()) {
            let (_, value) = item.map_err(sled_error)?;
            let frame = Frame::read(&value)?;
            let indexed = (frame.first_index..).zip(frame.entries()?);
            entries.extend(indexed.filter(|(index, _)| (start..end).contains(index)).map(|(_, entry)| entry));
        }
        Ok(entries)
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

fn scan(db: &sled::Db, keys: Keys) -> io::Result<Found> {
    let mut found = Found {
        vote: get(db, keys.meta(b'v'))?,
        committed: get::<Option<LogId>>(db, keys.meta(b'c'))?.flatten(),
        purged: get(db, keys.meta(b'p'))?,
        last: None,
    };
    found.last = found.purged;
    let mut next: Option<u64> = None;
    for item in db.scan_prefix(keys.meta(b'f')) {
        let (_, value) = item.map_err(sled_error)?;
        let frame = Frame::read(&value)?;
        if let Some(expected) = next.filter(|expected| *expected != frame.first_index) {
            return Err(damaged(format!(
                "the log has a hole: index {expected} is missing, the next frame starts at {}",
                frame.first_index
            )));
        }
        next = Some(frame.last_index() + 1);
        if let Some(entry) = frame.entries()?.last() {
            found.last = Some(entry.log_id);
        }
    }
    Ok(found)
}

fn get<T: serde::de::DeserializeOwned>(db: &sled::Db, key: [u8; 5]) -> io::Result<Option<T>> {
    db.get(key).map_err(sled_error)?.map(|bytes| decode(&bytes)).transpose()
}

/// sled's corruption is damage; everything else is what the operating system said.
pub(crate) fn sled_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => damaged(format!("sled: {error}")),
        other => io::Error::other(other.to_string()),
    }
}

struct Writer {
    keys: Keys,
    db: sled::Db,
    /// sled's own flush is `sync_file_range`, which neither flushes the device nor the file's length.
    file: File,
    stats: Arc<DiskStats>,
}

enum Ack {
    Flushed(IOFlushed<TypeConfig>, u64),
    Done(oneshot::Sender<io::Result<()>>),
}

impl Writer {
    fn run(self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            group.extend(jobs.try_iter().take(GROUP_MAX - 1));
            if !self.commit(group) {
                return;
            }
        }
    }

    /// False when it is time to stop.
    fn commit(&self, group: Vec<Job>) -> bool {
        let mut batch = sled::Batch::default();
        let mut frame: Option<FrameBuilder> = None;
        let mut acks = Vec::new();
        let mut result = Ok(());
        let mut open = true;
        for job in group {
            match job {
                Job::Append { entries, callback } => {
                    let end = entries.last().map_or(0, |(index, _)| index + 1);
                    for (index, bytes) in entries {
                        self.push(&mut batch, &mut frame, index, &bytes);
                    }
                    acks.push(Ack::Flushed(callback, end));
                }
                Job::Vote { vote, done } => {
                    result = result
                        .and_then(|()| encode(&vote))
                        .map(|bytes| batch.insert(&self.keys.meta(b'v'), bytes));
                    acks.push(Ack::Done(done));
                }
                Job::Committed { committed } => {
                    result = result
                        .and_then(|()| encode(&committed))
                        .map(|bytes| batch.insert(&self.keys.meta(b'c'), bytes));
                }
                Job::TruncateAfter { index, done } => {
                    self.close_frame(&mut batch, &mut frame);
                    result = result
                        .and_then(|()| self.apply(&mut batch))
                        .and_then(|()| self.truncate_after(&mut batch, index));
                    acks.push(Ack::Done(done));
                }
                Job::Purge { log_id, done } => {
                    self.close_frame(&mut batch, &mut frame);
                    result = result
                        .and_then(|()| self.apply(&mut batch))
                        .and_then(|()| self.purge(&mut batch, &log_id));
                    acks.push(Ack::Done(done));
                }
                Job::Close => open = false,
            }
        }
        self.close_frame(&mut batch, &mut frame);
        let result = result.and_then(|()| self.apply(&mut batch)).and_then(|()| self.sync());
        self.acknowledge(acks, &result);
        open && result.is_ok()
    }

    fn push(&self, batch: &mut sled::Batch, frame: &mut Option<FrameBuilder>, index: u64, bytes: &[u8]) {
        if frame.as_ref().is_some_and(|frame| !frame.fits(bytes) || frame.next_index() != index) {
            self.close_frame(batch, frame);
        }
        frame.get_or_insert_with(|| FrameBuilder::new(index)).push(bytes);
    }

    fn close_frame(&self, batch: &mut sled::Batch, frame: &mut Option<FrameBuilder>) {
        if let Some(frame) = frame.take() {
            let (first_index, bytes) = frame.finish();
            batch.insert(&self.keys.frame(first_index), bytes);
            self.stats.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn apply(&self, batch: &mut sled::Batch) -> io::Result<()> {
        self.db.apply_batch(std::mem::take(batch)).map_err(sled_error)
    }

    fn sync(&self) -> io::Result<()> {
        let started = Instant::now();
        self.db.flush().map_err(sled_error)?;
        self.file.sync_data()?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.flushes.fetch_add(1, Ordering::Relaxed);
        self.stats.flush_micros_total.fetch_add(micros, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the frames above `index`, and rewrites the one that straddles it.
    fn truncate_after(&self, batch: &mut sled::Batch, index: Option<u64>) -> io::Result<()> {
        let keep = index.map_or(0, |index| index + 1);
        let straddling =
            self.db.range(..self.keys.frame(keep)).next_back().transpose().map_err(sled_error)?;
        if let Some((_, value)) = straddling.filter(|(key, _)| key.starts_with(&self.keys.meta(b'f'))) {
            let frame = Frame::read(&value)?;
            if frame.last_index() >= keep {
                let mut kept = FrameBuilder::new(frame.first_index);
                let keep = usize::try_from(keep - frame.first_index).unwrap_or(usize::MAX);
                frame.encoded()?.into_iter().take(keep).for_each(|entry| kept.push(entry));
                let (first_index, bytes) = kept.finish();
                batch.insert(&self.keys.frame(first_index), bytes);
            }
        }
        for item in self.db.range(self.keys.frame(keep)..=self.keys.frame(u64::MAX)) {
            batch.remove(item.map_err(sled_error)?.0);
        }
        self.stats.durable_end.fetch_min(keep, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the frames whose last index is not above the bound; the one that straddles it stays whole.
    fn purge(&self, batch: &mut sled::Batch, log_id: &LogId) -> io::Result<()> {
        batch.insert(&self.keys.meta(b'p'), encode(log_id)?);
        for item in self.db.range(self.keys.frame(0)..=self.keys.frame(log_id.index)) {
            let (key, value) = item.map_err(sled_error)?;
            if Frame::read(&value)?.last_index() <= log_id.index {
                batch.remove(key);
            }
        }
        Ok(())
    }

    fn acknowledge(&self, acks: Vec<Ack>, result: &io::Result<()>) {
        let copy =
            || result.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()));
        for ack in acks {
            match ack {
                Ack::Flushed(callback, end) => {
                    if result.is_ok() {
                        self.stats.durable_end.fetch_max(end, Ordering::Relaxed);
                    }
                    callback.io_completed(copy());
                }
                // Nobody waits any more when raft is stopping.
                Ack::Done(done) => drop(done.send(copy())),
            }
        }
    }
}
