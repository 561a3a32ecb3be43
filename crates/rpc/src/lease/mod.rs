//! Leases: a process holds a slice of an account and admits requests from it by itself, in microseconds, without asking
//! the cluster for each. For accounts of budgets with `enforcement: Lease` that are hotter than one leader.
//!
//! A slice is an ordinary reservation of one charge on one account. So what the ledger promises of reservations holds of
//! slices: they and what is spent never exceed the limit together; the slice of a process that dies expires as charged; a
//! settlement that comes late corrects it; each counts once.
//!
//! [`Leases`] is what callers use. Inside, [`book`] decides and does nothing: no clock, no network, no task. [`leases`] owns
//! the clock and the tasks, and reaches the cluster through [`Lender`].

mod account;
mod book;
mod leases;
mod lender;
mod pace;
mod slice;
mod stats;
mod types;
mod unheard;

pub use leases::Leases;
pub use lender::{Lender, NotDecided};
pub use stats::{BudgetLeases, LeaseStats};
pub use types::{Hold, LeaseSettings, Left, Want};
pub use unheard::Unheard;

#[cfg(test)]
mod book_tests;
#[cfg(test)]
mod model_tests;
