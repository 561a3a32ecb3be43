//! The membership changes while the cluster works: nodes are added, removed, replaced, and nothing is lost.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/mute.rs"]
mod mute;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Cluster, PATIENCE, assert_holds, load, new_id, policy, reserve};
use quorate_ledger::{AuditAction, ReservationId};
use quorate_replica::{Changed, MembershipError, OpenError, Peer, Replica, ReplicaError, Role, check_folder};
use tokio::task::JoinHandle;

const BY: &str = "olga";

#[derive(Debug, Clone)]
enum Change {
    Add(Peer),
    Remove(u64),
    Replace(u64, Peer),
}

async fn ask(replica: &Replica, change: &Change) -> Result<Changed, MembershipError> {
    match change {
        Change::Add(peer) => replica.add_node(peer, BY).await,
        Change::Remove(id) => replica.remove_node(*id, BY).await,
        Change::Replace(old, new) => replica.replace_node(*old, new, BY).await,
    }
}

/// At whoever leads, as the admin service does.
async fn change(cluster: &Cluster, change: Change) -> Result<Changed, MembershipError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let leader = cluster.node(cluster.leader().await).replica.clone();
        match tokio::time::timeout(2 * PATIENCE, ask(&leader, &change)).await.unwrap() {
            Err(MembershipError::NotLeader { .. } | MembershipError::Replica(_)) => {
                assert!(tokio::time::Instant::now() < deadline, "{change:?}: nobody leads for long enough");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

fn voters(done: Result<Changed, MembershipError>) -> Vec<u64> {
    done.unwrap().voters
}

async fn three() -> Cluster {
    let cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    cluster
}

async fn ended(task: JoinHandle<ReplicaError>) -> ReplicaError {
    tokio::time::timeout(PATIENCE, task).await.expect("it does not notice").unwrap()
}

/// Reserves without a pause at whoever leads; ends with what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<ReservationId>>,
}

impl Load {
    fn start(replicas: Vec<Replica>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let id = new_id();
                for replica in &replicas {
                    if replica.propose(vec![reserve(id)]).await.is_ok() {
                        done.push(id);
                        break;
                    }
                }
                tokio::task::yield_now().await;
            }
            done
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<ReservationId> {
        self.stop.store(true, Ordering::Relaxed);
        let ids = tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        assert!(!ids.is_empty(), "the load never ran");
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_while_the_cluster_works() {
    let mut cluster = three().await;
    let (four, five) = (cluster.spare().await, cluster.spare().await);
    let peers = cluster.peers.clone();
    let _four = cluster.start_in_background(four, peers[..4].to_vec()).await;
    let list = [&peers[..3], &peers[4..]].concat();
    let _five = cluster.start_in_background(five, list).await;
    let replicas: Vec<_> = cluster.nodes.iter().flatten().map(|node| node.replica.clone()).collect();
    let load = Load::start(replicas.clone());

    assert_eq!(voters(change(&cluster, Change::Add(peers[3].clone())).await), [1, 2, 3, 4]);
    assert_eq!(voters(change(&cluster, Change::Remove(2)).await), [1, 3, 4]);
    assert_eq!(voters(change(&cluster, Change::Replace(3, peers[4].clone())).await), [1, 4, 5]);
    let ids = load.end().await;

    // Given again, each is done already.
    for again in [Change::Add(peers[3].clone()), Change::Remove(2), Change::Replace(3, peers[4].clone())] {
        let done = change(&cluster, again).await.unwrap();
        assert_eq!(done, Changed { changed: false, voters: vec![1, 4, 5] });
    }
    for (index, id) in [(1, 2), (2, 3)] {
        let removed = tokio::time::timeout(PATIENCE, cluster.node(index).replica.until_removed(&peers[..3]));
        assert_eq!(removed.await.unwrap(), ReplicaError::Removed { id, cluster: "test".into() });
        cluster.stop(index).await;
    }
    let ledger = cluster.settle().await;
    assert_holds(&ledger, &ids);
    let audit: Vec<_> = ledger.audit(0).into_iter().filter(|record| record.by == BY).collect();
    let said: Vec<_> =
        audit.iter().map(|record| (record.action, record.subject_of_change.as_str())).collect();
    let wanted = [
        (AuditAction::AddNode, "node 4"),
        (AuditAction::RemoveNode, "node 2"),
        (AuditAction::ReplaceNode, "node 3"),
    ];
    assert_eq!(said, wanted);
    assert_eq!(audit[2].detail, format!("by node 5 at {}", peers[4].address));
    // Two of the three go on without the third.
    cluster.stop(0).await;
    let more = load_some(&cluster).await;
    assert_holds(&cluster.settle().await, &more);
}

async fn load_some(cluster: &Cluster) -> Vec<ReservationId> {
    load(cluster, 5, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_until_it_is_added_and_gets_a_snapshot_where_the_log_is_gone() {
    let mut cluster = Cluster::new(3).await;
    cluster.snapshot_every = 100;
    cluster.start_all().await;
    cluster.apply(vec![policy()]).await;
    let ids = load(&cluster, 500, 1).await;
    let leader = cluster.leader().await;
    cluster.node(leader).wait("a snapshot", |status| status.snapshot_index > 400).await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    cluster.open(four).await;
    let alone = cluster.node(four).replica.bootstrap(&peers);
    assert!(tokio::time::timeout(Duration::from_secs(2), alone).await.is_err(), "nobody has added it");
    assert_eq!(cluster.node(leader).replica.status().borrow().members.len(), 3);
    let replica = cluster.node(four).replica.clone();
    let list = peers.clone();
    let place = tokio::spawn(async move { replica.bootstrap(&list).await });
    assert_eq!(voters(change(&cluster, Change::Add(peers[3].clone())).await), [1, 2, 3, 4]);
    tokio::time::timeout(PATIENCE, place).await.unwrap().unwrap().unwrap();
    let node = cluster.node(four);
    node.wait("the snapshot", |status| status.snapshot_index > 400 && status.role == Role::Follower).await;
    assert_holds(&cluster.settle().await, &ids);
    // It counts: without it, two of four are no quorum.
    for index in (0..3).filter(|index| *index != leader).take(1) {
        cluster.stop(index).await;
    }
    let more = load_some(&cluster).await;
    assert_holds(&cluster.settle().await, &more);
    // Its log began with a snapshot, and what was acknowledged since is marked as such.
    cluster.stop(four).await;
    let report = check_folder(&cluster.folder(four)).unwrap();
    assert!(report.is_sound() && report.log.last.index > 400, "{report:?}");
    cluster.open(four).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let mut cluster = three().await;
    let (four, five) = (cluster.spare().await, cluster.spare().await);
    let peers = cluster.peers.clone();
    let at = |id, index: usize| Peer { id, address: peers[index].address.clone() };
    let _four = cluster.start_in_background(four, peers[..4].to_vec()).await;
    // A cluster of its own, by mistake.
    cluster.open(five).await;
    cluster.node(five).replica.bootstrap(&peers[4..]).await.unwrap();
    for (wrong, wanted) in [
        (Change::Add(at(3, 3)), "id 3 belongs to the node at"),
        (Change::Add(at(4, 2)), "belongs to node 3"),
        (Change::Add(at(6, 3)), "has id 4, not 6"),
        (Change::Add(Peer { id: 6, address: "127.0.0.1:1".into() }), "nobody answers at 127.0.0.1:1"),
        (Change::Add(at(5, 4)), "is part of a cluster already"),
        (Change::Replace(2, at(5, 4)), "is part of a cluster already"),
        (Change::Replace(2, at(3, 3)), "id 3 belongs to the node at"),
        (Change::Replace(2, at(3, 2)), "id 3 belongs to the node at"),
        (Change::Replace(9, at(4, 3)), "there is no node 9; the members are 1, 2, 3"),
        (Change::Remove(9), "there is no node 9; the members are 1, 2, 3"),
    ] {
        let error = change(&cluster, wrong.clone()).await.expect_err(&format!("{wrong:?}"));
        assert!(error.to_string().contains(wanted), "{wrong:?}: {error}");
    }
    let leader = cluster.node(cluster.leader().await);
    let audit = leader.replica.read(|ledger, _| ledger.audit(0));
    assert!(audit.iter().all(|record| record.action == AuditAction::PutPolicy), "{audit:?}");
    assert_eq!(leader.replica.status().borrow().members.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_is_not_given_away() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let leader = cluster.leader().await;
    let (live, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(dead).await;
    for id in [peers[live].id, peers[leader].id] {
        let error = change(&cluster, Change::Remove(id)).await.unwrap_err();
        assert!(matches!(error, MembershipError::NoQuorumLeft { needed: 2, .. }), "{error}");
    }
    // A dead one is replaced, though, and removed.
    let _four = cluster.start_in_background(four, peers.clone()).await;
    change(&cluster, Change::Replace(peers[dead].id, peers[3].clone())).await.unwrap();
    cluster.stop(four).await;
    change(&cluster, Change::Remove(4)).await.unwrap();
    let ids = load_some(&cluster).await;
    let left = cluster.peers[cluster.leader().await].id;
    let other = if left == peers[leader].id { peers[live].id } else { peers[leader].id };
    assert_eq!(voters(change(&cluster, Change::Remove(other)).await), [left]);
    let error = change(&cluster, Change::Remove(left)).await.unwrap_err();
    assert_eq!(error, MembershipError::Last { id: left });
    let alone = cluster.node(cluster.leader().await);
    assert_eq!(cluster.peers[cluster.leader().await].id, left);
    assert_holds(&alone.replica.read(|ledger, _| ledger.clone()), &ids);
}

/// Each newcomer is needed for the quorum that it joins.
#[tokio::test(flavor = "multi_thread")]
async fn one_node_moves_to_another_machine_and_grows() {
    let mut cluster = Cluster::formed(1).await;
    cluster.apply(vec![policy()]).await;
    let ids = load_some(&cluster).await;
    let (two, three) = (cluster.spare().await, cluster.spare().await);
    let peers = cluster.peers.clone();
    let one = cluster.node(0).replica.clone();
    let _two = cluster.start_in_background(two, peers[..2].to_vec()).await;
    assert_eq!(voters(change(&cluster, Change::Replace(1, peers[1].clone())).await), [2]);
    assert!(matches!(one.until_removed(&peers).await, ReplicaError::Removed { id: 1, .. }));
    cluster.stop(0).await;
    let _three = cluster.start_in_background(three, peers[1..].to_vec()).await;
    assert_eq!(voters(change(&cluster, Change::Add(peers[2].clone())).await), [2, 3]);
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_leader_hands_over_and_is_of_no_harm_and_no_use() {
    let mut cluster = three().await;
    let old = cluster.leader().await;
    let (id, peers) = (cluster.peers[old].id, cluster.peers.clone());
    let left: Vec<u64> = (1..=3).filter(|other| *other != id).collect();
    assert_eq!(voters(change(&cluster, Change::Remove(id)).await), left);
    let leader = cluster.node((0..3).find(|index| *index != old && leads(&cluster, *index)).unwrap());
    let term = leader.replica.status().borrow().term;
    // It asks for votes until it notices; nobody minds.
    let removed = tokio::time::timeout(PATIENCE, cluster.node(old).replica.until_removed(&peers));
    assert_eq!(removed.await.unwrap(), ReplicaError::Removed { id, cluster: "test".into() });
    assert_eq!(leader.replica.status().borrow().term, term);
    assert_eq!(leader.replica.status().borrow().role, Role::Leader);
    cluster.stop(old).await;
    let refused = Replica::open(cluster.config(old)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Removed { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("quorate nodes add --id {id}")), "{refused}");
    // With an empty folder it is a stranger, that can be added.
    std::fs::remove_dir_all(cluster.folder(old)).unwrap();
    let _back = cluster.start_in_background(old, peers.clone()).await;
    assert_eq!(voters(change(&cluster, Change::Add(peers[old].clone())).await), [1, 2, 3]);
    let ids = load_some(&cluster).await;
    assert_holds(&cluster.settle().await, &ids);
}

async fn finds_its_place(cluster: &Cluster, index: usize, list: &[Peer]) {
    let place = tokio::time::timeout(PATIENCE, cluster.node(index).replica.bootstrap(list)).await;
    let statuses = cluster.nodes.iter().flatten().map(|node| node.replica.status().borrow().clone());
    place.unwrap_or_else(|_| panic!("{index} finds no place: {:#?}", statuses.collect::<Vec<_>>())).unwrap();
}

fn leads(cluster: &Cluster, index: usize) -> bool {
    cluster.nodes[index].as_ref().is_some_and(|node| node.replica.status().borrow().role == Role::Leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_removed_while_it_was_down_notices_at_its_next_start() {
    let mut cluster = three().await;
    let gone = (cluster.leader().await + 1) % 3;
    cluster.stop(gone).await;
    let peers = cluster.peers.clone();
    change(&cluster, Change::Remove(peers[gone].id)).await.unwrap();
    let task = cluster.start_in_background(gone, peers.clone()).await;
    assert!(matches!(ended(task).await, ReplicaError::Removed { .. }));
    cluster.stop(gone).await;
    let more = load_some(&cluster).await;
    assert_holds(&cluster.settle().await, &more);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_lists_of_peers_do_no_harm() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let old_list = &peers[..3];
    let _four = cluster.start_in_background(four, peers.clone()).await;
    change(&cluster, Change::Replace(1, peers[3].clone())).await.unwrap();
    cluster.stop(0).await;
    let mut ids = load_some(&cluster).await;
    // All restart; the lists name one that is gone, and not the one that came.
    for index in 1..4 {
        cluster.stop(index).await;
    }
    for index in 1..4 {
        cluster.open(index).await;
    }
    let list_of_four = [&peers[..1], &peers[3..]].concat();
    for (index, list) in [(1, old_list), (2, old_list), (3, list_of_four.as_slice())] {
        finds_its_place(&cluster, index, list).await;
    }
    ids.extend(load_some(&cluster).await);
    // The leader stands in no list of the one that lost its folder.
    if cluster.leader().await != four {
        let _ = cluster.node(cluster.leader().await).replica.transfer_leadership(Some(4)).await;
    }
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.folder(1)).unwrap();
    cluster.open(1).await;
    finds_its_place(&cluster, 1, old_list).await;
    assert_holds(&cluster.settle().await, &ids);
    let status = cluster.node(1).wait("to be a follower", |status| status.role == Role::Follower).await;
    let members: BTreeSet<u64> = status.members.iter().map(|member| member.peer.id).collect();
    assert_eq!(members, BTreeSet::from([2, 3, 4]));
}

/// Cut off at a random moment, each command can be given again, and then it is as if nothing had happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_cut_off_goes_on() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let mut ids = Vec::new();
    for round in 0..4 {
        let task = cluster.start_in_background(four, peers.clone()).await;
        for wanted in [Change::Add(peers[3].clone()), Change::Remove(4)] {
            let leader = cluster.node(cluster.leader().await).replica.clone();
            let moment = Duration::from_micros(u64::try_from(new_id().as_u128() % 60_000).unwrap());
            let cut = tokio::time::timeout(moment, ask(&leader, &wanted)).await;
            println!("round {round}: {wanted:?} cut off after {moment:?}: {cut:?}");
            ids.extend(load(&cluster, 1, 1).await);
            let done = voters(change(&cluster, wanted.clone()).await);
            let all: &[u64] = if matches!(wanted, Change::Add(_)) { &[1, 2, 3, 4] } else { &[1, 2, 3] };
            assert_eq!(done, all);
        }
        assert!(matches!(ended(task).await, ReplicaError::Removed { .. }));
        cluster.stop(four).await;
        std::fs::remove_dir_all(cluster.folder(four)).unwrap();
    }
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_half_way_through_a_replacement() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let mut ids = load_some(&cluster).await;
    let _four = cluster.start_in_background(four, peers.clone()).await;
    let leader = cluster.leader().await;
    let old = (leader + 1) % 3;
    let replace = Change::Replace(peers[old].id, peers[3].clone());
    let replacing = {
        let (replica, replace) = (cluster.node(leader).replica.clone(), replace.clone());
        tokio::spawn(async move { ask(&replica, &replace).await })
    };
    cluster.node(leader).wait("the learner", |status| status.members.len() == 4).await;
    cluster.stop(leader).await;
    println!("the first command: {:?}", replacing.await.unwrap());
    let mut wanted: Vec<u64> = (1..=4).filter(|id| *id != peers[old].id).collect();
    wanted.sort_unstable();
    assert_eq!(voters(change(&cluster, replace).await), wanted);
    cluster.stop(old).await;
    ids.extend(load_some(&cluster).await);
    cluster.open(leader).await;
    finds_its_place(&cluster, leader, &peers[..3]).await;
    assert_holds(&cluster.settle().await, &ids);
}

/// One more voter than before is not what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_not_finished_waits_for_the_command() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let mute = mute::mute(&peers[3]).await;
    let replace = Change::Replace(2, peers[3].clone());
    let error = change(&cluster, replace.clone()).await.unwrap_err();
    assert!(matches!(error, MembershipError::Unfinished(_)), "{error}");
    mute.abort();
    let _ = mute.await;
    cluster.open(four).await;
    let replica = cluster.node(four).replica.clone();
    let alone = replica.bootstrap(&peers);
    assert!(tokio::time::timeout(Duration::from_secs(2), alone).await.is_err(), "it is a voter");
    let place = tokio::spawn(async move { replica.bootstrap(&peers).await });
    assert_eq!(voters(change(&cluster, replace).await), [1, 3, 4]);
    tokio::time::timeout(PATIENCE, place).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_it_is_added_holds_up_nobody_for_long() {
    let mut cluster = three().await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let mute = mute::mute(&peers[3]).await;
    // Two at once, and a node that lost its folder: one after the other.
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
    let adding = {
        let (replica, add) = (cluster.node(leader).replica.clone(), Change::Add(peers[3].clone()));
        tokio::spawn(async move { ask(&replica, &add).await })
    };
    cluster.node(leader).wait("the learner", |status| status.members.len() == 4).await;
    let back = cluster.start_in_background(lost, peers[..3].to_vec()).await;
    let mut ids = load_some(&cluster).await;
    let error = adding.await.unwrap().unwrap_err();
    assert!(matches!(&error, MembershipError::Unfinished(why) if why.contains("does not answer")), "{error}");
    mute.abort();
    let _ = mute.await;
    // Now it is really there.
    let _four = cluster.start_in_background(four, peers.clone()).await;
    change(&cluster, Change::Add(peers[3].clone())).await.unwrap();
    let all =
        |status: &quorate_replica::Status| status.members.iter().filter(|member| member.voter).count() == 4;
    cluster.node(cluster.leader().await).wait("all to be voters", all).await;
    ids.extend(load_some(&cluster).await);
    assert_holds(&cluster.settle().await, &ids);
    back.abort();
}
