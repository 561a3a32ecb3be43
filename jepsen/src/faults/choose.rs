//! Who is hit.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::deploy::Deployment;

/// There is nobody to hit: another fault has taken them all.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no node runs")]
pub struct NobodyRuns;

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
/// [`NobodyRuns`].
pub async fn nodes(deployment: &Deployment, who: Who, random: &mut StdRng) -> Result<Vec<u64>> {
    let mut running = running(deployment);
    running.shuffle(random);
    if running.is_empty() {
        return Err(NobodyRuns.into());
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
/// [`NobodyRuns`].
pub async fn one(deployment: &Deployment, who: Who, random: &mut StdRng) -> Result<u64> {
    let nodes = nodes(deployment, who, random).await?;
    Ok(*nodes.first().ok_or(NobodyRuns)?)
}

/// One that does not lead, if there is one.
///
/// # Errors
/// [`NobodyRuns`].
pub async fn follower(deployment: &Deployment, random: &mut StdRng) -> Result<u64> {
    let leader = deployment.leader().await;
    let running = running(deployment);
    let followers: Vec<u64> = running.iter().copied().filter(|id| Some(*id) != leader).collect();
    Ok(*followers.choose(random).or_else(|| running.first()).ok_or(NobodyRuns)?)
}

fn running(deployment: &Deployment) -> Vec<u64> {
    let paused = deployment.paused_nodes();
    let ids = deployment.node_ids().into_iter();
    ids.filter(|id| deployment.runs(*id) && !paused.contains(id)).collect()
}
