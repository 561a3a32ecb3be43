//! Three replicas whose wall clocks are set: who leads, and what time the ledger has.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Cluster, PATIENCE, assert_holds, load, policy, real_ms};
use quorate_replica::{ClockReport, ReplicaError, Role};

const HOUR_MS: i64 = 3_600_000;
/// Between two readings of the real clock on a slow machine; far below the jumps.
const SLACK_MS: u64 = 60_000;

impl Cluster {
    fn set_ahead(&self, node: usize, ahead_ms: i64) {
        self.ahead_ms[node].store(ahead_ms, Ordering::Relaxed);
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}; {:?}", self.reports());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn reports(&self) -> Vec<ClockReport> {
        self.nodes.iter().flatten().map(|node| node.replica.clock_report()).collect()
    }

    fn is_off(&self, node: usize) -> bool {
        self.node(node).replica.clock_report().off
    }

    fn leads(&self, node: usize) -> bool {
        self.node(node).replica.status().borrow().role == Role::Leader
    }

    fn all_compared(&self) -> bool {
        self.reports().iter().all(|report| report.offset_ms == Some(0))
    }

    fn ledger_ms(&self, node: usize) -> u64 {
        self.node(node).replica.read(|ledger, _| ledger.time()).0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_jumps_hands_over_and_the_ledgers_time_stays() {
    let cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    cluster.until("all compared", Cluster::all_compared).await;
    let old = cluster.leader().await;
    cluster.set_ahead(old, HOUR_MS);
    // Before anybody else can have noticed.
    let applied = cluster.node(old).replica.propose(vec![policy()]).await.unwrap();
    assert!(applied.at.0 < real_ms() + SLACK_MS, "stamped {} ms ahead", applied.at.0 - real_ms());
    assert!(cluster.node(old).replica.now().0 < real_ms() + SLACK_MS);
    let mut ids = load(&cluster, 5, 2).await;
    cluster.until("the old leader follows", |cluster| !cluster.leads(old) && cluster.is_off(old)).await;
    ids.extend(load(&cluster, 5, 2).await);
    let new = cluster.leader().await;
    assert_ne!(old, new);
    assert!(cluster.ledger_ms(new) < real_ms() + SLACK_MS);
    // Nobody hands it back, unless it is right again.
    let refused = cluster.node(new).replica.transfer_leadership(Some(cluster.peers[old].id)).await;
    assert!(
        matches!(refused, Err(ReplicaError::WrongClock { ahead_ms, .. }) if ahead_ms > HOUR_MS / 2),
        "{refused:?}"
    );
    cluster.set_ahead(old, 0);
    cluster.until("the clock is right again", |cluster| !cluster.is_off(old)).await;
    let taken = cluster.node(new).replica.transfer_leadership(Some(cluster.peers[old].id)).await;
    assert_eq!(taken, Ok(cluster.peers[old].id));
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_followers_the_one_whose_clock_is_right_leads_next() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.leader().await;
    let (slow, right) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.set_ahead(slow, -5_000);
    cluster.until("the follower knows", |cluster| cluster.is_off(slow)).await;
    let report = cluster.node(slow).replica.clock_report();
    assert!(report.offset_ms.is_some_and(|offset| (-5_000..=-4_000).contains(&offset)), "{report:?}");
    assert!(cluster.node(leader).replica.clock_report().peers.iter().any(|peer| {
        peer.id == cluster.peers[slow].id && peer.ahead_ms.is_some_and(|ahead| ahead > 4_000)
    }));
    cluster.stop(leader).await;
    cluster.until("the right one leads", |cluster| cluster.leads(right)).await;
    // It still votes and takes entries, and is off although two nodes alone could not say so.
    let ids = load(&cluster, 5, 2).await;
    assert!(cluster.is_off(slow));
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_all_clocks_is_followed_and_moves_nobody() {
    let cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    cluster.until("all compared", Cluster::all_compared).await;
    let leader = cluster.leader().await;
    (0..3).for_each(|node| cluster.set_ahead(node, HOUR_MS));
    let jumped = |cluster: &Cluster| cluster.node(leader).replica.now().0 > real_ms() + SLACK_MS;
    cluster.until("the new time is confirmed", jumped).await;
    cluster.until("all compared", Cluster::all_compared).await;
    cluster.apply(vec![policy()]).await;
    let now = cluster.leader().await;
    assert!(cluster.ledger_ms(now) > real_ms() + SLACK_MS);
    assert!(cluster.reports().iter().all(|report| !report.off));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_with_a_wrong_clock_does_not_move_the_ledgers_time() {
    let mut cluster = Cluster::new(3).await;
    // The lowest id forms the cluster.
    cluster.set_ahead(0, HOUR_MS);
    cluster.start_all().await;
    cluster.apply(vec![policy()]).await;
    let leader = cluster.leader().await;
    assert!(cluster.ledger_ms(leader) < real_ms() + SLACK_MS);
    cluster.until("another one leads", |cluster| cluster.leads(1) || cluster.leads(2)).await;
    let ids = load(&cluster, 5, 2).await;
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_differ_go_on_and_the_third_decides() {
    let mut cluster = Cluster::formed(3).await;
    cluster.apply(vec![policy()]).await;
    cluster.until("all compared", Cluster::all_compared).await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    // Its last answer is good for some seconds more.
    let forgotten = |cluster: &Cluster| {
        cluster.reports().iter().all(|report| report.peers.iter().any(|peer| peer.ahead_ms.is_none()))
    };
    cluster.until("the third clock is unknown", forgotten).await;
    cluster.set_ahead(leader, HOUR_MS);
    let differ = |cluster: &Cluster| cluster.reports().iter().all(|report| report.offset_ms.is_none());
    cluster.until("no verdict", differ).await;
    let mut ids = load(&cluster, 5, 2).await;
    assert!(cluster.leads(leader) && !cluster.is_off(leader));
    assert!(cluster.ledger_ms(leader) < real_ms() + SLACK_MS);
    cluster.start(away).await.unwrap();
    cluster.until("the verdict", |cluster| cluster.is_off(leader) && !cluster.leads(leader)).await;
    ids.extend(load(&cluster, 5, 2).await);
    assert_holds(&cluster.settle().await, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_new_members_are_compared_and_those_of_removed_ones_forgotten() {
    let mut cluster = Cluster::formed(3).await;
    let four = cluster.spare().await;
    let peers = cluster.peers.clone();
    let _four = cluster.start_in_background(four, peers.clone()).await;
    let leader = cluster.leader().await;
    cluster.node(leader).replica.add_node(&peers[3], "olga").await.unwrap();
    let known = |cluster: &Cluster, node: usize| -> Vec<(u64, bool)> {
        let peers = cluster.node(node).replica.clock_report().peers;
        peers.iter().map(|peer| (peer.id, peer.ahead_ms == Some(0))).collect()
    };
    let all = |cluster: &Cluster| {
        (0..4).all(|node| {
            let others = cluster.peers.iter().filter(|peer| peer.id != cluster.peers[node].id);
            known(cluster, node) == others.map(|peer| (peer.id, true)).collect::<Vec<_>>()
        })
    };
    cluster.until("all four compared", all).await;
    // It is judged like the others.
    cluster.set_ahead(four, HOUR_MS);
    cluster.until("the new one is off", |cluster| cluster.is_off(four)).await;

    let leader = cluster.leader().await;
    cluster.node(leader).replica.remove_node(4, "olga").await.unwrap();
    let forgotten =
        |cluster: &Cluster| (0..3).all(|node| known(cluster, node).iter().all(|(id, _)| *id != 4));
    cluster.until("the removed one forgotten", forgotten).await;
    cluster.until("the three compared", |cluster| (0..3).all(|node| known(cluster, node).len() == 2)).await;
}
