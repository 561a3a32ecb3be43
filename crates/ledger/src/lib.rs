//! The pure core of Quorate: every budget, account and reservation of a cluster as one deterministic state machine.
//!
//! [`Ledger::apply`] takes a time and a [`Command`] and returns an [`Outcome`]; it never fails, never waits and reads
//! neither clock nor randomness. What is deliberately absent: async, IO, logging, floating point.

mod access;
mod account;
mod account_key;
mod adjust;
mod amount;
mod books;
mod check;
mod command;
mod cow_map;
mod digest;
mod fingerprint;
mod id;
mod indices;
mod ledger;
mod outcome;
mod period;
mod policy;
mod provider;
mod read;
mod reserve;
mod resolve;
mod retention;
mod rule;
mod share;
mod tenant;
mod view;
mod window;

pub mod invariant;

pub use amount::{Amount, AmountError};
pub use command::{Adjustment, Charge, Command, ProviderReport, ProviderState};
pub use id::{NotAnId, ReservationId, TimestampMs};
pub use ledger::Ledger;
pub use outcome::{Balance, Denial, Grant, Outcome, Refusal, Settlement};
pub use rule::{BudgetRule, Unit};
pub use view::{AccountView, ClosedWindowView, PolicyView, ProviderView, ReservationView, TenantView};
pub use window::{Window, WindowSpan};

/// A replay of an operation inside this time returns the first outcome; an older id is refused as stale.
pub const RETENTION_MS: u64 = 60_000;
/// How far the time inside an id may be ahead of the ledger's.
pub const FUTURE_SKEW_MAX_MS: u64 = 10_000;
/// Charges of one reservation.
pub const CHARGES_MAX: usize = 32;
/// The longest time to live of a reservation.
pub const TTL_MAX_MS: u64 = 86_400_000;
/// Closed windows kept for reports, per account.
pub const CLOSED_WINDOWS_MAX: usize = 12;
