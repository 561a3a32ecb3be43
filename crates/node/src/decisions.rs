//! Decides one operation on the node that leads: how long it may take, what is refused at the edge, what is counted. Knows
//! neither sessions nor other nodes.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Command, Outcome, Refusal};
use quorate_replica::{BATCH_MAX_BYTES, Replica, size_bound};
use quorate_rpc::budget::operation::Kind;
use quorate_rpc::budget::{Operation, Result as WireResult};
use quorate_rpc::convert;

use crate::group::Group;
use crate::metrics::{Metrics, kind};
use crate::tenants::Tenants;

/// The longest a reservation may wait: its id is good for a minute.
const WAIT_MAX: Duration = Duration::from_secs(55);
/// The longest that the end of one may wait for others to share its batch. What it holds is nobody's meanwhile.
const END_WAIT_MAX: Duration = Duration::from_millis(100);
/// The longest a caller may ask a node to try, beside the wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Decisions<G = Replica> {
    pub tenants: Arc<Tenants<G>>,
    pub metrics: Arc<Metrics>,
    pub default_timeout: Duration,
}

/// How long an operation may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// In its tenant's queue, or for others to share its batch.
    pub wait: Duration,
    /// In all.
    pub timeout: Duration,
}

impl<G: Group> Decisions<G> {
    pub fn patience(&self, operation: &Operation) -> Patience {
        let wait_max = if ends(operation) { END_WAIT_MAX } else { WAIT_MAX };
        let wait = Duration::from_millis(operation.wait_ms.into()).min(wait_max);
        let timeout = match operation.timeout_ms {
            0 => self.default_timeout + wait,
            ms => Duration::from_millis(ms.into()).min(TIMEOUT_MAX + wait),
        };
        Patience { wait, timeout }
    }

    /// The caller has checked that this node leads.
    pub async fn decide(&self, operation: Operation, patience: Patience) -> WireResult {
        let command = match Command::try_from(operation) {
            Ok(command) => command,
            Err(error) => return invalid(error.to_string()),
        };
        let bytes = size_bound(&command);
        if bytes > BATCH_MAX_BYTES {
            return invalid(format!("{bytes} bytes, an operation has at most {BATCH_MAX_BYTES}"));
        }
        let kind = kind(&command);
        match self.tenants.execute_waiting(command, patience.wait, patience.timeout).await {
            Ok(decided) => {
                self.metrics.count(kind, Some(&decided.outcome));
                convert::result(decided.outcome, decided.term, decided.index)
            }
            Err(undecided) => {
                self.metrics.count(kind, None);
                undecided.into()
            }
        }
    }
}

/// Whether it ends a reservation.
pub(crate) fn ends(operation: &Operation) -> bool {
    matches!(operation.kind, Some(Kind::Settle(_) | Kind::Release(_)))
}

/// Refused here: nothing of it comes into the log.
pub(crate) fn invalid(problem: String) -> WireResult {
    convert::result(Outcome::Refused(Refusal::Invalid(problem)), 0, 0)
}
