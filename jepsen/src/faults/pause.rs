//! SIGSTOP: a node that is there and does nothing, and then goes on as if no time had passed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::Deployment;

/// Longer than a peer waits for an answer, and in most cases shorter than a connection lives without one.
const PAUSED_S: Range<f64> = 3.0..7.0;
/// Time to begin to catch up, and hardly more.
const GOES_ON_S: Range<f64> = 0.0..1.5;
const TIMES: usize = 3;

#[derive(Debug)]
pub struct Pause {
    pub name: &'static str,
    pub who: Who,
    pub paused: Vec<u64>,
}

impl Fault for Pause {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            self.paused = choose::nodes(deployment, self.who, random).await?;
            self.paused.iter().try_for_each(|id| deployment.pause_node(*id))?;
            Ok(format!("paused node {}", list(&self.paused)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let resumed = resume(deployment, std::mem::take(&mut self.paused))?;
            Ok(format!("node {} goes on", list(&resumed)))
        })
    }
}

/// Which of them went on: one that another fault has killed meanwhile does not.
fn resume(deployment: &Deployment, paused: impl IntoIterator<Item = u64>) -> Result<Vec<u64>> {
    let still = deployment.paused_nodes();
    let resumed: Vec<u64> = paused.into_iter().filter(|id| still.contains(id)).collect();
    resumed.iter().try_for_each(|id| deployment.resume_node(*id))?;
    Ok(resumed)
}

/// One node, again and again while it catches up: streams and snapshots are given up half-way, over connections that live on.
#[derive(Debug, Default)]
pub struct PauseAgain {
    paused: Option<u64>,
}

impl Fault for PauseAgain {
    fn name(&self) -> &'static str {
        "pause-again"
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let id = choose::follower(deployment, random).await?;
            for time in 1..=TIMES {
                if deployment.pause_node(id).is_err() {
                    return Ok(format!("paused node {id}, until another fault took it away"));
                }
                self.paused = Some(id);
                if time < TIMES {
                    sleep(Duration::from_secs_f64(random.random_range(PAUSED_S))).await;
                    resume(deployment, self.paused.take())?;
                    sleep(Duration::from_secs_f64(random.random_range(GOES_ON_S))).await;
                }
            }
            Ok(format!("paused node {id} {TIMES} times"))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let resumed = resume(deployment, self.paused.take())?;
            Ok(format!("node {} goes on", list(&resumed)))
        })
    }
}
