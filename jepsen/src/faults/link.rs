//! Packets that are late, lost, or have to queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::{Deployment, Place, between};

/// Of all packets between nodes: beyond 30 % TCP hardly moves.
const LOSS_PERCENT: std::ops::RangeInclusive<u8> = 5..=30;
const DELAY_MS: std::ops::RangeInclusive<u64> = 10..=150;
const KBIT: std::ops::RangeInclusive<u32> = 256..=2_048;
const LOSS: &str = "loss";

/// Everything that the nodes send comes late, by a time that varies.
#[derive(Debug)]
pub struct Delay;

impl Fault for Delay {
    fn name(&self) -> &'static str {
        "delay"
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let delay_ms = random.random_range(DELAY_MS);
            let nodes = deployment.node_ids();
            let network = deployment.network()?;
            nodes.iter().try_for_each(|id| network.delay(Place::Node(*id), delay_ms, delay_ms))?;
            Ok(format!("packets of all nodes come {delay_ms} to {} ms later", 2 * delay_ms))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            deployment.network()?.undelay_all();
            Ok("packets come at once".to_owned())
        })
    }
}

#[derive(Debug)]
pub struct Loss;

impl Fault for Loss {
    fn name(&self) -> &'static str {
        LOSS
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let percent = random.random_range(LOSS_PERCENT);
            let nodes: Vec<Place> = deployment.node_ids().into_iter().map(Place::Node).collect();
            let directions: BTreeSet<_> = between(&nodes, &nodes);
            deployment.network()?.lose(LOSS, percent, directions)?;
            Ok(format!("{percent} % of the packets between nodes are lost"))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            deployment.network()?.mend(LOSS)?;
            Ok("packets arrive".to_owned())
        })
    }
}

/// One node has a thin line: its packets queue, and are dropped when the queue is full.
#[derive(Debug, Default)]
pub struct SlowLink {
    slow: Vec<u64>,
}

impl Fault for SlowLink {
    fn name(&self) -> &'static str {
        "slow-link"
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let who = if random.random_bool(0.5) { Who::Leader } else { Who::One };
            self.slow = choose::nodes(deployment, who, random).await?;
            let kbit = random.random_range(KBIT);
            let network = deployment.network()?;
            self.slow.iter().try_for_each(|id| network.throttle(Place::Node(*id), kbit))?;
            Ok(format!("node {} has {kbit} kbit/s", list(&self.slow)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let network = deployment.network()?;
            let slow = std::mem::take(&mut self.slow);
            slow.iter().for_each(|id| network.unthrottle(Place::Node(*id)));
            Ok(format!("node {} has its whole line", list(&slow)))
        })
    }
}
