//! Changes of membership under load: a node leaves and another one comes, with an id that nobody had before.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;

use super::choose;
use super::{Doing, Fault};
use crate::deploy::{Deployment, Ending};

const CHANGED_WITHIN: Duration = Duration::from_secs(60);
/// A node that is no member any more ends.
const REMOVED: Ending = &["removed"];
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const WELL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Remove one, and add one later.
    Churn,
    /// Both in one.
    Replace,
}

#[derive(Debug)]
pub struct Members {
    pub name: &'static str,
    pub what: What,
    /// Members there should be one more.
    pub short: bool,
    /// What runs, but may not be a member yet.
    pub coming: Option<u64>,
    /// What is to be removed, and may be a member yet.
    pub leaving: Option<u64>,
}

impl Members {
    /// A new node runs; the cluster does not know it yet.
    async fn newcomer(&mut self, deployment: &Deployment) -> Result<(u64, String)> {
        let place = deployment.add_node()?;
        self.coming = Some(place.id);
        deployment.start_node(place.id)?;
        deployment.wait_for_answer(place.id, ANSWERS_WITHIN).await?;
        Ok((place.id, place.address))
    }

    async fn remove(&mut self, deployment: &Deployment, id: u64) -> Result<()> {
        self.leaving = Some(id);
        deployment.node_may_end(id, REMOVED);
        deployment.quorate(&["nodes", "remove", &id.to_string()], CHANGED_WITHIN).await?;
        deployment.remove_node(id);
        self.leaving = None;
        self.short = true;
        Ok(())
    }

    async fn add(&mut self, deployment: &Deployment) -> Result<u64> {
        let (id, address) = self.newcomer(deployment).await?;
        let arguments = ["nodes", "add", "--id", &id.to_string(), "--address", &address];
        deployment.quorate(&arguments, CHANGED_WITHIN).await?;
        (self.coming, self.short) = (None, false);
        Ok(id)
    }

    async fn replace(&mut self, deployment: &Deployment, old: u64) -> Result<u64> {
        let (id, address) = self.newcomer(deployment).await?;
        self.leaving = Some(old);
        deployment.node_may_end(old, REMOVED);
        let (old_text, new_text) = (old.to_string(), id.to_string());
        let arguments = ["nodes", "replace", &old_text, "--id", &new_text, "--address", &address];
        deployment.quorate(&arguments, CHANGED_WITHIN).await?;
        deployment.remove_node(old);
        (self.coming, self.leaving) = (None, None);
        Ok(id)
    }
}

impl Fault for Members {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let old = choose::follower(deployment, random).await?;
            match self.what {
                What::Churn => {
                    self.remove(deployment, old).await?;
                    Ok(format!("removed node {old}"))
                }
                What::Replace => {
                    let new = self.replace(deployment, old).await?;
                    Ok(format!("replaced node {old} by node {new}"))
                }
            }
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let mut tries = 0;
            let said = loop {
                self.tidy(deployment).await?;
                if !self.short {
                    break "nothing to add".to_owned();
                }
                tries += 1;
                match self.add(deployment).await {
                    Ok(id) => break format!("added node {id} (try {tries})"),
                    Err(error) if tries == TRIES => return Err(error),
                    Err(error) => tracing::warn!("a node was not added: {error:#}"),
                }
            };
            deployment.wait_until_well(WELL_WITHIN).await.context("after a change of membership")?;
            Ok(said)
        })
    }
}

impl Members {
    /// After a change that was not answered: goes by what the cluster says of its members.
    async fn tidy(&mut self, deployment: &Deployment) -> Result<()> {
        if self.coming.is_none() && self.leaving.is_none() {
            return Ok(());
        }
        deployment.wait_for_leader(WELL_WITHIN).await?;
        let voters = deployment.voters().await?;
        for gone in [self.coming.take(), self.leaving.take()].into_iter().flatten() {
            if !voters.contains(&gone) {
                deployment.remove_node(gone);
                self.short = deployment.node_ids().len() < usize::try_from(deployment.options().nodes)?;
            }
        }
        Ok(())
    }
}
