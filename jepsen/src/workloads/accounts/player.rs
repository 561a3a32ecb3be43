//! One client of a workload on accounts: sends operations to nodes drawn at random, and records each of them.

use std::time::Duration;

use quorate_ledger::Command;
use quorate_rpc::Executed;
use quorate_rpc::admin::Consistency;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::check::words::{self, Answer, Call, Snapshot};
use crate::client::{CALL, Ending, NodeClient, Nodes, Via};
use crate::history::Recorder;
use crate::workloads::Context;

#[derive(Debug)]
pub struct Player {
    workload: &'static str,
    recorder: Recorder,
    nodes: Nodes,
    pub random: StdRng,
    process: u64,
}

impl Player {
    /// `number`: which of the clients; every other one sends over sessions.
    pub fn new(workload: &'static str, context: &Context, number: u64) -> Self {
        let via = if number.is_multiple_of(2) { Via::Unary } else { Via::Session };
        Self {
            workload,
            recorder: context.recorder.clone(),
            nodes: Nodes::new(&context.deployment, via),
            random: StdRng::seed_from_u64(context.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            process: context.recorder.process(),
        }
    }

    /// Sends it once, to any node.
    pub async fn send(&mut self, command: &Command) -> Option<Ending<Executed>> {
        let node = self.nodes.any(&mut self.random)?;
        let ending = record(&self.recorder, self.workload, self.process, &node, command).await;
        if matches!(ending, Ending::Unknown(_)) {
            self.process = self.recorder.process();
        }
        Some(ending)
    }

    /// Sends it to two nodes at the same time; the first answer counts.
    pub async fn send_twice(&mut self, command: &Command) -> Option<Ending<Executed>> {
        let one = self.nodes.any(&mut self.random)?;
        let other = self.nodes.any(&mut self.random)?;
        let second = self.recorder.process();
        let (first, second) = tokio::join!(
            record(&self.recorder, self.workload, self.process, &one, command),
            record(&self.recorder, self.workload, second, &other, command),
        );
        if matches!(first, Ending::Unknown(_)) {
            self.process = self.recorder.process();
        }
        Some(if matches!(first, Ending::Ok(_)) { first } else { second })
    }

    /// Again and again under the same id until there is an answer, at most so often.
    pub async fn insist(&mut self, command: &Command, times: usize) -> Option<Ending<Executed>> {
        let mut ending = self.send(command).await?;
        for _ in 0..times {
            if matches!(ending, Ending::Ok(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(50..400))).await;
            ending = self.send(command).await?;
        }
        Some(ending)
    }

    pub async fn read(&mut self, tenant: &str, consistency: Consistency) -> Option<Snapshot> {
        let node = self.nodes.any(&mut self.random)?;
        let f = if consistency == Consistency::Stale { words::STALE_READ } else { words::READ };
        let pending = self.recorder.invoke(self.workload, self.process, f, &Call::read(tenant, node.node()));
        let ending = node.accounts(tenant, consistency, CALL).await;
        ending.record(pending, |read| Snapshot::of(&read.value, read.connection))
    }
}

async fn record(
    recorder: &Recorder,
    workload: &'static str,
    process: u64,
    node: &NodeClient,
    command: &Command,
) -> Ending<Executed> {
    let Some((f, call)) = Call::of(command, node.node()) else {
        return Ending::Fail("not an operation of accounts".to_owned());
    };
    let pending = recorder.invoke(workload, process, f, &call);
    let ending = node.execute(command, CALL).await;
    match &ending {
        Ending::Ok(executed) => pending.ok(&Answer::from(executed)),
        Ending::Fail(reason) => pending.fail(reason),
        Ending::Unknown(reason) => pending.unknown(reason),
    }
    ending
}
