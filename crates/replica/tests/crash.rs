//! The process is killed, its disk is full, its folder is damaged: nothing that was acknowledged is lost in silence.
//!
//! `QUORATE_KILL_ROUNDS` sets the number of kills (5 without it). The tests run themselves again as a child process.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::{Cluster, assert_holds, new_id, policy, reserve};
use quorate_ledger::{Ledger, ReservationId};
use quorate_replica::{OpenError, ProposeError, Replica};

const FOLDER: &str = "QUORATE_TEST_FOLDER";
/// At random in this many milliseconds after the first acknowledgement.
const KILL_WITHIN_MS: u64 = 400;

/// One node, its folder not of this process's making.
async fn open_in(folder: &Path) -> Cluster {
    let mut cluster = Cluster::new(1).await;
    cluster.snapshot_every = 200;
    cluster.fixed_folder = Some(folder.to_owned());
    cluster.start(0).await.unwrap();
    cluster
}

async fn look(folder: &Path) -> Ledger {
    let mut cluster = open_in(folder).await;
    let ledger = cluster.settle().await;
    cluster.stop_all().await;
    ledger
}

/// Says what was acknowledged, line by line, until it is killed or cannot go on.
async fn child(folder: &Path, tasks: usize, batch: usize) {
    let cluster = open_in(folder).await;
    cluster.apply(vec![policy()]).await;
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        work.spawn(propose_for_ever(cluster.node(0).replica.clone(), batch));
    }
    let stopped = work.join_next().await.unwrap().unwrap();
    say(&format!("stopped {stopped}"));
    let status = cluster.node(0).wait("the end", |status| status.fatal.is_some()).await;
    say(&format!("fatal {}", status.fatal.unwrap()));
}

async fn propose_for_ever(replica: Replica, batch: usize) -> ProposeError {
    loop {
        let ids: Vec<_> = (0..batch).map(|_| new_id()).collect();
        match replica.propose(ids.iter().map(|id| reserve(*id)).collect()).await {
            Ok(_) => ids.iter().for_each(|id| say(&format!("ack {}", id.as_u128()))),
            Err(error) => return error,
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// This very test, in a process of its own.
fn spawn(mut process: Process, test: &str, folder: &Path) -> (Child, mpsc::Receiver<String>) {
    process.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    let mut child = process.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    (child, lines)
}

fn acknowledged(line: &str) -> Option<ReservationId> {
    // The name of the test may stand before the first line.
    let number = line.rsplit_once("ack ")?.1;
    ReservationId::from_u128(number.parse().ok()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_operations_survive_kill_9() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return child(Path::new(&folder), 8, 4).await;
    }
    let rounds: u64 = std::env::var("QUORATE_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for round in 0..rounds {
        let process = Process::new(std::env::current_exe().unwrap());
        let (mut child, lines) = spawn(process, "acknowledged_operations_survive_kill_9", folder.path());
        let before = ids.len();
        ids.push(lines.iter().find_map(|line| acknowledged(&line)).expect("the child acknowledged nothing"));
        std::thread::sleep(Duration::from_millis(random_ms()));
        child.kill().unwrap();
        child.wait().unwrap();
        ids.extend(lines.iter().filter_map(|line| acknowledged(&line)));
        let ledger = look(folder.path()).await;
        assert_holds(&ledger, &ids);
        println!("round {round}: {} acknowledged, {} in all", ids.len() - before, ids.len());
    }
}

/// From the random part of an id.
fn random_ms() -> u64 {
    u64::try_from(new_id().as_u128() % u128::from(KILL_WITHIN_MS)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_node_and_loses_nothing() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return child(Path::new(&folder), 4, 300).await;
    }
    let folder = tempfile::tempdir().unwrap();
    // A limit on the size of files: writing beyond it fails, as on a full disk. In blocks of 512 bytes.
    let mut process = Process::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 81920; exec \"$0\" \"$@\"";
    process.args(["-c", limited]).arg(std::env::current_exe().unwrap());
    let (mut child, lines) = spawn(process, "a_full_disk_stops_the_node_and_loses_nothing", folder.path());
    let (mut ids, mut fatal) = (Vec::new(), String::new());
    for line in lines {
        ids.extend(acknowledged(&line));
        if let Some((_, why)) = line.split_once("fatal ") {
            fatal = why.to_owned();
        }
    }
    child.wait().unwrap();
    println!("{} acknowledged, then: {fatal}", ids.len());
    assert!(fatal.contains("free space"), "{fatal}");
    assert!(ids.len() > 1_000, "only {} acknowledged", ids.len());
    assert_holds(&look(folder.path()).await, &ids);
}

async fn one_node_with_a_snapshot() -> Cluster {
    let mut cluster = Cluster::new(1).await;
    cluster.snapshot_every = 50;
    cluster.start_all().await;
    cluster.apply(vec![policy()]).await;
    common::load(&cluster, 400, 1).await;
    cluster.node(0).wait("a snapshot", |status| status.snapshot_index > 350).await;
    cluster.stop(0).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_folder_is_refused_with_the_remedy() {
    let damage = |folder: &Path, what: &str| match what {
        "snapshot" => {
            let path = std::fs::read_dir(folder.join("snapshots")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        "no snapshot" => std::fs::remove_dir_all(folder.join("snapshots")).unwrap(),
        "no log" => std::fs::remove_dir_all(folder.join("log")).unwrap(),
        "empty log" => std::fs::write(folder.join("log/db"), "").unwrap(),
        // As an `rm -rf` that was cut off leaves it: a member that has forgotten everything.
        "only standing" => {
            std::fs::remove_dir_all(folder.join("log")).unwrap();
            std::fs::remove_dir_all(folder.join("snapshots")).unwrap();
            std::fs::remove_file(folder.join("identity")).unwrap();
        }
        "sled" => {
            let path = folder.join("log/db");
            let mut bytes = std::fs::read(&path).unwrap();
            let end = bytes.len().min(200_000);
            bytes[64..end].fill(0x5a);
            std::fs::write(&path, bytes).unwrap();
        }
        file => std::fs::write(folder.join(file), "rubbish").unwrap(),
    };
    for (what, wanted) in [
        ("snapshot", "wrong checksum"),
        ("no snapshot", "the newest snapshot ends at 0"),
        ("no log", "its log is missing"),
        ("empty log", "the vote of term"),
        ("only standing", "\"identity\" is missing"),
        ("identity", "\"identity\" cannot be read"),
        ("standing", "\"standing\" cannot be read"),
        ("sled", ""),
    ] {
        let cluster = one_node_with_a_snapshot().await;
        damage(&cluster.folder(0), what);
        let error = Replica::open(cluster.config(0)).await.expect_err(what);
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains(wanted) && text.contains("Rebuild this node from its peers"), "{what}: {text}");
    }
}
