//! Nodes that do not hear each other, for good or now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::shapes::{self, Shape};
use super::{Doing, Fault};
use crate::deploy::{Deployment, Direction, Place};

const FLAP_EVERY: Duration = Duration::from_millis(1_000);

#[derive(Debug)]
pub struct Partition {
    pub name: &'static str,
    pub shape: Shape,
}

/// Who is not a node and talks to nodes.
fn clients(deployment: &Deployment) -> Vec<Place> {
    (0..deployment.gateway_count()).map(Place::Gateway).chain([Place::Harness]).collect()
}

async fn draw(shape: Shape, deployment: &Deployment, random: &mut StdRng) -> (BTreeSet<Direction>, String) {
    let leader = if shape == Shape::Alone { deployment.leader().await } else { None };
    shapes::cut(shape, &deployment.node_ids(), leader, &clients(deployment), random)
}

impl Fault for Partition {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let (directions, words) = draw(self.shape, deployment, random).await;
            deployment.network()?.cut(self.name, directions)?;
            Ok(words)
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            deployment.network()?.mend(self.name)?;
            Ok("all hear each other".to_owned())
        })
    }
}

/// A cut that comes and goes.
#[derive(Debug, Default)]
pub struct Flapping {
    running: Option<(DropGuard, tokio::task::JoinHandle<()>)>,
}

const FLAPPING: &str = "flapping";

impl Fault for Flapping {
    fn name(&self) -> &'static str {
        FLAPPING
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let (directions, words) = draw(Shape::Alone, deployment, random).await;
            deployment.network()?.cut(FLAPPING, directions.clone())?;
            let stop = CancellationToken::new();
            let task = tokio::spawn(flap(deployment.clone(), directions, stop.clone()));
            self.running = Some((stop.drop_guard(), task));
            Ok(format!("{words}, every other second"))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            if let Some((stop, task)) = self.running.take() {
                drop(stop);
                task.await?;
            }
            deployment.network()?.mend(FLAPPING)?;
            Ok("all hear each other".to_owned())
        })
    }
}

async fn flap(deployment: Arc<Deployment>, directions: BTreeSet<Direction>, stop: CancellationToken) {
    let mut cut = true;
    while stop.run_until_cancelled(tokio::time::sleep(FLAP_EVERY)).await.is_some() {
        cut = !cut;
        let directions = if cut { directions.clone() } else { BTreeSet::new() };
        let changed = deployment.network().and_then(|network| network.cut(FLAPPING, directions));
        if let Err(error) = changed {
            tracing::warn!(%error, "flapping ends");
            return;
        }
    }
}
