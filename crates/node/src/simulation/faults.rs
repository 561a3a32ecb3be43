//! Trouble, from the seed: crashes, cut connections, transfers of the leadership, clocks that jump, a bad network.

use tokio::time::{Duration, Instant};

use super::cluster::{Cluster, Weather};
use super::rng::Rng;

/// Further no clock is off, in milliseconds: everything must have ended by then after the trouble.
pub(super) const SKEW_MAX_MS: i64 = 15_000;

pub(super) async fn trouble(cluster: Cluster, mut rng: Rng, until: Instant) {
    cluster.set_weather(weather(&mut rng));
    let size = cluster.raft.world().nodes.len();
    // Some seeds are calm, so that rare orders happen in long runs of one leader too.
    let pause_ms = *rng.pick(&[300, 900, 900, 2_500, 20_000]);
    while Instant::now() < until {
        let pause = rng.millis(20, pause_ms);
        tokio::time::sleep(pause).await;
        let leader = cluster.raft.world().leader;
        let victim = leader.filter(|_| rng.percent(60)).unwrap_or_else(|| rng.below(size));
        let length = rng.delay(1_200, 5_000);
        match rng.below(10) {
            0 | 1 => crash(&cluster, victim, length),
            2..5 => cut_off(&cluster, victim, length),
            5 => (0..=size / 2).for_each(|node| cut_off(&cluster, (victim + node) % size, length)),
            6 => {
                let (raft, to) = (cluster.raft.clone(), rng.below(size));
                tokio::spawn(async move { raft.transfer(to).await });
            }
            7 | 8 => jump(&cluster, victim, &mut rng),
            _ => cluster.set_weather(weather(&mut rng)),
        }
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let [usual, rare] = *rng.pick(&[[1, 5], [5, 50], [20, 400], [60, 2_000]]);
    Weather {
        delay_ms: (usual, rare),
        lost_percent: *rng.pick(&[0, 0, 2, 10]),
        repeated_percent: *rng.pick(&[0, 3, 15]),
    }
}

fn crash(cluster: &Cluster, node: usize, length: Duration) {
    cluster.crash(node);
    let cluster = cluster.clone();
    tokio::spawn(async move {
        tokio::time::sleep(length).await;
        cluster.restart(node);
    });
}

fn cut_off(cluster: &Cluster, node: usize, length: Duration) {
    cluster.raft.link(node, false);
    let raft = cluster.raft.clone();
    tokio::spawn(async move {
        tokio::time::sleep(length).await;
        raft.link(node, true);
    });
}

fn jump(cluster: &Cluster, node: usize, rng: &mut Rng) {
    let far = if rng.percent(15) { SKEW_MAX_MS } else { 1_500 };
    let by = i64::try_from(rng.between(0, 2 * far.unsigned_abs())).unwrap_or(0) - far;
    let mut world = cluster.raft.world();
    let this = &mut world.nodes[node];
    this.skew_ms = (this.skew_ms + by).clamp(-SKEW_MAX_MS, SKEW_MAX_MS);
    world.note(|| format!("the clock of node {} jumps by {by} ms", node + 1));
}

/// Every node runs and is connected again.
pub(super) fn heal(cluster: &Cluster) {
    cluster.set_weather(Weather::default());
    let size = cluster.raft.world().nodes.len();
    for node in 0..size {
        cluster.restart(node);
        cluster.raft.link(node, true);
    }
}
