//! The gateway's view of the budget cluster: one operation at a time, one answer. The pipeline knows only this trait, so
//! its tests run against a ledger in memory.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use quorate_ledger::{Command, Outcome, ReservationId};
use quorate_rpc::{Client, ClientError};
use thiserror::Error;

/// The cluster did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum KeeperError {
    /// The operation did not take effect, as far as is known.
    #[error("budget cluster unavailable: {message}")]
    Unavailable { message: String, retry_after_ms: u64 },
    /// The effect is unknown: the same operation may be sent again.
    #[error("budget cluster did not answer in time")]
    TimedOut,
}

/// Keeps the budgets.
pub(crate) trait BudgetKeeper: fmt::Debug + Send + Sync + 'static {
    /// A fresh id by the ledger's clock.
    fn new_id(&self) -> ReservationId;

    /// Executes one command, retrying the same one until `timeout`.
    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, KeeperError>>;
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

    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, KeeperError>> {
        Box::pin(async move {
            match self.client.execute(command, timeout).await {
                Ok(executed) => Ok(executed.outcome),
                Err(ClientError::TimedOut { .. }) => Err(KeeperError::TimedOut),
                Err(error) => {
                    Err(KeeperError::Unavailable { message: error.to_string(), retry_after_ms: 1000 })
                }
            }
        })
    }
}
