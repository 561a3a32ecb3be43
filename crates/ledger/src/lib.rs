//! The pure core of Quorate: every budget, account and reservation of a cluster as one deterministic state machine.
//!
//! [`Ledger::apply`] takes a time and a [`Command`] and returns an [`Outcome`]; it never fails, never waits and reads
//! neither clock nor randomness. What is deliberately absent: async, IO, logging, floating point.

mod access;
mod account;
mod account_key;
mod adjust;
mod alert;
mod amount;
mod audit;
mod booking;
mod books;
mod carry;
mod check;
mod circuit;
mod circuits;
mod command;
mod cow_map;
mod denial;
mod digest;
mod fingerprint;
mod history;
mod id;
mod indices;
mod key;
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
mod staging;
mod standing;
mod tenant;
mod view;
mod window;
mod zone;

pub mod invariant;

pub use alert::Alert;
pub use amount::{Amount, AmountError};
pub use audit::{AuditAction, AuditRecord};
pub use command::{
    Adjustment, Charge, Command, ProbeEnd, ProbeVerdict, ProviderCause, ProviderReport, ProviderSignal,
    ProviderState,
};
pub use id::{NotAnId, ReservationId, TimestampMs};
pub use key::KeyRecord;
pub use ledger::Ledger;
pub use outcome::{Balance, Denial, Grant, Outcome, ProbeRefusal, Refusal, Settlement};
pub use rule::{BudgetRule, Enforcement, Unit, ZoneOffset};
pub use view::{
    AccountView, ClosedWindowView, PolicyVersion, PolicyView, ProviderView, ReservationView, TenantView,
};
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
/// Accounts of one budget per tenant, where the budget does not say.
pub const ACCOUNTS_MAX_DEFAULT: u32 = 100_000;
/// Accounts of one tenant, in all its budgets.
pub const TENANT_ACCOUNTS_MAX: usize = 1_000_000;
/// Budgets of one policy.
pub const BUDGETS_MAX: usize = 20_000;
/// A whole policy document, however many parts it came in.
pub const POLICY_DOCUMENT_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The document of one command: it travels in one log entry, and those are small.
pub const DOCUMENT_PART_MAX_BYTES: usize = 65_536;
/// API keys, revoked and expired ones that are not dropped yet included.
pub const KEYS_MAX: usize = 100_000;
/// Alerts that nobody has acknowledged; beyond it the oldest are dropped.
pub const ALERTS_MAX: usize = 10_000;
/// Alerts that were acknowledged and are still shown.
pub const ALERTS_SHOWN_MAX: usize = 1_000;
/// Backends, and models at them, that the ledger keeps an opinion of.
pub const CIRCUITS_MAX: usize = 4_096;
/// The longest a probe may keep others from probing.
pub const PROBE_LEASE_MAX_MS: u64 = 60_000;
/// Changes that the audit log shows.
pub const AUDIT_MAX: usize = 1_000;
