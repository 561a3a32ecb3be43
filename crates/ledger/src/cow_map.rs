//! An ordered map in shared chunks: a clone costs one pointer per chunk, and a write after it copies one chunk.
//!
//! This is what makes a snapshot of millions of records cheap. It is not a general container: only what the ledger needs.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq};

/// Entries of a full chunk. Larger chunks make clones cheaper and the first write after a clone dearer.
const CHUNK_MAX: usize = 256;

type Chunk<K, V> = BTreeMap<K, V>;

/// Chunks by a key that is not above any of theirs and above all of the chunk before.
#[derive(Debug, Clone)]
pub struct CowMap<K, V> {
    chunks: BTreeMap<K, Arc<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        self.chunks.range((Bound::Unbounded, Bound::Included(key))).next_back()?.1.get_key_value(key)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Copies the chunk if it is shared; nothing if the key is absent.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.range_mut((Bound::Unbounded, Bound::Included(key))).next_back()?.1;
        if !chunk.contains_key(key) {
            return None;
        }
        Arc::make_mut(chunk).get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some((chunk_key, chunk)) = self.chunks.range_mut(..=&key).next_back() else {
            return self.insert_before_all(key, value);
        };
        let old = Arc::make_mut(chunk).insert(key.clone(), value);
        if old.is_none() {
            self.len += 1;
            if chunk.len() > CHUNK_MAX {
                let chunk_key = chunk_key.clone();
                self.split(&chunk_key, &key);
            }
        }
        old
    }

    /// A key below all others joins the first chunk under a new name.
    fn insert_before_all(&mut self, key: K, value: V) -> Option<V> {
        let mut chunk = match self.chunks.first_entry() {
            Some(first) if first.get().len() < CHUNK_MAX => first.remove(),
            _ => Arc::default(),
        };
        Arc::make_mut(&mut chunk).insert(key.clone(), value);
        self.chunks.insert(key, chunk);
        self.len += 1;
        None
    }

    /// Halves a chunk; but where keys arrive in ascending order, leaves it full and starts the next.
    fn split(&mut self, chunk_key: &K, inserted: &K) {
        let Some(chunk) = self.chunks.get_mut(chunk_key) else { return };
        let chunk = Arc::make_mut(chunk);
        let ascending = chunk.last_key_value().is_some_and(|(last, _)| last == inserted);
        let at = if ascending { Some(inserted.clone()) } else { chunk.keys().nth(CHUNK_MAX / 2).cloned() };
        if let Some(at) = at {
            let upper = chunk.split_off(&at);
            self.chunks.insert(at, Arc::new(upper));
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (chunk_key, chunk) =
            self.chunks.range_mut((Bound::Unbounded, Bound::Included(key))).next_back()?;
        if !chunk.contains_key(key) {
            return None;
        }
        let value = Arc::make_mut(chunk).remove(key)?;
        self.len -= 1;
        if chunk.is_empty() {
            let chunk_key = chunk_key.clone();
            self.chunks.remove(chunk_key.borrow());
        }
        Some(value)
    }

    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.chunks.first_key_value()?.1.first_key_value()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.values().flat_map(|chunk| chunk.iter())
    }

    /// Entries above `after`.
    pub fn iter_after(&self, after: K) -> impl Iterator<Item = (&K, &V)> {
        let first = self.chunks.range(..=&after).next_back().map_or(&after, |(key, _)| key);
        let chunks = self.chunks.range(first..);
        chunks.flat_map(|(_, chunk)| chunk.iter()).skip_while(move |(key, _)| **key <= after)
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for CowMap<K, V> {}

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
        let mut map = Self::default();
        for (key, value) in Vec::<(K, V)>::deserialize(deserializer)? {
            map.insert(key, value);
        }
        Ok(map)
    }
}
