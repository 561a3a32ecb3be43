//! Which beginnings of a prompt the simulated provider has cached: what was marked before is read, the rest written.

use std::collections::VecDeque;

use parking_lot::Mutex;

const ENTRIES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct PromptCache {
    entries: Mutex<VecDeque<u64>>,
}

impl PromptCache {
    /// Tokens read from and written to the cache, for the input up to each of some marks.
    pub fn look_up(&self, marks: &[(u64, u64)]) -> (u64, u64) {
        let Some((_, all)) = marks.last() else { return (0, 0) };
        let mut entries = self.entries.lock();
        let known =
            marks.iter().rev().find(|(key, _)| entries.contains(key)).map_or(0, |(_, tokens)| *tokens);
        for (key, _) in marks {
            if !entries.contains(key) {
                if entries.len() == ENTRIES_MAX {
                    entries.pop_front();
                }
                entries.push_back(*key);
            }
        }
        (known, all.saturating_sub(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_beginning_is_read_and_the_rest_written() {
        let cache = PromptCache::default();
        assert_eq!(cache.look_up(&[]), (0, 0));
        assert_eq!(cache.look_up(&[(1, 10)]), (0, 10));
        assert_eq!(cache.look_up(&[(1, 10), (2, 25)]), (10, 15));
        assert_eq!(cache.look_up(&[(1, 10), (2, 25)]), (25, 0));
        assert_eq!(cache.look_up(&[(3, 7)]), (0, 7));
    }
}
