//! What deciding needs of the group of nodes that keeps the ledger: the replica, or, in the simulation, a group that fails
//! on purpose. Proposer, tenants and their actors are written against it. Statically dispatched, so it costs nothing.
//!
//! Also the place where their clock comes from. It is not for services that only read: those name the replica.

use std::fmt::Debug;

use quorate_ledger::{Command, Ledger, TimestampMs};
use quorate_replica::{Applied, ProposeError, ReadPoint, Replica, ReplicaError, Status};
use tokio::sync::watch;

/// Each function promises what the one of the same name promises of [`Replica`].
pub(crate) trait Group: Clone + Debug + Send + Sync + 'static {
    fn propose(&self, commands: Vec<Command>) -> impl Future<Output = Result<Applied, ProposeError>> + Send;

    fn read<T>(&self, look: impl FnOnce(&Ledger, ReadPoint) -> T) -> T;

    fn linearize(&self) -> impl Future<Output = Result<(), ReplicaError>> + Send;

    fn has_lease(&self) -> bool;

    fn status(&self) -> watch::Receiver<Status>;

    /// The time with which a batch would be stamped: this node's clock, as far as the guard of clocks believes it.
    fn now(&self) -> TimestampMs;
}

impl Group for Replica {
    async fn propose(&self, commands: Vec<Command>) -> Result<Applied, ProposeError> {
        Self::propose(self, commands).await
    }

    fn read<T>(&self, look: impl FnOnce(&Ledger, ReadPoint) -> T) -> T {
        Self::read(self, look)
    }

    async fn linearize(&self) -> Result<(), ReplicaError> {
        Self::linearize(self).await
    }

    fn has_lease(&self) -> bool {
        Self::has_lease(self)
    }

    fn status(&self) -> watch::Receiver<Status> {
        Self::status(self)
    }

    fn now(&self) -> TimestampMs {
        Self::now(self)
    }
}
