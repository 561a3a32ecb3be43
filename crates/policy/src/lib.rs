//! Policy files: parsing, checking and matching requests to budgets.
//!
//! Pure: text in, rules and matches out. What is deliberately absent: the cluster, HTTP types, counters.

mod document;
mod error;
mod field;
mod file;
mod lower;
pub mod manifests;
mod nearest;
mod policy;
pub mod runtime;
mod subject;
mod warnings;

pub use error::{MatchError, PolicyError};
pub use lower::{AlertRoute, Compiled};
pub use nearest::did_you_mean;
pub use policy::{Budget, BudgetMatch, Policy};
pub use subject::SubjectPart;

/// A policy file is replicated as one log entry.
pub const DOCUMENT_MAX_BYTES: usize = 60_000;
/// Budgets of one policy.
pub const BUDGETS_MAX: usize = 256;
