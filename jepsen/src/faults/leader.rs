//! The leadership changes hands because an operator says so.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use super::choose;
use super::{Doing, Fault};
use crate::deploy::Deployment;

const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct TransferLeader;

impl Fault for TransferLeader {
    fn name(&self) -> &'static str {
        "transfer-leader"
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let to = choose::follower(deployment, random).await?;
            // Refused where another fault is in the way: that is an answer, too.
            match deployment.quorate(&["transfer-leader", "--to", &to.to_string()], WITHIN).await {
                Ok(_) => Ok(format!("node {to} leads")),
                Err(error) => Ok(format!("node {to} was to lead, but: {error:#}")),
            }
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async { Ok("nothing to heal".to_owned()) })
    }
}
