//! Who is hit.

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::deploy::Deployment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    One,
    Leader,
    Majority,
    All,
}

/// Of the nodes that run and are not paused.
///
/// # Errors
/// Nobody runs.
pub async fn nodes(deployment: &Deployment, who: Who, random: &mut StdRng) -> Result<Vec<u64>> {
    let mut running = running(deployment);
    running.shuffle(random);
    if running.is_empty() {
        bail!("no node runs");
    }
    let majority = deployment.node_ids().len() / 2 + 1;
    match who {
        Who::One => running.truncate(1),
        Who::Majority => running.truncate(majority),
        Who::All => {}
        Who::Leader => {
            // Without a leader any node will do.
            let leader = deployment.leader().await.filter(|leader| running.contains(leader));
            running = vec![leader.unwrap_or(running[0])];
        }
    }
    running.sort_unstable();
    Ok(running)
}

/// # Errors
/// Nobody runs.
pub async fn one(deployment: &Deployment, who: Who, random: &mut StdRng) -> Result<u64> {
    let nodes = nodes(deployment, who, random).await?;
    nodes.first().copied().ok_or_else(|| anyhow::anyhow!("no node runs"))
}

/// One that does not lead, if there is one.
///
/// # Errors
/// Nobody runs.
pub async fn follower(deployment: &Deployment, random: &mut StdRng) -> Result<u64> {
    let leader = deployment.leader().await;
    let running = running(deployment);
    let followers: Vec<u64> = running.iter().copied().filter(|id| Some(*id) != leader).collect();
    match followers.choose(random).or_else(|| running.first()) {
        Some(id) => Ok(*id),
        None => bail!("no node runs"),
    }
}

fn running(deployment: &Deployment) -> Vec<u64> {
    let paused = deployment.paused_nodes();
    let ids = deployment.node_ids().into_iter();
    ids.filter(|id| deployment.runs(*id) && !paused.contains(id)).collect()
}
