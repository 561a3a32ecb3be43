//! The group as one node sees it: the same face as the replica's, over the simulated Raft. After a crash it is cut off: what
//! is left of the process hears nothing and reaches nobody.

use quorate_ledger::{Command, Ledger, TimestampMs};
use quorate_replica::{Applied, ProposeError, ReadPoint, ReplicaError, Status};
use tokio::sync::watch;
use tokio::time::Duration;

use super::raft::Raft;
use super::world::World;
use crate::group::Group;

const READ_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(super) struct SimulatedGroup {
    raft: Raft,
    pub node: usize,
    incarnation: u64,
    status: watch::Receiver<Status>,
}

impl SimulatedGroup {
    /// Of the process that runs there now.
    pub fn of(raft: &Raft, node: usize) -> Self {
        let world = raft.world();
        let (incarnation, status) = (world.nodes[node].incarnation, world.nodes[node].status.subscribe());
        Self { raft: raft.clone(), node, incarnation, status }
    }

    fn lives(&self, world: &World) -> bool {
        world.nodes[self.node].incarnation == self.incarnation
    }

    /// Leads, by right, and everything that was committed at the call is applied.
    async fn confirm(&self) -> Result<(), ReplicaError> {
        let (delay, wanted) = {
            let mut world = self.raft.world();
            (world.rng.delay(10, 200), world.log.len())
        };
        tokio::time::sleep(delay).await;
        loop {
            {
                let world = self.raft.world();
                if !self.lives(&world) || !world.believes_to_lead(self.node) {
                    return Err(ReplicaError::NotLeader { leader: None });
                }
                let this = &world.nodes[self.node];
                let applied_term = this.applied.checked_sub(1).map_or(0, |last| world.log[last].term);
                if world.can_commit(self.node) && this.applied >= wanted && applied_term == this.term {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Group for SimulatedGroup {
    async fn propose(&self, commands: Vec<Command>) -> Result<Applied, ProposeError> {
        let lives = self.lives(&self.raft.world());
        if lives && let Ok(answer) = self.raft.propose(self.node, commands)?.await {
            return answer;
        }
        std::future::pending().await
    }

    fn read<T>(&self, look: impl FnOnce(&Ledger, ReadPoint) -> T) -> T {
        let world = self.raft.world();
        let this = &world.nodes[self.node];
        let term = this.applied.checked_sub(1).map_or(0, |last| world.log[last].term);
        let (ledger, point) = (this.ledger.clone(), ReadPoint { term, index: this.applied as u64 });
        drop(world);
        look(&ledger, point)
    }

    async fn linearize(&self) -> Result<(), ReplicaError> {
        let leads = {
            let world = self.raft.world();
            self.lives(&world) && world.believes_to_lead(self.node)
        };
        if !leads {
            return Err(ReplicaError::NotLeader { leader: None });
        }
        tokio::time::timeout(READ_TIMEOUT, self.confirm()).await.map_err(|_| ReplicaError::NoQuorum)?
    }

    fn has_lease(&self) -> bool {
        let world = self.raft.world();
        self.lives(&world) && world.has_lease(self.node)
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    fn now(&self) -> TimestampMs {
        let mut world = self.raft.world();
        let (at, seen) = (world.elapsed_ms(), world.clock(self.node));
        let reads = &mut world.nodes[self.node].clock_reads;
        if reads.last() != Some(&(at, seen)) {
            reads.push((at, seen));
        }
        seen
    }
}
