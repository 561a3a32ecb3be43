//! Power cuts: a node ends, and so does its disk, with what had not been synced. If all lose it at once, only what was
//! synced before it was acknowledged is there afterwards.

use std::sync::Arc;

use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::{Deployment, Disk};

#[derive(Debug)]
pub struct PowerCut {
    pub name: &'static str,
    pub who: Who,
    pub hit: Vec<u64>,
}

impl Fault for PowerCut {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            self.hit = choose::nodes(deployment, self.who, random).await?;
            let folders =
                self.hit.iter().map(|id| deployment.on_disk(*id, |disk| Ok(disk.folder().to_owned())));
            let folders = folders.collect::<anyhow::Result<Vec<_>>>()?;
            // One whose disk is gone may end before it is killed.
            self.hit.iter().for_each(|id| deployment.node_may_end(*id, super::disk::FAILED));
            Disk::power_off(&folders)?;
            self.hit.iter().for_each(|id| deployment.kill_node(*id));
            self.hit.iter().try_for_each(|id| deployment.on_disk(*id, Disk::power_on))?;
            Ok(format!("node {} lost the power, with the disk", list(&self.hit)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let hit = std::mem::take(&mut self.hit);
            for id in &hit {
                deployment.start_node(*id)?;
                deployment.node_must_run(*id);
            }
            Ok(format!("started node {}", list(&hit)))
        })
    }
}
