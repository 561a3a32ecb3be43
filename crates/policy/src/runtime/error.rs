//! What can be wrong at run time: with the parts of a policy, with a request that meets it, with a cost.
//!
//! Places in files are not known here; the manifests half adds them.

use thiserror::Error;

use super::CelError;

/// Parts that do not make a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileError {
    #[error("{count} budgets, more than {max}; let subjects separate users")]
    TooManyBudgets { count: usize, max: usize },
    #[error("{kind} {name} stands twice; give it another name")]
    Twice { kind: &'static str, name: String },
    #[error("budget {budget}: {problem}")]
    Budget { budget: String, problem: String },
}

/// A request that a policy cannot place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatchError {
    #[error(
        "the subject of budget {budget} has {bytes} bytes; at most {max} are allowed (shorten the headers it is made of)",
        max = super::SUBJECT_MAX_BYTES
    )]
    SubjectTooLong { budget: String, bytes: usize },
}

/// A cost that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CostError {
    #[error("no price for model {model}: add a ModelPrice for it, or a fallback price to the budget")]
    NoPrice { model: String },
    /// Could not be seen at apply. The caller charges the token total instead, and counts a warning.
    #[error("cost expression {expression}: {problem}")]
    Cel { expression: String, problem: CelError },
    #[error("no backend can serve the request, so its cost is unknown; give its route a backend")]
    NoBackend,
    #[error("the cost is above 10^18 millionths (a million million units)")]
    TooLarge,
}
