//! Three replicas in one process: elections, restarts, snapshots, hand-over, a lost folder.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Cluster, PATIENCE, assert_holds, load, new_id, policy, reserve};
use quorate_replica::{MembershipError, OpenError, ProposeError, Replica, ReplicaError, Role};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_its_ledger_over_a_restart() {
    let mut cluster = Cluster::formed(1).await;
    cluster.apply(vec![policy()]).await;
    let ids = load(&cluster, 20, 3).await;
    let before = cluster.settle().await;
    cluster.stop(0).await;
    cluster.start(0).await.unwrap();
    let after = cluster.settle().await;
    assert_holds(&after, &ids);
    assert_eq!(before, after);
    assert!(cluster.node(0).replica.has_lease() || cluster.node(0).replica.linearize().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_and_comes_back() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let mut ids = load(&cluster, 10, 3).await;
    let old = cluster.leader().await;
    cluster.stop(old).await;
    ids.extend(load(&cluster, 10, 3).await);
    let new = cluster.leader().await;
    assert_ne!(old, new);
    cluster.start(old).await.unwrap();
    ids.extend(load(&cluster, 10, 3).await);
    assert_holds(&cluster.settle().await, &ids);
    let follower =
        cluster.nodes.iter().flatten().find(|node| node.replica.status().borrow().role == Role::Follower);
    let refused = follower.unwrap().replica.propose(vec![reserve(new_id())]).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { leader: Some(_) })), "{refused:?}");
    let refused = follower.unwrap().replica.linearize().await;
    assert!(matches!(refused, Err(ReplicaError::NotLeader { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_restarts_at_once() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let ids = load(&cluster, 10, 5).await;
    cluster.stop_all().await;
    cluster.start_all().await;
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_a_snapshot_and_the_log_stays_short() {
    let mut cluster = Cluster::new(3).await;
    cluster.snapshot_every = 100;
    cluster.start_all().await;
    cluster.apply(vec![policy()]).await;
    let mut ids = load(&cluster, 5, 3).await;
    let behind = (cluster.leader().await + 1) % 3;
    cluster.stop(behind).await;
    ids.extend(load(&cluster, 500, 2).await);
    let leader = cluster.leader().await;
    cluster.node(leader).wait("a snapshot", |status| status.snapshot_index > 400).await;
    cluster.open(behind).await;
    let node = cluster.node(behind);
    node.wait("the snapshot to arrive", |status| status.snapshot_index > 400).await;
    assert_holds(&cluster.settle().await, &ids);
    // What was installed is on disk too.
    cluster.stop_all().await;
    cluster.start_all().await;
    assert_holds(&cluster.settle().await, &ids);
    assert!(cluster.node(behind).replica.storage_stats().snapshot_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_within_moments() {
    let cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let old = cluster.leader().await;
    let to = cluster.peers[(old + 1) % 3].id;
    assert_eq!(cluster.node(old).replica.transfer_leadership(Some(to)).await, Ok(to));
    assert!(!cluster.node(old).replica.has_lease());
    let leader = cluster.leader().await;
    assert_eq!(cluster.peers[leader].id, to);
    let ids = load(&cluster, 2, 2).await;
    assert_holds(&cluster.settle().await, &ids);
    let back = cluster.node(leader).replica.transfer_leadership(None).await.unwrap();
    assert_ne!(back, to);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_are_under_way_at_once() {
    let cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.node(cluster.leader().await);
    let before = leader.replica.storage_stats();
    let ids: Vec<_> = (0..400).map(|_| new_id()).collect();
    let proposals = ids.iter().map(|id| leader.replica.propose(vec![reserve(*id)]));
    for applied in futures_util::future::join_all(proposals).await {
        applied.unwrap();
    }
    assert_holds(&cluster.settle().await, &ids);
    let after = leader.replica.storage_stats();
    assert!(
        after.flushes - before.flushes < 200,
        "400 batches took {} flushes",
        after.flushes - before.flushes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_folder_is_rebuilt_from_its_peers() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let mut ids = load(&cluster, 10, 3).await;
    let lost = (cluster.leader().await + 1) % 3;
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
    cluster.start(lost).await.unwrap();
    cluster.node(lost).wait("to be a follower", |status| status.role == Role::Follower).await;
    ids.extend(load(&cluster, 10, 3).await);
    assert_holds(&cluster.settle().await, &ids);
    // It counts again: with another node down, the two form a quorum.
    let other = (0..3).find(|index| *index != lost && *index != (lost + 1) % 3).unwrap();
    cluster.stop(other).await;
    ids.extend(load(&cluster, 5, 3).await);
    assert_holds(&cluster.settle().await, &ids);
    let members = cluster.node(lost).replica.status().borrow().members.clone();
    assert!(members.len() == 3 && members.iter().all(|member| member.voter), "{members:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_folder_makes_no_quorum() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.leader().await;
    let (lost, down) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
    let ids = load(&cluster, 5, 3).await;
    cluster.stop(leader).await;
    // `down` may lack what `leader` and `lost` had acknowledged: it must not be elected with the vote of `lost`.
    cluster.open(lost).await;
    let alone =
        tokio::time::timeout(Duration::from_secs(6), cluster.node(lost).replica.bootstrap(&cluster.peers));
    assert!(alone.await.is_err());
    assert_ne!(cluster.node(down).replica.status().borrow().role, Role::Leader);
    assert_ne!(cluster.node(lost).replica.status().borrow().role, Role::Leader);
    // The leader's folder comes back: all is well.
    cluster.start(leader).await.unwrap();
    cluster.bootstrap(lost).await.unwrap();
    assert_holds(&cluster.settle().await, &ids);
}

/// It has acknowledged something just now, but with the folder that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_folder_is_not_counted_when_another_is_removed() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.leader().await;
    let (lost, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
    // It answers, and has not asked to be taken in yet.
    cluster.open(lost).await;
    let removed = cluster.node(leader).replica.remove_node(cluster.peers[other].id, "olga").await;
    assert!(matches!(removed, Err(MembershipError::NoQuorumLeft { .. })), "{removed:?}");
    cluster.bootstrap(lost).await.unwrap();
}

/// Its last leader is gone, and no vote can be had: nobody is to give up a folder for that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_left_alone_knows_no_leader() {
    let mut cluster = Cluster::formed(3).await;
    let leader = cluster.leader().await;
    let left = (leader + 1) % 3;
    let address = cluster.peers[left].address.clone();
    let replica = cluster.node(left).replica.clone();
    let until = async |known: bool| {
        while replica.identify(&address).await.unwrap().has_leader != known {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until(true)).await.expect("it knows none");
    cluster.stop(leader).await;
    cluster.stop((leader + 2) % 3).await;
    tokio::time::timeout(PATIENCE, until(false)).await.expect("it still knows one");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_not_mixed_up() {
    let mut cluster = Cluster::formed(1).await;
    cluster.apply(vec![policy()]).await;
    let in_use = Replica::open(cluster.config(0)).await;
    assert!(matches!(in_use, Err(OpenError::InUse { .. })), "{in_use:?}");
    cluster.stop(0).await;
    let mut config = cluster.config(0);
    config.cluster = "another".into();
    let other = Replica::open(config).await.unwrap_err();
    assert!(other.to_string().contains("belongs to cluster test, not another"), "{other}");
    let mut config = cluster.config(0);
    config.node_id = 7;
    let other = Replica::open(config).await.unwrap_err();
    assert!(other.to_string().contains("belongs to node 1, not 7"), "{other}");
    cluster.start(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_id_are_noticed() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    // The impostor believes that it runs where node 2 does.
    let mut impostor = Cluster::new(3).await;
    impostor.peers = cluster.peers.clone();
    let replica = Replica::open(impostor.config(1)).await.unwrap();
    let error = replica.bootstrap(&cluster.peers).await.unwrap_err();
    assert!(matches!(error, ReplicaError::DuplicateNode { id: 2, .. }), "{error}");
    replica.shutdown().await;
    // The impostor has an address of its own: the leader notices.
    let own = Cluster::new(1).await;
    impostor.peers[1].address = own.peers[0].address.clone();
    impostor.folders[1] = tempfile::tempdir().unwrap();
    let error = impostor.start(1).await.unwrap_err();
    assert!(matches!(error, ReplicaError::DuplicateNode { id: 2, .. }), "{error}");
    let members = cluster.node(0).replica.status().borrow().members.clone();
    assert!(members.iter().all(|member| member.voter), "{members:?}");
    load(&cluster, 1, 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_its_peers_has_no_lease_and_says_so() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.leader().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !cluster.node(leader).replica.has_lease() {
        assert!(tokio::time::Instant::now() < deadline, "no lease in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for index in (0..3).filter(|index| *index != leader) {
        cluster.stop(index).await;
    }
    cluster
        .node(leader)
        .wait("to notice", |status| status.role != Role::Leader && status.leader.is_none())
        .await;
    let node = &cluster.node(leader).replica;
    assert!(!node.has_lease());
    assert_eq!(node.propose(vec![reserve(new_id())]).await, Err(ProposeError::NotLeader { leader: None }));
    assert!(node.linearize().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_no_lease_before_it_has_applied_what_the_old_one_acknowledged() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    for _ in 0..3 {
        let old = cluster.leader().await;
        let ids = load(&cluster, 3, 1).await;
        cluster.stop(old).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        // Looked at without a pause: the moment is short.
        let ledger = loop {
            let mut running = cluster.nodes.iter().flatten().map(|node| &node.replica);
            if let Some(leader) = running.find(|replica| replica.has_lease()) {
                break leader.read(|ledger, _| ledger.clone());
            }
            assert!(tokio::time::Instant::now() < deadline, "no lease in time");
            tokio::task::yield_now().await;
        };
        assert_holds(&ledger, &ids);
        cluster.start(old).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_refused_before_the_log() {
    let cluster = Cluster::formed(1).await;
    let leader = cluster.node(cluster.leader().await);
    let large = |bytes: usize| match policy() {
        quorate_ledger::Command::PutPolicy { expected_version, rules, staged, by, comment, .. } => {
            let document = "x".repeat(bytes);
            quorate_ledger::Command::PutPolicy { expected_version, rules, document, staged, by, comment }
        }
        other => other,
    };
    let refused = leader.replica.propose(vec![large(200_000)]).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    leader.replica.propose(vec![large(90_000)]).await.unwrap();
}
