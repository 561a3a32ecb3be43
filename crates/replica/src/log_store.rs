//! openraft's view of the log: writes go to the writer thread, reads come from the tail in memory, then from disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::frame::{ENTRY_MAX_BYTES, damaged};
use crate::tail::Tail;
use crate::types::{Entry, LogId, TypeConfig, Vote, encode};
use crate::writer::Job;

/// Bytes of entries handed to replication at once: one message to a peer.
const READ_MAX_BYTES: usize = 1 << 20;

/// Clones share one log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
    /// Held for moments, never over an await.
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry that is there, purged or not.
    first: Option<u64>,
    last: Option<LogId>,
    tail: Tail,
}

impl LogStore {
    pub fn open(folder: &Path, group: u32) -> io::Result<Self> {
        let (disk, found) = Disk::open(folder, group)?;
        let state = State {
            vote: found.vote,
            committed: found.committed,
            purged: found.purged,
            first: found.first,
            last: found.last,
            tail: Tail::default(),
        };
        Ok(Self { disk: Arc::new(disk), state: Arc::new(RwLock::new(state)) })
    }

    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Never written to: no vote, no entry.
    pub fn is_pristine(&self) -> bool {
        let state = self.state.read();
        state.vote.is_none() && state.last.is_none()
    }

    /// The last entry that was dropped because a snapshot holds it.
    pub fn purged(&self) -> Option<LogId> {
        self.state.read().purged
    }

    /// Index of an entry that should be there, if the log's start is missing.
    pub fn missing_start(&self) -> Option<u64> {
        let state = self.state.read();
        let bound = state.purged.map_or(0, |purged| purged.index + 1);
        state.first.filter(|first| *first > bound).map(|_| bound)
    }

    async fn wait(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, waited) = oneshot::channel();
        self.disk.submit(job(done))?;
        waited.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    /// `start..end`, but no more than about `max_bytes` (at least one entry). Purged entries are left out.
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut next, mut left, mut entries) = (start, max_bytes, Vec::new());
        while next < end && left > 0 {
            let tail_first = {
                let state = self.state.read();
                match state.tail.first_index() {
                    Some(first) if first <= next => {
                        entries.extend(state.tail.read(next, end, left));
                        return Ok(entries);
                    }
                    first => first.unwrap_or(u64::MAX),
                }
            };
            // What is not in the tail is on disk: only durable entries leave it. It may move on meanwhile: look again.
            let (found, bytes) = self.disk.read(next, end.min(tail_first), left)?;
            if found.is_empty() {
                next = self.skip_purged(next)?;
                // Purged meanwhile, and what comes after it does not follow on what was read before.
                entries.clear();
            }
            next += found.len() as u64;
            left = left.saturating_sub(bytes);
            entries.extend(found);
        }
        Ok(entries)
    }

    /// What is neither in the tail nor on disk must have been purged.
    fn skip_purged(&self, index: u64) -> io::Result<u64> {
        match self.state.read().purged {
            Some(purged) if purged.index >= index => Ok(purged.index + 1),
            _ => Err(damaged(format!("log entry {index} is missing"))),
        }
    }

    /// The part of the range that the log has.
    fn clamp(&self, start: u64, end: u64) -> (u64, u64) {
        let state = self.state.read();
        let first = state.purged.map_or(0, |purged| purged.index + 1).max(state.first.unwrap_or(0));
        let last = state.last.map_or(0, |last| last.index + 1);
        (start.max(first), end.min(last))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = self.clamp(start, end);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state.read().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (first, end) = self.clamp(start, end);
        let entries = self.read(first, end, READ_MAX_BYTES)?;
        // A follower would take what comes after purged entries for what comes next. With nothing to send, it is told
        // where the leader is.
        let next = entries.first().is_some_and(|entry| entry.log_id.index == start);
        Ok(if next { entries } else { Vec::new() })
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
        self.wait(|done| Job::Vote { vote: *vote, done }).await
    }

    /// Not waited for: after a crash, an older committed id is as good.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let changed = std::mem::replace(&mut self.state.write().committed, committed) != committed;
        if changed { self.disk.save_committed(committed) } else { Ok(()) }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded = entries.iter().map(encode_entry).collect::<io::Result<Vec<_>>>()?;
        let last = entries.last().map(|entry| entry.log_id);
        {
            let durable_end = self.disk.durable_end();
            let mut state = self.state.write();
            for (entry, (_, bytes)) in entries.into_iter().zip(&encoded) {
                state.first = state.first.or(Some(entry.log_id.index));
                state.last = Some(entry.log_id);
                state.tail.push(entry, bytes.len(), durable_end);
            }
        }
        self.disk.submit(Job::Append { entries: encoded, last, callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        {
            let mut state = self.state.write();
            let keep = last_log_id.map_or(0, |last| last.index + 1);
            state.tail.truncate_from(keep);
            state.last = state.last.min(last_log_id);
            state.first = state.first.filter(|first| *first < keep);
        }
        self.wait(|done| Job::TruncateAfter { keep: last_log_id, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut state = self.state.write();
            state.tail.purge_to(log_id.index);
            state.purged = state.purged.max(Some(log_id));
            // All of it is gone: the next append starts it anew.
            let gone = state.last.is_none_or(|last| last.index <= log_id.index);
            state.first = state.first.filter(|_| !gone);
            state.last = state.last.max(Some(log_id));
        }
        self.wait(|done| Job::Purge { log_id, done }).await
    }
}

fn encode_entry(entry: &Entry) -> io::Result<(u64, Vec<u8>)> {
    let bytes = encode(entry)?;
    if bytes.len() > ENTRY_MAX_BYTES {
        let kind = if matches!(entry.payload, EntryPayload::Normal(_)) { "batch" } else { "membership" };
        return Err(io::Error::other(format!("a {kind} of {} bytes is above the frame size", bytes.len())));
    }
    Ok((entry.log_id.index, bytes))
}
