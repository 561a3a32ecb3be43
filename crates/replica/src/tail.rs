//! The newest entries in memory: what replication and apply read, nearly always.

use std::collections::VecDeque;

use crate::types::Entry;

/// Bytes kept, as encoded. Entries that are not on disk yet stay beyond it.
const MAX_BYTES: usize = 8 << 20;
const MAX_ENTRIES: usize = 65_536;

/// Consecutive entries up to the last one.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Tail {
    /// `None`: empty.
    pub fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    /// Adds an entry of `bytes`, and drops old ones below `durable_end`: the others are nowhere else yet.
    pub fn push(&mut self, entry: Entry, bytes: usize, durable_end: u64) {
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        let full = |tail: &Self| tail.bytes > MAX_BYTES || tail.entries.len() > MAX_ENTRIES;
        while full(self) && self.first_index().is_some_and(|first| first < durable_end) {
            self.pop_front();
        }
    }

    /// Entries `start..end`, at least one if there is one, about `max_bytes` at most.
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = |(entry, size): &&(Entry, usize)| {
            let take = entry.log_id.index < end && (bytes == 0 || bytes + size <= max_bytes);
            bytes += size;
            take
        };
        self.entries.iter().skip(skip).take_while(within).map(|(entry, _)| entry.clone()).collect()
    }

    /// Drops the entries from `index` on.
    pub fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|(last, _)| last.log_id.index >= index) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
    }

    /// Drops the entries up to and with `index`.
    pub fn purge_to(&mut self, index: u64) {
        while self.first_index().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }
}
