//! What the clients asked and what they were told, in their own eyes.

use quorate_ledger::{Command, Outcome};
use quorate_rpc::budget::Result as WireResult;

/// One operation, from the first attempt to the answer.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub command: Command,
    pub invoked_ms: u64,
    /// What somebody had been told of by then.
    pub invoked_index: usize,
    pub told: Told,
    pub told_ms: u64,
    /// Nothing after it can have been told.
    pub told_index: usize,
    /// Who answered.
    pub by: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// The effect is unknown.
    Nothing,
    Operation {
        outcome: Outcome,
        result: WireResult,
    },
    Change {
        outcome: Outcome,
        term: u64,
        index: u64,
    },
}

impl Operation {
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.told {
            Told::Nothing => None,
            Told::Operation { outcome, .. } | Told::Change { outcome, .. } => Some(outcome),
        }
    }
}
