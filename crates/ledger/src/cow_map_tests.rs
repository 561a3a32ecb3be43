//! `CowMap` against `BTreeMap`: the same answers, a clone that does not move, and chunks within their bounds.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{CHUNK_MAX, CowMap};

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u32),
    /// Ascending keys from here on, as ids come.
    InsertRun(u16, u16),
    Remove(u16),
    /// As the oldest records are forgotten.
    RemoveFirst(u16),
    Change(u16, u32),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_000_u16, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        2 => (0..2_000_u16, 1..700_u16).prop_map(|(key, length)| Step::InsertRun(key, length)),
        4 => (0..2_700_u16).prop_map(Step::Remove),
        1 => (1..600_u16).prop_map(Step::RemoveFirst),
        3 => (0..2_000_u16, any::<u32>()).prop_map(|(key, value)| Step::Change(key, value)),
        1 => Just(Step::Clone),
    ]
}

fn take(step: &Step, map: &mut CowMap<u16, u32>, model: &mut BTreeMap<u16, u32>) {
    match *step {
        Step::Insert(key, value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
        Step::InsertRun(from, length) => {
            for key in from..from + length {
                assert_eq!(map.insert(key, 7), model.insert(key, 7));
            }
        }
        Step::Remove(key) => assert_eq!(map.remove(&key), model.remove(&key)),
        Step::RemoveFirst(count) => {
            for _ in 0..count {
                let first = model.pop_first();
                assert_eq!(map.first_key_value().map(|(key, value)| (*key, *value)), first);
                if let Some((key, _)) = first {
                    map.remove(&key);
                }
            }
        }
        Step::Change(key, value) => {
            let (found, expected) = (map.get_mut(&key), model.get_mut(&key));
            assert_eq!(found, expected);
            if let (Some(found), Some(expected)) = (found, expected) {
                (*found, *expected) = (value, value);
            }
        }
        Step::Clone => {}
    }
}

fn compare(map: &CowMap<u16, u32>, model: &BTreeMap<u16, u32>) {
    assert_eq!(map.len(), model.len());
    assert_eq!(map.is_empty(), model.is_empty());
    assert!(map.iter().eq(model.iter()));
    for after in [0, 1, 255, 999, 2_500] {
        assert!(map.iter_after(&after).eq(model.range(after + 1..)), "after {after}");
        assert_eq!(map.get(&after), model.get(&after));
    }
    for (first, chunk) in &map.chunks {
        assert!(!chunk.is_empty() && chunk.len() <= CHUNK_MAX, "a chunk of {}", chunk.len());
        assert!(chunk.front().is_some_and(|(key, _)| first <= key));
        assert!(chunk.capacity() <= 8.max(4 * chunk.len()), "{} in {}", chunk.len(), chunk.capacity());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_btree_map(steps in vec(step(), 1..60)) {
        let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
        let mut clones: Vec<(CowMap<u16, u32>, BTreeMap<u16, u32>)> = Vec::new();
        for step in &steps {
            take(step, &mut map, &mut model);
            compare(&map, &model);
            if matches!(step, Step::Clone) {
                clones.push((map.clone(), model.clone()));
            }
        }
        for (map, model) in &clones {
            compare(map, model);
        }
    }
}

#[test]
fn ascending_keys_leave_full_chunks() {
    let mut map = CowMap::default();
    for key in 0..10 * CHUNK_MAX {
        map.insert(key, ());
    }
    assert_eq!(map.chunks.len(), 10);
}

#[test]
fn a_write_after_a_clone_copies_one_chunk() {
    let mut map = CowMap::default();
    for key in 0..10 * CHUNK_MAX {
        map.insert(key, key);
    }
    let clone = map.clone();
    assert_eq!(map.insert(3 * CHUNK_MAX, 0), Some(3 * CHUNK_MAX));
    let shared = |(own, other): (&(_, std::sync::Arc<_>), &(_, std::sync::Arc<_>))| {
        std::sync::Arc::ptr_eq(&own.1, &other.1)
    };
    assert_eq!(map.chunks.iter().zip(&clone.chunks).filter(|pair| shared(*pair)).count(), 9);
    assert_eq!(clone.get(&(3 * CHUNK_MAX)), Some(&(3 * CHUNK_MAX)));
}
