//! Who lends slices: the cluster, reached through whatever the process reaches it with.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quorate_ledger::{Command, Outcome, ReservationId, TimestampMs};
use thiserror::Error;

use crate::{Client, ClientError};

/// The cluster did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotDecided {
    /// Nothing happened.
    #[error("{0}")]
    NothingHappened(String),
    /// It may have happened.
    #[error("effect unknown: {0}")]
    Unknown(String),
}

pub trait Lender: fmt::Debug + Send + Sync + 'static {
    /// A fresh id by the ledger's clock.
    fn new_id(&self) -> ReservationId;

    /// The ledger's clock, as far as it is known here. Asked for by every request: cheap.
    fn now(&self) -> TimestampMs;

    /// Executes one command, sending the same one again until `timeout`.
    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, NotDecided>>;
}

impl Lender for Client {
    fn new_id(&self) -> ReservationId {
        Self::new_id(self)
    }

    fn now(&self) -> TimestampMs {
        Self::now(self)
    }

    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, NotDecided>> {
        Box::pin(async move {
            let executed = Self::execute(self, command, timeout).await;
            executed.map(|executed| executed.outcome).map_err(Into::into)
        })
    }
}

impl From<ClientError> for NotDecided {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unavailable { .. } | ClientError::Overloaded { .. } => {
                Self::NothingHappened(message)
            }
            ClientError::TimedOut { .. } | ClientError::Rejected { .. } => Self::Unknown(message),
        }
    }
}
