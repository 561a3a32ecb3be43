//! Backups are points of the log; what is restored from them goes on there, and nobody of the old cluster has a say in it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Cluster, PATIENCE, TENANT, assert_holds, load, new_id, policy, reserve};
use quorate_ledger::{Ledger, Outcome, ReservationId};
use quorate_replica::{
    Backup, BackupError, BackupFile, FolderBackup, OpenError, Replica, ReplicaError, check_folder, restore,
    set_aside,
};

async fn back_up(replica: &Replica, path: &Path) -> Backup {
    let mut file = BackupFile::create(path, false).unwrap();
    let mut chunks = replica.backup().await.unwrap();
    while let Some(chunk) = chunks.recv().await {
        file.write(&chunk.unwrap()).unwrap();
    }
    file.finish().unwrap()
}

/// Made, but not started: so many nodes with folders of this file.
async fn restored(file: &Path, size: u64) -> Cluster {
    let mut cluster = Cluster::new(size).await;
    cluster.cluster = Backup::open(file).unwrap().restored_name();
    for index in 0..cluster.peers.len() {
        restore_node(&cluster, index, file).await.unwrap();
    }
    cluster
}

async fn restore_node(cluster: &Cluster, index: usize, file: &Path) -> Result<Backup, BackupError> {
    let (config, peers, file) = (cluster.config(index), cluster.peers.clone(), file.to_owned());
    tokio::task::spawn_blocking(move || restore(&file, &config, &peers)).await.unwrap()
}

fn held(ledger: &Ledger) -> BTreeSet<ReservationId> {
    ledger.reservations(TENANT).map(|view| view.id).collect()
}

async fn one_node_with_some(cluster: &mut Cluster, batches: usize) -> Vec<ReservationId> {
    cluster.start_all().await;
    cluster.apply(vec![policy()]).await;
    load(cluster, batches, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_point_of_the_log() {
    let mut cluster = Cluster::new(3).await;
    let before = one_node_with_some(&mut cluster, 20).await;
    let leader = cluster.node(cluster.leader().await).replica.clone();
    let proposing = |replica: Replica| async move {
        let mut done = Vec::new();
        for _ in 0..150 {
            let id = new_id();
            if let Ok(applied) = replica.propose(vec![reserve(id)]).await {
                done.push((applied.index, id));
            }
        }
        done
    };
    let work: Vec<_> = (0..4).map(|_| tokio::spawn(proposing(leader.clone()))).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    while !work.iter().all(tokio::task::JoinHandle::is_finished) {
        let path = folder.path().join(format!("{}.quorate", files.len()));
        back_up(&leader, &path).await;
        files.push(path);
    }
    let mut done = Vec::new();
    for worker in work {
        done.extend(worker.await.unwrap());
    }
    cluster.stop_all().await;
    let mut seen_within = false;
    for file in files.iter().step_by((files.len() / 8).max(1)) {
        let mut restored = restored(file, 1).await;
        let info = Backup::open(file).unwrap().info().clone();
        restored.start_all().await;
        let ledger = restored.settle().await;
        let is = held(&ledger);
        assert_holds(&ledger, &before);
        for (index, id) in &done {
            assert_eq!(is.contains(id), *index <= info.log_index, "entry {index} of {info:?}");
        }
        seen_within |= is.len() > before.len() && is.len() < before.len() + done.len();
        assert_eq!(is.len() as u64, info.open_reservations);
        restored.stop_all().await;
    }
    assert!(seen_within, "no backup was made while others worked");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_go_on_where_the_backup_ends() {
    let mut old = Cluster::new(1).await;
    let ids = one_node_with_some(&mut old, 30).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.quorate");
    let backup = back_up(&old.node(0).replica, &file).await;
    let was = old.node(0).replica.read(|ledger, _| ledger.clone());
    old.stop_all().await;
    assert_eq!(backup.info().cluster, "test");
    assert_eq!(backup.info().open_reservations, 90);

    let mut new = restored(&file, 3).await;
    new.start_all().await;
    assert_eq!(new.settle().await, was);
    // What was done before is recognised, what is new is done.
    let replayed = new.apply(vec![reserve(ids[0]), reserve(new_id())]).await;
    assert!(matches!(replayed[..], [Outcome::Granted(_), Outcome::Granted(_)]), "{replayed:?}");
    let now = new.settle().await;
    assert_eq!(held(&now).len(), ids.len() + 1);
    assert!(now.time() >= was.time());
    assert_eq!(quorate_ledger::invariant::check(&now), []);
    // It is a cluster like others: a node that lost its folder is taken in again, and all may stop.
    let follower = (new.leader().await + 1) % 3;
    new.stop(follower).await;
    fs::remove_dir_all(new.folder(follower)).unwrap();
    new.start(follower).await.unwrap();
    new.stop_all().await;
    new.start_all().await;
    assert_eq!(held(&new.settle().await).len(), ids.len() + 1);
    new.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_old_cluster_is_refused_by_the_new() {
    let mut old = Cluster::formed(3).await;
    old.apply(vec![policy()]).await;
    load(&old, 5, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.quorate");
    let backup = back_up(&old.node(old.leader().await).replica, &file).await;
    load(&old, 5, 2).await;
    let of_old = held(&old.settle().await);
    assert_eq!(of_old.len(), 20);
    old.stop_all().await;
    // The same addresses, ids and folders of two; the third comes back as it was, with a longer log.
    let mut new = Cluster::new(3).await;
    (new.peers, new.cluster) = (old.peers.clone(), backup.restored_name());
    for index in [0, 1] {
        restore_node(&new, index, &file).await.unwrap();
        new.open(index).await;
        new.bootstrap(index).await.unwrap();
    }
    old.open(2).await;
    // A member that hears nobody in time takes its place; the next time it hears who they are.
    let refusal = async {
        loop {
            if let Err(refused) = old.bootstrap(2).await {
                break refused;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refusal).await.expect("it is never refused");
    assert!(matches!(refused, ReplicaError::OtherCluster { .. }), "{refused}");
    load(&new, 5, 2).await;
    assert_eq!(held(&new.settle().await).len(), 20);
    // It may not know of all that they are committed.
    let has = held(&old.node(2).replica.read(|ledger, _| ledger.clone()));
    assert!(has.iter().all(|id| of_old.contains(id)), "it took something");
    assert!(old.node(2).replica.propose(vec![reserve(new_id())]).await.is_err());
    old.stop_all().await;
    // Nor with the new name over its old folder.
    let mut config = old.config(2);
    config.cluster.clone_from(&new.cluster);
    let refused = Replica::open(config).await.unwrap_err();
    assert!(matches!(refused, OpenError::OtherCluster { .. }), "{refused}");
    new.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_and_nothing_is_written() {
    let mut old = Cluster::new(1).await;
    one_node_with_some(&mut old, 10).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.quorate");
    let backup = back_up(&old.node(0).replica, &file).await;
    old.stop_all().await;
    let again = BackupFile::create(&file, false).unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again}");
    let mut new = Cluster::new(1).await;
    for name in ["test".to_owned(), backup.mark(), format!("-{}", backup.mark()), "test-00000000".to_owned()]
    {
        new.cluster = name;
        let error = restore_node(&new, 0, &file).await.unwrap_err();
        assert!(error.to_string().contains(&backup.restored_name()), "{error}");
        assert!(!new.folder(0).exists());
    }
    new.cluster = backup.restored_name();
    let bytes = fs::read(&file).unwrap();
    let harmed = folder.path().join("harmed.quorate");
    let cut = [0, 5, 16, 40, bytes.len() / 2, bytes.len() - 1].map(|length| bytes[..length].to_vec());
    let longer = [bytes.clone(), b"more".to_vec()].concat();
    let flipped = (0..bytes.len()).step_by(bytes.len() / 97 + 1).map(|at| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    });
    for bytes in cut.into_iter().chain([longer]).chain(flipped) {
        fs::write(&harmed, bytes).unwrap();
        let error = restore_node(&new, 0, &harmed).await.unwrap_err();
        let expected = matches!(
            error,
            BackupError::Damaged { .. } | BackupError::NoBackup { .. } | BackupError::Format { .. }
        );
        assert!(expected, "{error}");
        assert!(!new.folder(0).exists());
    }
    let mut other = bytes.clone();
    other[11] = 9;
    fs::write(&harmed, other).unwrap();
    let error = restore_node(&new, 0, &harmed).await.unwrap_err();
    assert!(matches!(error, BackupError::Format { found: 9, .. }), "{error}");
    let strangers = Cluster::new(1).await;
    let (config, peers) =
        (new.config(0), vec![quorate_replica::Peer { id: 7, ..strangers.peers[0].clone() }]);
    let of = file.clone();
    let error =
        tokio::task::spawn_blocking(move || restore(&of, &config, &peers)).await.unwrap().unwrap_err();
    assert!(matches!(error, BackupError::Peers(_)), "{error}");
    fs::create_dir_all(new.folder(0)).unwrap();
    fs::write(new.folder(0).join("note"), "mine").unwrap();
    let error = restore_node(&new, 0, &file).await.unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    assert_eq!(fs::read_dir(new.folder(0)).unwrap().count(), 1);
}

/// Names, contents and times of change.
fn state_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), fs::read(&path).unwrap(), changed));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_folder_is_checked_and_backed_up_without_a_change() {
    let mut old = Cluster::new(1).await;
    old.snapshot_every = 40;
    let ids = one_node_with_some(&mut old, 100).await;
    old.node(0).wait("a snapshot", |status| status.snapshot_index > 60).await;
    let data = old.folder(0);
    let in_use = check_folder(&data).unwrap_err();
    assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
    old.stop_all().await;

    let before = state_of(&data);
    let report = check_folder(&data).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.cluster.as_str(), report.node_id), ("test", 1));
    // Not the status: it follows the log with a delay. One entry for each batch, and those of the founding.
    let last = report.log.last.index;
    assert!(last > 100, "{last}");
    assert_eq!(report.snapshots[0].members, [format!("1 {}", old.peers[0].address)]);
    let ends: Vec<_> = report.ledgers.iter().map(|ledger| (ledger.at, ledger.point.index)).collect();
    assert_eq!(ends.last().unwrap(), &("end of log", last));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stopped.quorate");
    let (backup, damage) = FolderBackup::default().make(&data, &file).unwrap();
    assert_eq!(damage, []);
    assert_eq!((backup.info().log_index, backup.info().open_reservations), (last, 300));
    assert!(state_of(&data) == before, "something was changed in the folder");

    let mut new = restored(&file, 3).await;
    new.start_all().await;
    assert_holds(&new.settle().await, &ids);
    new.stop_all().await;
    // What is no folder of a node, or damaged, is said.
    let none = check_folder(folder.path()).unwrap_err();
    assert!(none.to_string().contains("no data folder"), "{none}");
    fs::write(data.join("standing"), "rubbish").unwrap();
    assert_eq!(check_folder(&data).unwrap().damage[0].file, "standing");
    let other = folder.path().join("other.quorate");
    let damaged = FolderBackup::default().make(&data, &other).unwrap_err();
    assert!(matches!(damaged, BackupError::DamagedFolder { .. }), "{damaged}");
    assert!(!other.exists());
    // What is not damaged can still be had.
    let salvage = FolderBackup { salvage: true, ..FolderBackup::default() };
    let (salvaged, damage) = salvage.make(&data, &other).unwrap();
    assert_eq!((salvaged.info().log_index, damage.len()), (last, 1));
    fs::remove_dir_all(data.join("log")).unwrap();
    let none = salvage.make(&data, &folder.path().join("none.quorate")).unwrap_err();
    assert!(matches!(none, BackupError::DamagedFolder { .. }), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_takes_in_a_new_node_and_one_that_lost_its_folder() {
    let mut old = Cluster::new(1).await;
    let ids = one_node_with_some(&mut old, 10).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.quorate");
    back_up(&old.node(0).replica, &file).await;
    old.stop_all().await;

    let mut new = restored(&file, 3).await;
    new.start_all().await;
    let four = new.spare().await;
    let peers = new.peers.clone();
    let _four = new.start_in_background(four, peers.clone()).await;
    let leader = new.leader().await;
    let added = new.node(leader).replica.add_node(&peers[3], "olga").await.unwrap();
    assert_eq!(added.voters, [1, 2, 3, 4]);
    let lost = (leader + 1) % 3;
    new.stop(lost).await;
    let aside = new.folder(lost).with_extension("damaged");
    assert!(set_aside(&new.folder(lost), aside.clone()).unwrap());
    new.start(lost).await.unwrap();
    let more = load(&new, 5, 2).await;
    let ledger = new.settle().await;
    assert_holds(&ledger, &ids);
    assert_holds(&ledger, &more);
    // The folder that was moved aside is whole, and so are those that began with a snapshot.
    new.stop_all().await;
    for folder in [aside, new.folder(lost), new.folder(four)] {
        let report = check_folder(&folder).unwrap();
        assert!(report.is_sound() && report.standing == "member", "{report:?}");
    }
}
