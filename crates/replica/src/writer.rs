//! The one thread that writes the log.
//!
//! Everything that changes the log goes through one queue, votes too, so nothing can overtake. The thread takes all that
//! is queued, writes it as one sled batch, flushes, syncs the database file, and only then acknowledges. After the first
//! error it writes nothing more: what the disk holds is not known then, and openraft stops.
//!
//! Two things are not urgent and never cost a flush of their own while there is work: the committed id, of which an older
//! one is as good after a crash, and the removal of purged frames, of which the disk may hold some for a while.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disk::{DiskStats, Keys, sled_error};
use crate::durable_file;
use crate::end_mark::EndMark;
use crate::frame::{Frame, FrameBuilder};
use crate::types::{LogId, TypeConfig, Vote, encode};
use crate::unsynced;

/// One group commit.
const GROUP_MAX_JOBS: usize = 1_024;
const GROUP_MAX_BYTES: usize = 4 << 20;
/// A committed id waits so long, then goes to disk with the next entries, or alone. Its key lies in sled's page of the
/// oldest frames, which is rewritten with it now and then: not to be done at every flush.
const COMMITTED_WAIT: Duration = Duration::from_millis(500);
/// Purged frames that are removed with one flush. More than are added with one, so that the log does not grow; few, so
/// that none takes long.
const REMOVED_MAX: usize = 16;

pub(crate) enum Job {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        /// Of the last of them.
        last: Option<LogId>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// A committed id waits to be written; see [`WaitingCommitted`].
    Committed,
    /// Drops every entry behind this one; `None`: all.
    TruncateAfter {
        keep: Option<LogId>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        log_id: LogId,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Everything before it is on disk when the thread ends.
    Close,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(|(_, bytes)| bytes.len()).sum(),
            _ => 0,
        }
    }
}

/// The committed id that is not on disk yet. Only the first one after a write is announced to the writer: it changes with
/// every batch, and waking a thread costs more than all else about it.
#[derive(Debug, Default)]
pub(crate) struct WaitingCommitted(Mutex<Option<Option<LogId>>>);

impl WaitingCommitted {
    /// True if the writer has to be told.
    pub fn replace(&self, committed: Option<LogId>) -> bool {
        self.0.lock().replace(committed).is_none()
    }

    fn take(&self) -> Option<Option<LogId>> {
        self.0.lock().take()
    }
}

/// What is to be written together, whole or not at all.
#[derive(Default)]
struct Changes(Vec<(sled::IVec, Option<sled::IVec>)>);

impl Changes {
    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.0.push((key.into(), Some(value.into())));
    }

    fn remove(&mut self, key: sled::IVec) {
        self.0.push((key, None));
    }

    /// A batch of sled begins with a record of its own, which goes to disk in a write of its own, and each of sled's writes
    /// wakes all threads of its pool. One change, which is what most groups are, is whole without that.
    fn write(mut self, db: &sled::Db) -> sled::Result<()> {
        if self.0.len() <= 1 {
            return match self.0.pop() {
                Some((key, Some(value))) => db.insert(key, value).map(drop),
                Some((key, None)) => db.remove(key).map(drop),
                None => Ok(()),
            };
        }
        let mut batch = sled::Batch::default();
        for (key, value) in self.0 {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        db.apply_batch(batch)
    }
}

enum Ack {
    Flushed(IOFlushed<TypeConfig>),
    Done(oneshot::Sender<io::Result<()>>),
}

impl Ack {
    fn send(self, result: &io::Result<()>) {
        let copy = result.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()));
        match self {
            Self::Flushed(callback) => callback.io_completed(copy),
            // Nobody waits any more when raft is stopping.
            Self::Done(done) => drop(done.send(copy)),
        }
    }
}

/// What the writer has in its hands beside sled.
#[derive(Debug)]
pub(crate) struct Files {
    /// sled's own flush is `sync_file_range`, which neither flushes the device nor the file's length.
    pub db: File,
    pub vote_copy: PathBuf,
    pub mark: EndMark,
    pub folder: PathBuf,
}

pub(crate) struct Writer {
    keys: Keys,
    db: sled::Db,
    files: Files,
    stats: Arc<DiskStats>,
    /// The last entry written.
    last: Option<LogId>,
    changes: Changes,
    frame: Option<FrameBuilder>,
    committed: Arc<WaitingCommitted>,
    /// When the waiting committed id is to be written.
    committed_due: Option<Instant>,
    vote: Option<Vote>,
    /// Frames wholly below this index are to be removed.
    purge_below: u64,
    /// There may be such frames.
    purging: bool,
}

impl Writer {
    /// `last`: the log's last entry. `purge_below`: index of the last purged one, plus one.
    pub fn new(
        keys: Keys,
        db: sled::Db,
        files: Files,
        stats: Arc<DiskStats>,
        (last, purge_below): (Option<LogId>, u64),
        committed: Arc<WaitingCommitted>,
    ) -> Self {
        Self {
            keys,
            db,
            files,
            stats,
            last,
            changes: Changes::default(),
            frame: None,
            committed,
            committed_due: None,
            vote: None,
            purge_below,
            purging: true,
        }
    }

    pub fn run(mut self, jobs: &Receiver<Job>) {
        let mut open = true;
        while open {
            let mut acks = Vec::new();
            let result = match next_group(jobs, self.committed_due) {
                Some(group) => {
                    open = !group.iter().any(|job| matches!(job, Job::Close));
                    let lazy = group.iter().all(|job| matches!(job, Job::Committed));
                    self.guarded(|writer| writer.commit(group, &mut acks, lazy))
                }
                None => return,
            };
            acks.into_iter().for_each(|ack| ack.send(&result));
            if let Err(error) = result {
                tracing::error!(%error, "the log cannot be written; this node stops");
                unsynced::mark(&self.files.folder);
                // sled writes once more when its last handle goes, and panics where it cannot: one stays.
                std::mem::forget(self.db.clone());
                if open {
                    refuse_all(jobs, &Err(error));
                }
                return;
            }
        }
    }

    /// sled has assertions: a panic of it is an error like others.
    fn guarded(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(|| write(self)))
            .unwrap_or_else(|_| Err(io::Error::other("sled panicked while writing the log")))
    }

    /// An empty group stands for a committed id that has waited long enough.
    fn commit(&mut self, group: Vec<Job>, acks: &mut Vec<Ack>, lazy: bool) -> io::Result<()> {
        let lazy = lazy && !group.is_empty();
        let mut result = Ok(());
        // Every acknowledgement is collected, whatever fails on the way.
        for job in group {
            let written = match job {
                Job::Append { entries, last, callback } => {
                    acks.push(Ack::Flushed(callback));
                    self.append(&entries);
                    self.last = last.or(self.last);
                    Ok(())
                }
                Job::Vote { vote, done } => {
                    acks.push(Ack::Done(done));
                    self.vote = Some(vote);
                    encode(&vote).map(|bytes| self.changes.insert(&self.keys.vote(), bytes))
                }
                Job::Committed => {
                    self.committed_due = Some(Instant::now() + COMMITTED_WAIT);
                    Ok(())
                }
                Job::TruncateAfter { keep, done } => {
                    acks.push(Ack::Done(done));
                    self.apply().and_then(|()| self.truncate_after(keep))
                }
                Job::Purge { log_id, done } => {
                    acks.push(Ack::Done(done));
                    self.apply().and_then(|()| self.purge(&log_id))
                }
                Job::Close => {
                    self.committed_due = Some(Instant::now());
                    Ok(())
                }
            };
            result = result.and(written);
        }
        result?;
        if lazy {
            return Ok(());
        }
        self.add_committed()?;
        self.remove_purged()?;
        self.apply()?;
        self.sync()?;
        if let Some(vote) = self.vote.take() {
            durable_file::write(&self.files.vote_copy, &vote)?;
        }
        self.files.mark.advance(self.last)?;
        self.stats.durable_end.store(self.end(), Ordering::Release);
        Ok(())
    }

    fn append(&mut self, entries: &[(u64, Vec<u8>)]) {
        for (index, bytes) in entries {
            let fits = |frame: &FrameBuilder| frame.fits(bytes) && frame.next_index() == *index;
            if !self.frame.as_ref().is_some_and(fits) {
                self.close_frame();
            }
            self.frame.get_or_insert_with(|| FrameBuilder::new(*index)).push(bytes);
        }
    }

    /// Index of the last entry written, plus one.
    fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn add_committed(&mut self) -> io::Result<()> {
        if self.committed_due.is_some_and(|due| due <= Instant::now()) {
            self.committed_due = None;
            if let Some(committed) = self.committed.take() {
                // It may be of entries that are still in the queue. One that the log does not reach is damage when the
                // folder is opened again; an older one is as good.
                let committed = committed.min(self.last);
                self.changes.insert(&self.keys.committed(), encode(&committed)?);
            }
        }
        Ok(())
    }

    fn close_frame(&mut self) {
        if let Some(frame) = self.frame.take() {
            let (first_index, bytes) = frame.finish();
            self.changes.insert(&self.keys.frame(first_index), bytes);
            self.stats.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn apply(&mut self) -> io::Result<()> {
        self.close_frame();
        std::mem::take(&mut self.changes).write(&self.db).map_err(sled_error)
    }

    fn sync(&self) -> io::Result<()> {
        let started = Instant::now();
        self.db.flush().map_err(sled_error)?;
        self.files.db.sync_data()?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.flushes.fetch_add(1, Ordering::Relaxed);
        self.stats.flush_micros_total.fetch_add(micros, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the frames behind this entry, and rewrites the one that straddles it.
    fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let keep = last.map_or(0, |last| last.index + 1);
        self.files.mark.retreat(last)?;
        let straddling = self.db.range(self.keys.frame(0)..self.keys.frame(keep)).next_back();
        if let Some((key, value)) = straddling.transpose().map_err(sled_error)? {
            let frame = Frame::read(self.keys.frame_index(&key).unwrap_or(u64::MAX), &value)?;
            if frame.last_index() >= keep {
                let mut kept = FrameBuilder::new(frame.first_index);
                let count = usize::try_from(keep - frame.first_index).unwrap_or(usize::MAX);
                frame.encoded()?.into_iter().take(count).for_each(|entry| kept.push(entry));
                self.changes.insert(&key, kept.finish().1);
            }
        }
        for item in self.db.range(self.keys.frame(keep)..=self.keys.frame(u64::MAX)) {
            self.changes.remove(item.map_err(sled_error)?.0);
        }
        self.last = self.last.min(last);
        Ok(())
    }

    /// Makes frames up to the bound removable. To remove them all at once would hold up the log: there may be thousands.
    fn purge(&mut self, log_id: &LogId) -> io::Result<()> {
        self.changes.insert(&self.keys.purged(), encode(log_id)?);
        self.purge_below = self.purge_below.max(log_id.index + 1);
        self.purging = true;
        if self.end() <= log_id.index {
            // A snapshot has overtaken the log. What comes next leaves a gap, so nothing of it may be left.
            for item in self.db.range(self.keys.frame(0)..=self.keys.frame(log_id.index)) {
                self.changes.remove(item.map_err(sled_error)?.0);
            }
            self.last = Some(*log_id);
        }
        Ok(())
    }

    /// Removes some of the frames whose last index is purged; the one that straddles the bound stays whole. Frames follow
    /// each other without a gap, so a frame ends where the next one begins.
    fn remove_purged(&mut self) -> io::Result<()> {
        if !self.purging {
            return Ok(());
        }
        let mut candidate: Option<sled::IVec> = None;
        let mut removed = 0;
        self.purging = false;
        for item in self.db.range(self.keys.frame(0)..=self.keys.frame(self.purge_below)) {
            let (key, _) = item.map_err(sled_error)?;
            if let Some(wholly_below) = candidate.replace(key) {
                self.changes.remove(wholly_below);
                removed += 1;
            }
            if removed == REMOVED_MAX {
                self.purging = true;
                break;
            }
        }
        Ok(())
    }
}

/// All that is queued, within the limits of a group; an empty one when a committed id has waited long enough. `None`: the
/// log is closed.
fn next_group(jobs: &Receiver<Job>, committed_due: Option<Instant>) -> Option<Vec<Job>> {
    let first = match committed_due {
        None => jobs.recv().ok()?,
        Some(due) => match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        },
    };
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while bytes < GROUP_MAX_BYTES && group.len() < GROUP_MAX_JOBS {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.bytes();
        group.push(job);
    }
    Some(group)
}

/// Answers everyone with the error that stopped the log, until it is closed.
fn refuse_all(jobs: &Receiver<Job>, result: &io::Result<()>) {
    for job in jobs {
        match job {
            Job::Append { callback, .. } => Ack::Flushed(callback).send(result),
            Job::Vote { done, .. } | Job::TruncateAfter { done, .. } | Job::Purge { done, .. } => {
                Ack::Done(done).send(result);
            }
            Job::Committed => {}
            Job::Close => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;
    use crate::disk::{get, open_db};
    use crate::types::log_id;

    fn writer(folder: &std::path::Path, vote_copy: PathBuf, committed: Arc<WaitingCommitted>) -> Writer {
        let db = open_db(folder).unwrap();
        let files = Files {
            db: File::options().write(true).open(folder.join("db")).unwrap(),
            vote_copy,
            mark: EndMark::open(folder, None).unwrap(),
            folder: folder.to_owned(),
        };
        Writer::new(Keys { group: 0 }, db, files, Arc::default(), (None, 0), committed)
    }

    #[test]
    fn no_more_is_said_to_be_committed_than_the_log_has() {
        let folder = tempfile::tempdir().unwrap();
        let committed = Arc::new(WaitingCommitted::default());
        let mut writer = writer(folder.path(), folder.path().join("vote"), Arc::clone(&committed));
        let append = |index: u64| Job::Append {
            entries: vec![(index, vec![0; 10])],
            last: Some(log_id(index)),
            callback: IOFlushed::noop(),
        };
        // Four are queued, the first two are a group: it is full, or the process ends behind it.
        committed.replace(Some(log_id(3)));
        for (group, known) in [([0, 1], 1), ([2, 3], 1)] {
            writer.committed_due = (group[0] == 0).then(Instant::now);
            writer.commit(group.map(append).into(), &mut Vec::new(), false).unwrap();
            let found = get::<Option<LogId>>(&writer.db, writer.keys.committed(), "committed").unwrap();
            assert_eq!(found.flatten(), Some(log_id(known)));
        }
    }

    #[test]
    fn one_that_fails_while_it_is_closed_ends() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(folder.path(), folder.path().join("nowhere").join("vote"), Arc::default());
        // Both in one group.
        let (queue, jobs) = sync_channel(2);
        let (done, told) = oneshot::channel();
        queue.send(Job::Vote { vote: Vote::new(1, 1), done }).unwrap();
        queue.send(Job::Close).unwrap();
        let (ended, end) = channel();
        std::thread::spawn(move || {
            writer.run(&jobs);
            ended.send(()).unwrap();
        });
        end.recv_timeout(Duration::from_secs(30)).expect("it waits for more jobs");
        assert!(told.blocking_recv().unwrap().is_err());
        assert!(folder.path().join("unsynced").exists());
        drop(queue);
    }
}
