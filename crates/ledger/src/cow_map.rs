//! An ordered map in shared chunks: a clone costs one pointer per chunk, and a write after it copies one chunk.
//!
//! This is what makes a snapshot of millions of records cheap. It is not a general container: only what the ledger needs.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Memory};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq};

/// Entries of a full chunk. Larger chunks make clones cheaper and the first write after a clone dearer.
const CHUNK_MAX: usize = 256;

/// Sorted. A deque, because records come at one end and are forgotten at the other.
type Chunk<K, V> = VecDeque<(K, V)>;

/// Chunks by a key that is not above any of theirs and above all of the chunk before; none is empty.
#[derive(Debug, Clone)]
pub(crate) struct CowMap<K, V> {
    chunks: VecDeque<(K, Arc<Chunk<K, V>>)>,
    len: usize,
    found: LastFound,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), len: 0, found: LastFound::default() }
    }
}

/// Where a key was found last, chunk and place in it: a command asks for the same tenant and the same account several
/// times. A guess, that is looked at before the search and may be wrong; it says nothing about the content.
#[derive(Debug, Default)]
struct LastFound(AtomicU64);

impl LastFound {
    fn get(&self) -> (usize, usize) {
        let both = self.0.load(Memory::Relaxed);
        ((both >> 16) as usize, (both & 0xffff) as usize)
    }

    fn set(&self, (index, at): (usize, usize)) {
        self.0.store((index as u64) << 16 | at as u64, Memory::Relaxed);
    }
}

impl Clone for LastFound {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Memory::Relaxed)))
    }
}

/// Most keys begin with a time: what is new stands at the end, or behind it.
fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(chunk: &Chunk<K, V>, key: &Q) -> Result<usize, usize> {
    match chunk.back().map(|(last, _)| last.borrow().cmp(key)) {
        Some(Ordering::Greater) => chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)),
        Some(Ordering::Equal) => Ok(chunk.len() - 1),
        Some(Ordering::Less) | None => Err(chunk.len()),
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk where `key` is, or would be inserted; `None` if it is below all.
    fn locate<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        match self.chunks.back() {
            // As in `find`.
            Some((first, _)) if first.borrow() <= key => Some(self.chunks.len() - 1),
            _ => self.chunks.partition_point(|(first, _)| first.borrow() <= key).checked_sub(1),
        }
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (index, at) = self.place(key)?;
        let (key, value) = self.at(index, at)?;
        Some((key, value))
    }

    fn at(&self, index: usize, at: usize) -> Option<&(K, V)> {
        self.chunks.get(index)?.1.get(at)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).is_some()
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value_mut(key).map(|(_, value)| value)
    }

    /// Copies the chunk if it is shared; nothing if the key is absent.
    pub fn get_key_value_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(&K, &mut V)>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key)?;
        self.at_mut(place)
    }

    /// The same, with what `make` gives for this key where it is absent.
    pub fn get_or_insert_with<Q: Ord + ?Sized>(
        &mut self,
        key: &Q,
        make: impl FnOnce() -> (K, V),
    ) -> Option<(&K, &mut V)>
    where
        K: Borrow<Q>,
    {
        let place = match self.place(key) {
            Some(place) => place,
            None => {
                let (new, value) = make();
                self.insert(new, value);
                self.place(key)?
            }
        };
        self.at_mut(place)
    }

    /// Its chunk, and where it is in that.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let guess = self.found.get();
        if self.at(guess.0, guess.1).is_some_and(|(found, _)| found.borrow() == key) {
            return Some(guess);
        }
        let index = self.locate(key)?;
        let (_, chunk) = self.chunks.get(index)?;
        let place = (index, find(chunk, key).ok()?);
        self.found.set(place);
        Some(place)
    }

    fn at_mut(&mut self, (index, at): (usize, usize)) -> Option<(&K, &mut V)> {
        let (_, chunk) = self.chunks.get_mut(index)?;
        let (key, value) = Arc::make_mut(chunk).get_mut(at)?;
        Some((key, value))
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(index) = self.locate(&key) else {
            self.insert_below_all(key, value);
            return None;
        };
        let chunk = Arc::make_mut(&mut self.chunks[index].1);
        match find(chunk, &key) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) if chunk.len() < CHUNK_MAX => chunk.insert(at, (key, value)),
            // Where keys arrive in ascending order, chunks stay full.
            Err(at) if at == chunk.len() => self.insert_chunk(index + 1, single(key, value)),
            Err(at) => {
                let mut upper = chunk.split_off(CHUNK_MAX / 2);
                chunk.shrink_to(CHUNK_MAX / 2);
                match at.checked_sub(chunk.len()) {
                    Some(at) if at > 0 => upper.insert(at, (key, value)),
                    _ => chunk.insert(at, (key, value)),
                }
                self.insert_chunk(index + 1, upper);
            }
        }
        self.len += 1;
        None
    }

    /// A key below all others joins the first chunk under a new name.
    fn insert_below_all(&mut self, key: K, value: V) {
        match self.chunks.front_mut() {
            Some((first, chunk)) if chunk.len() < CHUNK_MAX => {
                first.clone_from(&key);
                Arc::make_mut(chunk).push_front((key, value));
            }
            _ => self.insert_chunk(0, single(key, value)),
        }
        self.len += 1;
    }

    fn insert_chunk(&mut self, index: usize, chunk: Chunk<K, V>) {
        let Some(first) = chunk.front().map(|(key, _)| key.clone()) else { return };
        if self.chunks.is_empty() {
            // Most maps of most tenants hold very little.
            self.chunks.reserve_exact(1);
        }
        self.chunks.insert(index, (first, Arc::new(chunk)));
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (index, at) = self.place(key)?;
        let chunk = Arc::make_mut(&mut self.chunks[index].1);
        let (_, value) = chunk.remove(at)?;
        self.len -= 1;
        let (left, room) = (chunk.len(), chunk.capacity());
        if left == 0 {
            self.chunks.remove(index);
            if self.chunks.is_empty() {
                self.chunks = VecDeque::new();
            }
        } else if room > 8 && left * 4 < room {
            chunk.shrink_to(left * 2);
        }
        Some(value)
    }

    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.iter_from(0, 0)
    }

    /// Entries above `after`.
    pub fn iter_after<Q: Ord + ?Sized>(&self, after: &Q) -> impl Iterator<Item = (&K, &V)> + use<'_, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let Some(index) = self.locate(after) else { return self.iter_from(0, 0) };
        let at = match find(&self.chunks[index].1, after) {
            Ok(at) => at + 1,
            Err(at) => at,
        };
        self.iter_from(index, at)
    }

    fn iter_from(&self, index: usize, at: usize) -> Entries<'_, K, V> {
        Entries { map: self, index, at }
    }
}

fn single<K, V>(key: K, value: V) -> Chunk<K, V> {
    let mut chunk = VecDeque::with_capacity(1);
    chunk.push_back((key, value));
    chunk
}

/// Entries in order, from a place on.
struct Entries<'a, K, V> {
    map: &'a CowMap<K, V>,
    index: usize,
    at: usize,
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (_, chunk) = self.map.chunks.get(self.index)?;
            if let Some((key, value)) = chunk.get(self.at) {
                self.at += 1;
                return Some((key, value));
            }
            self.index += 1;
            self.at = 0;
        }
    }
}

/// By content: how it is cut into chunks does not count.
impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for CowMap<K, V> {}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Hash for CowMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len);
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for CowMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.len))?;
        for entry in self.iter() {
            sequence.serialize_element(&entry)?;
        }
        sequence.end()
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Deserialize<'de> for CowMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntryVisitor(PhantomData))
    }
}

/// Takes entry by entry: a snapshot of millions of records is not held twice.
struct EntryVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Visitor<'de>
    for EntryVisitor<K, V>
{
    type Value = CowMap<K, V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = CowMap::default();
        while let Some((key, value)) = entries.next_element()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
#[path = "cow_map_tests.rs"]
mod tests;
