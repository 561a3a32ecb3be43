//! SIGSTOP: a node that is there and does nothing, and then goes on as if no time had passed.

use std::sync::Arc;

use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::Deployment;

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
            let paused = std::mem::take(&mut self.paused);
            // One that another fault has killed meanwhile does not need it.
            let still = deployment.paused_nodes();
            let resumed: Vec<u64> = paused.into_iter().filter(|id| still.contains(id)).collect();
            resumed.iter().try_for_each(|id| deployment.resume_node(*id))?;
            Ok(format!("node {} goes on", list(&resumed)))
        })
    }
}
