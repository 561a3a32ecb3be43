//! Which beginnings of a prompt the simulated provider has cached: what was marked before is read, the rest written.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use parking_lot::Mutex;

const ENTRIES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct PromptCache {
    entries: Mutex<VecDeque<u64>>,
}

impl PromptCache {
    /// Tokens read from and written to the cache.
    pub fn look_up(&self, marked: Option<&(String, u64)>) -> (u64, u64) {
        let Some((said, tokens)) = marked else { return (0, 0) };
        let mut hasher = DefaultHasher::new();
        said.hash(&mut hasher);
        let key = hasher.finish();
        let mut entries = self.entries.lock();
        if entries.contains(&key) {
            return (*tokens, 0);
        }
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(key);
        (0, *tokens)
    }
}
