//! A node that comes back when the others have thrown away the log entries that it needs: it must take a snapshot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::choose;
use super::{Doing, Fault};
use crate::deploy::{Deployment, LOG_KEEP};

/// Depends on how much traffic there is.
const PURGED_WITHIN: Duration = Duration::from_secs(60);
/// Entries are thrown away in lots.
const PURGE_BATCH: u64 = 256;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub struct FarBehind {
    stopped: Option<u64>,
}

impl Fault for FarBehind {
    fn name(&self) -> &'static str {
        "far-behind"
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let id = choose::follower(deployment, random).await?;
            let views = deployment.views().await;
            let last = views.iter().find(|view| view.id == id).map_or(0, |view| view.last_log_index);
            self.stopped = Some(id);
            deployment.stop_node(id).await?;
            let deadline = Instant::now() + PURGED_WITHIN;
            loop {
                // Whoever leads then: all must have thrown it away.
                let views = deployment.views().await;
                let snapshot = views.iter().map(|view| view.snapshot_index).min().unwrap_or(0);
                if snapshot > last + LOG_KEEP + PURGE_BATCH {
                    let first = snapshot - LOG_KEEP - PURGE_BATCH;
                    return Ok(format!(
                        "stopped node {id} at entry {last}; the others have none before {first}"
                    ));
                }
                if Instant::now() > deadline {
                    return Ok(format!(
                        "stopped node {id} at entry {last}; the others still have what it needs"
                    ));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let Some(id) = self.stopped.take() else { return Ok("nothing to heal".to_owned()) };
            deployment.start_node(id)?;
            Ok(format!("started node {id}"))
        })
    }
}
