//! openraft's view of the log: appends go to the writer thread, reads come from a bounded tail in memory, then from disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::disk::{Disk, Job};
use crate::frame::ENTRY_MAX_BYTES;
use crate::types::{Entry, LogId, TypeConfig, Vote, encode};

/// Bytes of entries kept in memory for followers that are nearly caught up.
const TAIL_MAX_BYTES: usize = 16 << 20;
/// Bytes of entries handed out at once: below the message limit of the network.
const READ_MAX_BYTES: usize = 1 << 20;

/// Clones share one log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    tail: VecDeque<TailEntry>,
    tail_bytes: usize,
}

#[derive(Debug)]
struct TailEntry {
    entry: Entry,
    bytes: usize,
}

impl LogStore {
    pub fn open(folder: &Path, group: u32) -> io::Result<Self> {
        let (disk, found) = Disk::open(folder, group)?;
        let state = State {
            vote: found.vote,
            committed: found.committed,
            purged: found.purged,
            last: found.last,
            ..State::default()
        };
        Ok(Self { disk: Arc::new(disk), state: Arc::new(RwLock::new(state)) })
    }

    pub fn disk(&self) -> Arc<Disk> {
        self.disk.clone()
    }

    async fn wait(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, waited) = oneshot::channel();
        self.disk.submit(job(done))?;
        waited.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let tail_first = {
            let state = self.state.read();
            let first = state.tail.front().map_or(u64::MAX, |first| first.entry.log_id.index);
            if start >= first {
                return Ok(state.tail_entries(start, end, max_bytes));
            }
            first
        };
        // What is not in the tail is on disk: only durable entries leave it. A part of the range is a fine answer
        // where the caller set a limit.
        let from_disk_end = if max_bytes == usize::MAX { end } else { end.min(start + 64) };
        let mut entries = self.disk.read(start, from_disk_end.min(tail_first))?;
        if max_bytes == usize::MAX && end > tail_first {
            entries.extend(self.state.read().tail_entries(tail_first, end, max_bytes));
        }
        Ok(entries)
    }
}

impl State {
    fn tail_entries(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let Some(first) = self.tail.front().map(|first| first.entry.log_id.index) else { return Vec::new() };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = |item: &&TailEntry| {
            let take = item.entry.log_id.index < end && (bytes == 0 || bytes + item.bytes <= max_bytes);
            bytes += item.bytes;
            take
        };
        self.tail.iter().skip(skip).take_while(within).map(|item| item.entry.clone()).collect()
    }

    fn push(&mut self, entry: Entry, bytes: usize, durable_end: u64) {
        self.last = Some(entry.log_id);
        self.tail.push_back(TailEntry { entry, bytes });
        self.tail_bytes += bytes;
        while self.tail_bytes > TAIL_MAX_BYTES
            && self.tail.front().is_some_and(|first| first.entry.log_id.index < durable_end)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(first) = self.tail.pop_front() {
            self.tail_bytes -= first.bytes;
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let first = self.state.read().purged.map_or(0, |purged| purged.index + 1);
        let last = self.state.read().last.map_or(0, |last| last.index + 1);
        let (start, end) = (start.max(first), end.min(last));
        if start >= end { Ok(Vec::new()) } else { self.read(start, end, usize::MAX) }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state.read().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_MAX_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state.read();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.state.write().vote = Some(*vote);
        self.wait(|done| Job::Vote { vote: Box::new(*vote), done }).await
    }

    /// Not waited for: after a crash, an older committed id is as good.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let changed = std::mem::replace(&mut self.state.write().committed, committed) != committed;
        if changed { self.disk.submit(Job::Committed { committed }) } else { Ok(()) }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        {
            let durable_end = self.disk.stats.durable_end.load(Ordering::Relaxed);
            let mut state = self.state.write();
            for entry in entries {
                let bytes = encode(&entry)?;
                if bytes.len() > ENTRY_MAX_BYTES {
                    let kind =
                        if matches!(entry.payload, EntryPayload::Normal(_)) { "batch" } else { "membership" };
                    return Err(io::Error::other(format!(
                        "a {kind} of {} bytes is above the frame size",
                        bytes.len()
                    )));
                }
                let (index, length) = (entry.log_id.index, bytes.len());
                state.push(entry, length, durable_end);
                encoded.push((index, bytes));
            }
        }
        self.disk.submit(Job::Append { entries: encoded, callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        {
            let mut state = self.state.write();
            let keep = last_log_id.map_or(0, |last| last.index + 1);
            while state.tail.back().is_some_and(|last| last.entry.log_id.index >= keep) {
                if let Some(last) = state.tail.pop_back() {
                    state.tail_bytes -= last.bytes;
                }
            }
            state.last = state.last.min(last_log_id);
        }
        self.wait(|done| Job::TruncateAfter { index: last_log_id.map(|last| last.index), done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut state = self.state.write();
            while state.tail.front().is_some_and(|first| first.entry.log_id.index <= log_id.index) {
                state.pop_front();
            }
            state.purged = Some(log_id);
            state.last = state.last.max(Some(log_id));
        }
        self.wait(|done| Job::Purge { log_id, done }).await
    }
}
