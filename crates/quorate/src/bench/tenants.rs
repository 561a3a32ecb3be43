//! What idle tenants cost: makes many, each with one account that was used once, and weighs the nodes before and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::bench::budget::BudgetWork;
use crate::bench::cluster::Cluster;
use crate::bench::load::Work;
use crate::bench::process::Process;
use crate::bench::report::IdleTenants;

/// Tenants that are made at the same time.
const AT_ONCE: u64 = 256;
const SESSIONS: usize = 4;
/// Until what the nodes needed for the work itself is given back.
const SETTLE_DOWN: Duration = Duration::from_secs(3);

/// # Errors
/// A tenant could not be made, or memory cannot be read here (there is no /proc).
pub async fn weigh(cluster: &Cluster, tenants: u64) -> Result<IdleTenants> {
    let width = usize::try_from(tenants)?;
    let work = Arc::new(BudgetWork::sessions(&cluster.place(), SESSIONS, width)?);
    // One each, so that connections and buffers of the nodes are there before the first weighing.
    make(&work, 0, AT_ONCE.min(tenants)).await?;
    let before_bytes = resident(cluster)?;
    make(&work, AT_ONCE.min(tenants), tenants).await?;
    tokio::time::sleep(SETTLE_DOWN).await;
    Ok(IdleTenants { tenants, before_bytes, after_bytes: resident(cluster)? })
}

/// Tenants `from..to`: each reserves and settles once.
async fn make(work: &Arc<BudgetWork>, from: u64, to: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(from));
    let mut makers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (work, next) = (work.clone(), next.clone());
        makers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return Ok(());
                }
                let mut client = work.client(usize::try_from(number).unwrap_or(0));
                work.step(&mut client).await?;
                work.step(&mut client).await?;
            }
        });
    }
    while let Some(made) = makers.join_next().await {
        made?.map_err(|error: String| anyhow!("cannot make a tenant: {error}"))?;
    }
    Ok(())
}

fn resident(cluster: &Cluster) -> Result<Vec<u64>> {
    let nodes = cluster.watched().nodes;
    let known: Vec<u64> = nodes.into_iter().filter_map(Process::resident_bytes).collect();
    if known.is_empty() {
        bail!("the memory of a process cannot be read on this system");
    }
    Ok(known)
}
