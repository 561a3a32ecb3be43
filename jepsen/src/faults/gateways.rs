//! Gateways killed with requests in flight; and the fault that is none.

use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Doing, Fault, list};
use crate::deploy::Deployment;

#[derive(Debug)]
pub struct KillGateways {
    pub name: &'static str,
    pub all: bool,
    /// By their places, from 0.
    pub killed: Vec<usize>,
}

impl Fault for KillGateways {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let count = deployment.gateway_count();
            self.killed = match count {
                0 => Vec::new(),
                _ if self.all => (0..count).collect(),
                _ => vec![random.random_range(0..count)],
            };
            self.killed.iter().for_each(|number| deployment.kill_gateway(*number));
            Ok(format!("killed gateway {}", names(&self.killed)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let killed = std::mem::take(&mut self.killed);
            killed.iter().try_for_each(|number| deployment.start_gateway(*number))?;
            Ok(format!("started gateway {}", names(&killed)))
        })
    }
}

fn names(places: &[usize]) -> String {
    list(&places.iter().map(|place| place + 1).collect::<Vec<_>>())
}

/// What a run without faults looks like.
#[derive(Debug)]
pub struct Nothing;

impl Fault for Nothing {
    fn name(&self) -> &'static str {
        "none"
    }

    fn inject<'a>(&'a mut self, _: &'a Arc<Deployment>, _: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async { Ok("nothing was done".to_owned()) })
    }

    fn heal<'a>(&'a mut self, _: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async { Ok("nothing to heal".to_owned()) })
    }
}
