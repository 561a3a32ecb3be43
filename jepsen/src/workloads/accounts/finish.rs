//! The end of a run, when the faults are healed: what is open expires, then every node is read, and asked for its own view
//! of its ledger.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use quorate_rpc::admin::Consistency;

use super::player::Player;
use crate::check::words::{self, Call, Invariants, Snapshot};
use crate::client::{CALL, Ending, NodeClient, Via};
use crate::workloads::Context;

/// For what is open to expire, and for a node to catch up.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);
/// A look at every invariant walks the whole ledger.
const INVARIANTS: Duration = Duration::from_secs(20);

pub async fn finish(workload: &'static str, context: &Context, tenants: &[String]) -> Result<()> {
    let mut player = Player::new(workload, context, u64::MAX - 1);
    let mut last_index = 0;
    let deadline = Instant::now() + PATIENCE;
    for tenant in tenants {
        loop {
            let seen = player.read(tenant, Consistency::Linearizable).await;
            if let Some(seen) = seen.filter(|seen| seen.accounts.iter().all(|account| account.reserved == 0))
            {
                last_index = last_index.max(seen.index);
                break;
            }
            if Instant::now() > deadline {
                // The checker will say what it means.
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    let mut reads = tokio::task::JoinSet::new();
    for node in NodeClient::of_all(&context.deployment, Via::Unary) {
        reads.spawn(read_node(workload, context.clone(), tenants.to_vec(), node, last_index));
    }
    while let Some(read) = reads.join_next().await {
        read??;
    }
    Ok(())
}

async fn read_node(
    workload: &'static str,
    context: Context,
    tenants: Vec<String>,
    node: NodeClient,
    index: u64,
) -> Result<()> {
    catch_up(&node, index).await?;
    for tenant in &tenants {
        let (recorder, call) = (&context.recorder, Call::read(tenant, node.node()));
        let pending = recorder.invoke(workload, recorder.process(), words::FINAL_READ, &call);
        let ending = node.accounts(tenant, Consistency::Stale, CALL).await;
        ending.record(pending, |read| Snapshot::of(&read.value, read.connection));
    }
    let (recorder, call) = (&context.recorder, Call::read("", node.node()));
    let pending = recorder.invoke(workload, recorder.process(), words::INVARIANTS, &call);
    node.invariants(INVARIANTS).await.record(pending, |read| Invariants {
        node: node.node(),
        index: read.value.read_point.map_or(0, |point| point.log_index),
        violations: read.value.violations,
    });
    Ok(())
}

/// Waits until the node has applied this entry.
async fn catch_up(node: &NodeClient, index: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read = node.accounts("", Consistency::Stale, CALL).await;
        let applied = match read {
            Ending::Ok(read) => read.value.read_point.map_or(0, |point| point.log_index),
            Ending::Fail(_) | Ending::Unknown(_) => 0,
        };
        if applied >= index {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "node {} has applied {applied} of {index} entries after {} s",
                node.node(),
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(AGAIN).await;
    }
}
