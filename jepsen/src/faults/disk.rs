//! Disks that are full, fail, or are slow. What was acknowledged is not lost: the node ends, and starts
//! again when its disk is well.

use std::sync::Arc;

use anyhow::Result;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::choose::{self, Who};
use super::{Doing, Fault};
use crate::deploy::{Deployment, Disk as FileSystem, Ending};

/// How a node may end whose disk does not take what it writes.
pub const FAILED: Ending =
    &["cannot go on", "No space left on device", "Input/output error", "Read-only file system"];
/// All that makes data durable, and all that writes to a place in a file. Not `write`: that is what sockets use, too.
const SYNCS: &str = "fdatasync,fsync,sync_file_range";
const WRITES: &str = "pwrite64,pwritev";
const SLOW_MS: std::ops::RangeInclusive<u64> = 50..=800;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Full,
    Failing,
    Slow,
}

#[derive(Debug)]
pub struct Disk {
    pub name: &'static str,
    pub what: What,
    pub hit: Option<u64>,
}

impl Disk {
    async fn harm(&self, deployment: &Deployment, id: u64, random: &mut StdRng) -> Result<String> {
        match self.what {
            What::Full => {
                deployment.node_may_end(id, FAILED);
                let bytes = deployment.on_disk(id, FileSystem::fill)?;
                Ok(format!("the disk of node {id} is full ({} MiB were free)", bytes >> 20))
            }
            What::Failing => {
                deployment.node_may_end(id, FAILED);
                let (calls, words) =
                    if random.random_bool(0.5) { (SYNCS, "syncs") } else { (WRITES, "writes to the log") };
                deployment.inject_calls(id, &format!("{calls}:error=EIO")).await?;
                Ok(format!("{words} of node {id} fail (EIO)"))
            }
            What::Slow => {
                let ms = random.random_range(SLOW_MS);
                let inject = format!("{SYNCS}:delay_exit={}", ms * 1_000);
                deployment.inject_calls(id, &inject).await?;
                Ok(format!("syncs of node {id} take {ms} ms more"))
            }
        }
    }
}

impl Fault for Disk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let who = if random.random_bool(0.5) { Who::Leader } else { Who::One };
            let id = choose::one(deployment, who, random).await?;
            self.hit = Some(id);
            self.harm(deployment, id, random).await
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            let Some(id) = self.hit.take() else { return Ok("nothing to heal".to_owned()) };
            deployment.restore_calls(id).await;
            if self.what == What::Full {
                deployment.on_disk(id, |disk| {
                    disk.free();
                    Ok(())
                })?;
            }
            let ended = !deployment.runs(id);
            deployment.start_node(id)?;
            // One that is on its way out is waited for: it would end after it was started, so to speak.
            let stays = self.what == What::Slow || deployment.settles(id).await;
            deployment.start_node(id)?;
            deployment.node_must_run(id);
            let how = match (ended, stays) {
                (true, _) => "ended and was started again",
                (false, false) => "ended late and was started again",
                (false, true) => "went on",
            };
            Ok(format!("the disk of node {id} is well; the node {how}"))
        })
    }
}
