//! Read models: what operators and tests see of the ledger. Plain data, computed as of a given time.

use serde::{Deserialize, Serialize};

use crate::{
    Amount, BudgetRule, Charge, Enforcement, ProviderCause, ProviderState, ReservationId, TimestampMs, Unit,
    WindowSpan,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    pub version: u64,
    pub rules: Vec<BudgetRule>,
    pub document: String,
}

/// One version of the policy, as the history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub version: u64,
    pub at: TimestampMs,
    pub by: String,
    pub comment: String,
    /// Of the document.
    pub bytes: u64,
    pub budgets: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantView {
    pub name: String,
    pub accounts: u64,
    pub open_reservations: u64,
    pub granted_total: u64,
    pub denied_total: u64,
    pub expired_total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    pub tenant: String,
    pub budget: String,
    pub subject: String,
    pub unit: Unit,
    /// `None`: the policy no longer has this budget.
    pub enforcement: Option<Enforcement>,
    /// In force: override, top-ups and what was carried over included.
    pub limit: Amount,
    pub spent: Amount,
    pub reserved: Amount,
    pub available: Amount,
    /// Charged beyond what was reserved; of a budget that only counts, beyond the limit.
    pub overdraft: Amount,
    /// Part of `spent`: counted by a gateway, or charged as reserved by an expiry, because nobody said what was used.
    pub estimated: Amount,
    pub topped_up: Amount,
    /// Part of `limit`: what was left of the window before.
    pub carried: Amount,
    /// Requests that a shadow budget let through and would have denied.
    pub shadow_denied: u64,
    /// Of a sliding window: from the oldest slice in which something is until that leaves. The sums are those of all
    /// slices that count.
    pub window: WindowSpan,
    /// Newest first; of a sliding window its slices, also those that still count.
    pub closed_windows: Vec<ClosedWindowView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedWindowView {
    pub window: WindowSpan,
    pub limit: Amount,
    pub spent: Amount,
    pub reserved: Amount,
    pub overdraft: Amount,
    pub estimated: Amount,
    pub shadow_denied: u64,
}

/// An open reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    pub tenant: String,
    pub id: ReservationId,
    /// As held: `amount` is what was granted.
    pub charges: Vec<Charge>,
    pub made_at: TimestampMs,
    pub deadline: TimestampMs,
}

/// One circuit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProviderView {
    pub backend: String,
    /// Empty: the whole backend.
    pub model: String,
    pub state: ProviderState,
    pub since: TimestampMs,
    /// Open: when it may be probed. Half-open: when the probe's lease runs out.
    pub until: Option<TimestampMs>,
    /// Why it opened; `None` while closed.
    pub cause: Option<ProviderCause>,
    pub reason: String,
    /// Who said so.
    pub reporter: String,
    /// Half-open: who probes.
    pub holder: String,
    /// Openings in the present trouble, or the last one.
    pub openings: u32,
    /// Average time to the first byte, the last calls counting most; `None`: nothing measured yet.
    pub first_byte_ms: Option<u64>,
    /// When that was last measured, less up to ten seconds.
    pub first_byte_at: Option<TimestampMs>,
    /// Set: by an operator, and nothing is sent there. Of whole backends only.
    pub drained_since: Option<TimestampMs>,
    pub drained_by: String,
    /// Ascends with every change of any circuit.
    pub revision: u64,
}
