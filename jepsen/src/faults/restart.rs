//! Restarts in good order: of one node, of one after the other, and into another binary.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::Deployment;

/// Until the next node is restarted, all must be well again.
const WELL_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    One,
    Rolling,
    Upgrade,
}

#[derive(Debug)]
pub struct Restart {
    pub name: &'static str,
    pub what: What,
    pub hit: Vec<u64>,
}

impl Restart {
    async fn restart(&self, deployment: &Deployment, id: u64) -> Result<()> {
        deployment.stop_node(id).await?;
        if self.what == What::Upgrade {
            deployment.set_node_binary(id, deployment.options().binary.clone())?;
        }
        deployment.start_node(id)
    }
}

impl Fault for Restart {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let who = if self.what == What::One { Who::One } else { Who::All };
            let chosen = choose::nodes(deployment, who, random).await?;
            for id in chosen {
                self.hit.push(id);
                self.restart(deployment, id).await?;
                if self.what != What::One {
                    let well = deployment.wait_until_well(WELL_WITHIN).await;
                    well.with_context(|| format!("after the restart of node {id}"))?;
                }
            }
            let into = if self.what == What::Upgrade { " into the new binary" } else { "" };
            Ok(format!("restarted node {}{into}", list(&self.hit)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            // Only where `inject` got stuck is there anything left to start.
            std::mem::take(&mut self.hit).into_iter().try_for_each(|id| deployment.start_node(id))?;
            Ok("all run".to_owned())
        })
    }
}
