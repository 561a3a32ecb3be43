//! The gateway's view of the budget cluster: one operation at a time, one answer. The pipeline knows only this trait, so
//! its tests run against a ledger in memory.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use quorate_ledger::{Command, Outcome, ReservationId, TimestampMs};
use quorate_rpc::{Client, ClientError};
use thiserror::Error;

/// The cluster did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum KeeperError {
    /// The operation did not take effect.
    #[error("{message}")]
    Unavailable { message: String, retry_after_ms: u64 },
    /// The same operation may be sent again.
    #[error("effect unknown: {message}")]
    Unknown { message: String },
}

/// Keeps the budgets.
pub(crate) trait BudgetKeeper: fmt::Debug + Send + Sync + 'static {
    /// A fresh id by the ledger's clock.
    fn new_id(&self) -> ReservationId;

    /// The ledger's clock, as far as it is known here.
    fn now(&self) -> TimestampMs {
        self.new_id().timestamp()
    }

    /// Executes one command, retrying the same one until `timeout`.
    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, KeeperError>> {
        self.execute_waiting(command, Duration::ZERO, timeout)
    }

    /// The same for a reservation that may queue for `wait` while only other reservations are in its way. `timeout`
    /// includes it.
    fn execute_waiting(
        &self,
        command: Command,
        wait: Duration,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Outcome, KeeperError>>;
}

/// The real one: the client of the cluster.
#[derive(Debug)]
pub(crate) struct ClusterKeeper {
    client: Client,
}

impl ClusterKeeper {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

impl BudgetKeeper for ClusterKeeper {
    fn new_id(&self) -> ReservationId {
        self.client.new_id()
    }

    fn now(&self) -> TimestampMs {
        self.client.now()
    }

    fn execute_waiting(
        &self,
        command: Command,
        wait: Duration,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Outcome, KeeperError>> {
        Box::pin(async move {
            let executed = self.client.execute_waiting(command, wait, timeout).await;
            executed.map(|executed| executed.outcome).map_err(|error| {
                let message = error.to_string();
                match error {
                    ClientError::Unavailable { retry_after_ms, .. }
                    | ClientError::Overloaded { retry_after_ms } => {
                        KeeperError::Unavailable { message, retry_after_ms }
                    }
                    ClientError::TimedOut { .. } | ClientError::Rejected { .. } => {
                        KeeperError::Unknown { message }
                    }
                }
            })
        })
    }
}
