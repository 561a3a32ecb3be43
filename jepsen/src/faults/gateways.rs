//! Gateways that end with requests in flight, at once or in good order; and the fault that is none.

use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Doing, Fault, list};
use crate::deploy::Deployment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    KillOne,
    KillAll,
    StopOne,
}

#[derive(Debug)]
pub struct Gateways {
    pub name: &'static str,
    pub what: What,
    /// By their places, from 0.
    pub gone: Vec<usize>,
}

impl Fault for Gateways {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let count = deployment.gateway_count();
            self.gone = match (count, self.what) {
                (0, _) => Vec::new(),
                (_, What::KillAll) => (0..count).collect(),
                (_, What::KillOne | What::StopOne) => vec![random.random_range(0..count)],
            };
            for number in &self.gone {
                match self.what {
                    What::KillOne | What::KillAll => deployment.kill_gateway(*number),
                    What::StopOne => deployment.stop_gateway(*number).await?,
                }
            }
            let did = if self.what == What::StopOne { "stopped" } else { "killed" };
            Ok(format!("{did} gateway {}", names(&self.gone)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let gone = std::mem::take(&mut self.gone);
            gone.iter().try_for_each(|number| deployment.start_gateway(*number))?;
            Ok(format!("started gateway {}", names(&gone)))
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
