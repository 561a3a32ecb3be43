//! kill -9 of nodes: what they had acknowledged is on their disks.

use std::sync::Arc;

use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::Deployment;

#[derive(Debug)]
pub struct Kill {
    pub name: &'static str,
    pub who: Who,
    pub killed: Vec<u64>,
}

impl Fault for Kill {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            self.killed = choose::nodes(deployment, self.who, random).await?;
            self.killed.iter().for_each(|id| deployment.kill_node(*id));
            Ok(format!("killed node {}", list(&self.killed)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let killed = std::mem::take(&mut self.killed);
            killed.iter().try_for_each(|id| deployment.start_node(*id))?;
            Ok(format!("started node {}", list(&killed)))
        })
    }
}
