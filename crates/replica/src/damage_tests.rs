//! Every file of a data folder, with a byte flipped or its end cut off: opening it and checking it either say that it is
//! damaged, or find all that was there.
//!
//! `QUORATE_DAMAGE_CASES` sets how often each is done to each file (12 without it).

use std::fs;
use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;
use openraft::{BasicNode, EntryPayload};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use quorate_ledger::{Amount, BudgetRule, Charge, Command, Ledger, ReservationId, TimestampMs, Unit, Window};

use crate::config::ReplicaConfig;
use crate::disk::{Keys, open_db};
use crate::identity::{self, Identity};
use crate::inspect;
use crate::log_store::LogStore;
use crate::open::{GROUP, open_folder};
use crate::snapshot::SnapshotFolder;
use crate::standing::{Standing, StandingFile};
use crate::types::{Batch, Entry, LogId, Membership, SnapshotMeta, TypeConfig, Vote, encode};

const CLUSTER: &str = "test";
const ENTRIES: u64 = 60;
const SNAPSHOT_AT: u64 = 29;
const PURGED: u64 = 19;

fn log_id(index: u64) -> LogId {
    LogId::new(openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(3, 1), index)
}

fn command(index: u64) -> Command {
    if index == 0 {
        let limit = Amount::from_units(1_000_000).unwrap();
        let rules = vec![BudgetRule::new("all", Unit::Tokens, limit, Window::Lifetime)];
        let (document, by, comment) = ("x".repeat(2_000), String::new(), String::new());
        return Command::PutPolicy { expected_version: None, rules, document, staged: None, by, comment };
    }
    let amount = Amount::from_units(index).unwrap();
    let charge = Charge { budget: "all".into(), subject: "alice".into(), amount, at_least: amount };
    let id = ReservationId::from_u128((u128::from(1_000 + index) << 80) | (7 << 76) | (2 << 62)).unwrap();
    Command::Reserve { tenant: "acme".into(), id, charges: vec![charge], ttl_ms: 86_400_000, wait: false }
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    let batch = |index| Batch::new(TimestampMs(1_000 + index), vec![command(index)]).unwrap();
    range.map(|index| Entry::new(log_id(index), EntryPayload::Normal(batch(index)))).collect()
}

fn ledger_at(index: u64) -> Ledger {
    let mut ledger = Ledger::default();
    (0..=index).for_each(|at| drop(ledger.apply(TimestampMs(1_000 + at), &command(at))));
    ledger
}

/// What a node leaves that was a member for a while and then stopped; and in `killed` what it leaves when it is killed:
/// sled sums up its file when it is closed, and only then.
async fn make(folder: &Path, killed: &Path) {
    fs::create_dir_all(folder).unwrap();
    drop(identity::lock(folder).unwrap());
    let mut log = LogStore::open(&folder.join("log"), GROUP).unwrap();
    for first in (0..ENTRIES).step_by(5) {
        let (flushed, waited) = TypeConfig::oneshot();
        log.append(entries(first..first + 5), IOFlushed::signal(flushed)).await.unwrap();
        waited.await.unwrap().unwrap();
        if first == 10 {
            log.save_vote(&Vote::new(3, 1)).await.unwrap();
        }
    }
    let nodes = std::collections::BTreeMap::from([(1, BasicNode::new("127.0.0.1:1"))]);
    let membership = openraft::Membership::new(vec![[1].into()], nodes).unwrap();
    let last_membership = Membership::new(Some(log_id(0)), membership);
    let meta = SnapshotMeta { last_log_id: Some(log_id(SNAPSHOT_AT)), last_membership };
    let snapshots = SnapshotFolder::open(folder.join("snapshots")).unwrap();
    snapshots.write(&meta, &ledger_at(SNAPSHOT_AT)).unwrap();
    log.purge(log_id(PURGED)).await.unwrap();
    log.save_committed(Some(log_id(ENTRIES - 3))).await.unwrap();
    StandingFile::open(folder).unwrap().set(Standing::Member).unwrap();
    Identity::create(folder, CLUSTER, 1).unwrap();
    // After one more flush nothing waits.
    log.save_vote(&Vote::new(3, 1)).await.unwrap();
    copy(folder, killed);
}

/// What is served and promised by a node that opens this folder; an error says why it does not.
async fn open(folder: &Path) -> Result<(), String> {
    let opened =
        open_folder(&ReplicaConfig::new(CLUSTER, 1, folder)).await.map_err(|error| error.to_string())?;
    let mut log = opened.log;
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 1)), "a vote is forgotten");
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(ENTRIES - 1)), "acknowledged entries are gone");
    let applied = opened.state_machine.applied().read().clone();
    assert_eq!(applied.last, Some(log_id(SNAPSHOT_AT)));
    assert_eq!(applied.ledger, ledger_at(SNAPSHOT_AT));
    let read = log.try_get_log_entries(SNAPSHOT_AT + 1..ENTRIES).await.map_err(|error| error.to_string())?;
    let encoded = |entries: &[Entry]| entries.iter().map(|entry| encode(entry).unwrap()).collect::<Vec<_>>();
    assert_eq!(encoded(&read), encoded(&entries(SNAPSHOT_AT + 1..ENTRIES)), "other entries");
    assert_eq!(opened.standing.get(), Standing::Member);
    Ok(())
}

fn check(folder: &Path) -> Result<(), String> {
    let (report, content) = inspect::read(folder).map_err(|error| error.to_string())?;
    if let Some(damage) = report.damage.first() {
        return Err(damage.to_string());
    }
    assert!(report.is_sound(), "{report:?}");
    let content = content.unwrap();
    assert_eq!(content.log_id, log_id(ENTRIES - 1));
    assert_eq!(content.ledger, ledger_at(ENTRIES - 1));
    assert_eq!((report.cluster.as_str(), report.vote_term, report.standing.as_str()), (CLUSTER, 3, "member"));
    Ok(())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    let mut found = Vec::new();
    files(from, &mut found);
    for file in found {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Harm {
    /// A bit of the byte at this share of what is used of the file.
    Flip(f64, u8),
    /// So much is left.
    Cut(f64),
}

fn harm(path: &Path, harm: &Harm) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = |share: f64| ((used as f64) * share) as usize;
    match harm {
        Harm::Flip(share, bit) if used > 0 => bytes[at(*share)] ^= 1 << bit,
        Harm::Flip(..) => {}
        Harm::Cut(share) => bytes.truncate(at(*share)),
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_and_no_cut_end_goes_unnoticed() {
    let (stopped, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(stopped.path(), killed.path()).await;
    let seed = std::env::var("QUORATE_DAMAGE_SEED").map_or(0, |seed| seed.parse().unwrap());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    for whole in [stopped.path(), killed.path()] {
        // On copies: opening changes it.
        let folder = tempfile::tempdir().unwrap();
        copy(whole, folder.path());
        check(folder.path()).unwrap();
        open(folder.path()).await.unwrap();
        harm_all_of(whole, &mut runner).await;
    }
}

async fn harm_all_of(whole: &Path, runner: &mut TestRunner) {
    let cases: usize = std::env::var("QUORATE_DAMAGE_CASES").map_or(12, |cases| cases.parse().unwrap());
    let mut found = Vec::new();
    files(whole, &mut found);
    let names: Vec<_> = found.iter().map(|file| file.strip_prefix(whole).unwrap().to_owned()).collect();
    for name in ["identity", "standing", "log/db", "log/vote", "log/end"] {
        assert!(names.contains(&PathBuf::from(name)), "{name} is not among {names:?}");
    }
    let harms = prop_oneof![
        2 => (0.0..1.0_f64, 0..8_u8).prop_map(|(share, bit)| Harm::Flip(share, bit)),
        1 => (0.9..1.0_f64, 0..8_u8).prop_map(|(share, bit)| Harm::Flip(share, bit)),
        1 => (0.0..1.0_f64).prop_map(Harm::Cut),
        1 => (0.99..1.0_f64).prop_map(Harm::Cut),
    ];
    let (mut failures, mut noticed) = (Vec::new(), 0);
    for name in names.iter().filter(|name| *name != Path::new("lock")) {
        for _ in 0..cases {
            let harmed = harms.new_tree(runner).unwrap().current();
            let folder = tempfile::tempdir().unwrap();
            copy(whole, folder.path());
            harm(&folder.path().join(name), &harmed);
            let path = folder.path().to_owned();
            let checked = std::panic::catch_unwind(|| check(&path));
            let opened = tokio::spawn(async move { open(&path).await }).await;
            for (how, outcome) in [("check", checked.map_err(|_| ())), ("open", opened.map_err(|_| ()))] {
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) if how == "check" || why.contains("is damaged: ") => noticed += 1,
                    Ok(Err(why)) => {
                        failures.push(format!("{how} after {harmed:?} of {}: {why}", name.display()))
                    }
                    Err(()) => failures.push(format!("{how} after {harmed:?} of {}", name.display())),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(noticed > cases, "only {noticed} of {} were noticed", 2 * cases * names.len());
}

#[tokio::test]
async fn a_log_that_a_node_would_not_open_is_not_called_sound() {
    let keys = Keys { group: GROUP };
    type Change = fn(&sled::Db, Keys);
    let changes: [(&str, Change); 2] = [
        ("log entry 20 is missing", |db, keys| drop(db.remove(keys.frame(20)).unwrap().unwrap())),
        ("the log starts at index 35", |db, keys| {
            drop(db.insert(keys.purged(), encode(&log_id(34)).unwrap()).unwrap());
        }),
    ];
    for (said, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
        make(&whole, &killed).await;
        let db = open_db(&killed.join("log")).unwrap();
        change(&db, keys);
        db.flush().unwrap();
        drop(db);
        let checked = check(&killed).unwrap_err();
        assert!(checked.contains(said), "{checked}");
        let opened = open(&killed).await.unwrap_err();
        assert!(opened.contains(said), "{opened}");
    }
}

#[tokio::test]
async fn a_folder_of_another_release_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    make(&whole, &killed).await;
    let identity = Identity::of(&whole).unwrap().unwrap();
    let later = Identity { format: identity::FORMAT + 1, ..identity };
    crate::durable_file::write(&killed.join("identity"), &later).unwrap();
    for error in [inspect::read(&killed).map(drop).unwrap_err().to_string(), open(&killed).await.unwrap_err()]
    {
        assert!(error.contains("use the release that wrote it"), "{error}");
    }
}
