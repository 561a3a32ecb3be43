//! Clients of all nodes that there are at the moment: nodes come and go while a run lasts.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;

use super::{NodeClient, Via};
use crate::deploy::Deployment;

#[derive(Debug)]
pub struct Nodes {
    deployment: Arc<Deployment>,
    via: Via,
    known: Mutex<Vec<Arc<NodeClient>>>,
}

impl Nodes {
    pub fn new(deployment: &Arc<Deployment>, via: Via) -> Self {
        Self { deployment: deployment.clone(), via, known: Mutex::default() }
    }

    /// One for each node. That of a node that stays is the same as before, with its connection.
    pub fn all(&self) -> Vec<Arc<NodeClient>> {
        let places = self.deployment.node_places();
        let mut known = self.known.lock();
        known.retain(|client| places.contains(&client.place));
        for place in places {
            if !known.iter().any(|client| client.place == place) {
                known.push(Arc::new(NodeClient::new(place, self.via)));
            }
        }
        known.clone()
    }

    /// Some node, by the run's seed.
    pub fn any(&self, random: &mut impl Rng) -> Option<Arc<NodeClient>> {
        let all = self.all();
        if all.is_empty() { None } else { all.get(random.random_range(0..all.len())).cloned() }
    }
}
