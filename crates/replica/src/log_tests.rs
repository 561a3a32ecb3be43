//! The log against a vector; what damage on disk does to opening it; what sled makes of large frames.

use std::path::Path;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use proptest::prelude::*;
use quorate_ledger::{Command, TimestampMs};

use crate::log_store::LogStore;
use crate::types::{Batch, Entry, TypeConfig, encode, log_id};
use crate::unsynced;

fn entry(index: u64, bytes: usize) -> Entry {
    let command = Command::PutPolicy {
        expected_version: Some(index),
        rules: Vec::new(),
        document: "x".repeat(bytes),
        staged: None,
        by: String::new(),
        comment: String::new(),
    };
    let batch = Batch::new(TimestampMs(index), vec![command]).unwrap();
    Entry::new(log_id(index), EntryPayload::Normal(batch))
}

fn encoded(entries: &[Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| encode(entry).unwrap()).collect()
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (flushed, waited) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(flushed)).await.unwrap();
    waited.await.unwrap().unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    /// So many entries of so many bytes, in one append.
    Append(usize, usize),
    /// Two appends that may share a flush, then a truncation into the middle of them: nothing is waited for before.
    AppendTwiceAndTruncate(usize, usize),
    /// Keeps this share of what is there, in percent.
    Truncate(u64),
    Purge(u64),
    /// Perhaps after it could not be written.
    Reopen {
        unsynced: bool,
    },
    Read(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![10..200_usize, 20_000..60_000_usize];
    let step = prop_oneof![
        4 => (1..20_usize, bytes).prop_map(|(count, bytes)| Step::Append(count, bytes)),
        1 => (1..10_usize, 1..10_usize).prop_map(|(a, b)| Step::AppendTwiceAndTruncate(a, b)),
        2 => (0..100_u64).prop_map(Step::Truncate),
        2 => (0..100_u64).prop_map(Step::Purge),
        2 => any::<bool>().prop_map(|unsynced| Step::Reopen { unsynced }),
        2 => (0..100_u64, 0..100_u64).prop_map(|(a, b)| Step::Read(a.min(b), a.max(b))),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What the log should hold: the entry after the last purged one comes first.
#[derive(Default)]
struct Model {
    purged: u64,
    entries: Vec<Entry>,
}

impl Model {
    fn next(&self) -> u64 {
        self.purged + self.entries.len() as u64
    }

    fn at(&self, percent: u64) -> u64 {
        self.purged + self.entries.len() as u64 * percent / 100
    }

    fn make(&mut self, count: usize, bytes: usize) -> Vec<Entry> {
        let made: Vec<_> = (self.next()..).take(count).map(|index| entry(index, bytes)).collect();
        self.entries.extend(made.iter().cloned());
        made
    }

    fn slice(&self, start: u64, end: u64) -> &[Entry] {
        &self.entries[(start - self.purged) as usize..(end - self.purged) as usize]
    }
}

async fn run(steps: Vec<Step>, folder: &Path) {
    let mut log = LogStore::open(folder, 0).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(count, bytes) => append(&mut log, model.make(count, bytes)).await,
            Step::AppendTwiceAndTruncate(first, second) => {
                let keep = model.next() + first as u64 / 2;
                for entries in [model.make(first, 50), model.make(second, 50)] {
                    log.append(entries, IOFlushed::noop()).await.unwrap();
                }
                log.truncate_after(keep.checked_sub(1).map(log_id)).await.unwrap();
                model.entries.truncate((keep - model.purged) as usize);
            }
            Step::Truncate(percent) => {
                let keep = model.at(percent);
                log.truncate_after(keep.checked_sub(1).map(log_id)).await.unwrap();
                model.entries.truncate((keep - model.purged) as usize);
            }
            Step::Purge(percent) => {
                let bound = model.at(percent);
                if bound > model.purged {
                    log.purge(log_id(bound - 1)).await.unwrap();
                    model.entries.drain(..(bound - model.purged) as usize);
                    model.purged = bound;
                }
            }
            Step::Reopen { unsynced } => {
                drop(log);
                if unsynced {
                    unsynced::mark(folder);
                }
                log = LogStore::open(folder, 0).unwrap();
            }
            Step::Read(from, to) => {
                let (start, end) = (model.at(from), model.at(to));
                let part = log.limited_get_log_entries(start, end).await.unwrap();
                assert!(!part.is_empty() || start == end);
                assert_eq!(encoded(&part), encoded(&model.slice(start, end)[..part.len()]));
            }
        }
        assert_eq!(encoded(&log.try_get_log_entries(..).await.unwrap()), encoded(&model.entries));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, model.purged.checked_sub(1).map(log_id));
        assert_eq!(state.last_log_id, model.next().checked_sub(1).map(log_id));
        assert_eq!(log.disk().durable_end(), model.next());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_a_vector_also_over_restarts(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps, folder.path()));
    }
}

/// Writes three frames, lets `harm` change the tree, and returns what opening says.
async fn open_after(harm: impl FnOnce(&sled::Db, Vec<sled::IVec>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    for first in [0, 10, 20] {
        append(&mut log, (first..first + 10).map(|index| entry(index, 100)).collect()).await;
    }
    drop(log);
    let db = sled::Config::new().path(folder.path()).segment_size(8 << 20).open().unwrap();
    let frames: Vec<_> = db.iter().keys().map(Result::unwrap).filter(|key| key[4] == b'f').collect();
    assert_eq!(frames.len(), 3);
    harm(&db, frames);
    db.flush().unwrap();
    drop(db);
    LogStore::open(folder.path(), 0).unwrap_err().to_string()
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let flip = |at: usize| {
        open_after(move |db, keys| {
            let mut value = db.get(&keys[1]).unwrap().unwrap().to_vec();
            value[at] ^= 1;
            db.insert(&keys[1], value).unwrap();
        })
    };
    for at in [0, 5, 14, 16, 500] {
        assert_eq!(flip(at).await, "log frame at index 10: wrong checksum", "byte {at}");
    }
    let hole = open_after(|db, keys| drop(db.remove(&keys[1]).unwrap())).await;
    assert_eq!(hole, "log entry 10 is missing, the next frame is at index 20");
    let short = open_after(|db, keys| drop(db.insert(&keys[2], &b"short"[..]).unwrap())).await;
    assert_eq!(short, "log frame at index 20: it has only part of its head");
    let moved = open_after(|db, keys| {
        let value = db.get(&keys[0]).unwrap().unwrap();
        db.insert(&keys[1], value).unwrap();
    });
    assert_eq!(moved.await, "log frame at index 10: it is stored in the place of another");
    let vote = open_after(|db, _| drop(db.insert([0, 0, 0, 0, b'v'], &b"\xff\xff\xff"[..]).unwrap())).await;
    assert!(vote.starts_with("log key \"vote\": "), "{vote}");
}

/// sled takes a damaged end for a write that was cut off. What was acknowledged was not cut off.
#[tokio::test]
async fn an_acknowledged_end_that_sled_passes_over_is_missed() {
    let (folder, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    for first in [0, 10, 20] {
        append(&mut log, (first..first + 10).map(|index| entry(index, 100)).collect()).await;
    }
    // Not closed: a log that is has a summary, in which sled misses what is gone.
    for entry in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
        }
    }
    let db = killed.path().join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 100] ^= 1;
    std::fs::write(&db, bytes).unwrap();
    for _ in 0..2 {
        let error = LogStore::open(killed.path(), 0).unwrap_err().to_string();
        assert_eq!(error, "log entry 20 is missing; the log had reached entry 29 of term 1");
    }
    // A folder of an earlier release has no mark; it gets one.
    std::fs::remove_file(killed.path().join("end")).unwrap();
    assert_eq!(LogStore::open(killed.path(), 0).unwrap().disk().durable_end(), 20);
    assert!(killed.path().join("end").exists());
}

#[tokio::test]
async fn large_frames_stay_in_the_file_that_is_synced_and_purging_gives_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    let mut most = 0;
    for index in 0..1_500 {
        append(&mut log, vec![entry(index, 90_000)]).await;
        if index % 50 == 49 {
            let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().count();
            assert_eq!(blobs, 0, "sled keeps {blobs} values in files that it never syncs");
            log.purge(log_id(index - 20)).await.unwrap();
            most = most.max(log.disk().size_on_disk());
        }
    }
    // 70 entries of 90 kB are alive at most, of 135 MB written.
    assert!(most < 100 << 20, "the log grew to {most} bytes");
}

#[tokio::test]
async fn purged_frames_go_a_few_with_each_flush_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    for index in 0..60 {
        append(&mut log, vec![entry(index, 10)]).await;
    }
    log.purge(log_id(49)).await.unwrap();
    let on_disk = |log: &LogStore, index| !log.disk().read(index, index + 1, 1).unwrap().0.is_empty();
    assert!(!on_disk(&log, 0), "the first of them go at once");
    assert!(on_disk(&log, 45), "all at once would hold up the log");
    assert!(log.limited_get_log_entries(45, 46).await.unwrap().is_empty(), "what is there is not shown");
    drop(log);
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    for index in 60..65 {
        append(&mut log, vec![entry(index, 10)]).await;
    }
    assert!(!on_disk(&log, 48));
    assert!(on_disk(&log, 50), "it is not purged");
}

#[tokio::test]
async fn replication_gets_what_it_asks_for_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), 0).unwrap();
    for index in 0..20 {
        append(&mut log, vec![entry(index, 10)]).await;
    }
    log.purge(log_id(9)).await.unwrap();
    let indices = |entries: Vec<Entry>| entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>();
    // A follower would put entry 10 where it lacks entry 5.
    assert_eq!(indices(log.limited_get_log_entries(5, 12).await.unwrap()), Vec::<u64>::new());
    assert_eq!(indices(log.limited_get_log_entries(10, 12).await.unwrap()), [10, 11]);
    assert_eq!(indices(log.try_get_log_entries(5..12).await.unwrap()), [10, 11]);
}
