//! Everything that can change the ledger.

use serde::{Deserialize, Serialize};

use crate::{Amount, BudgetRule, ReservationId};

/// An amount asked for on one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Charge {
    pub budget: String,
    /// Empty for a budget without subject.
    pub subject: String,
    pub amount: Amount,
    /// At most `amount`. Below it, the grant may be smaller than asked: all charges of a reservation shrink by the
    /// same share of (amount - at_least), so that a number of output tokens stays one number in every budget.
    pub at_least: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Replaces all budgets. Accounts of budgets that are gone stay readable until their window closes.
    PutPolicy {
        /// Refused unless this is the version in force; `None`: unconditionally.
        expected_version: Option<u64>,
        rules: Vec<BudgetRule>,
        /// The policy file as applied: opaque here, compiled by the gateways.
        document: String,
    },
    Reserve {
        tenant: String,
        id: ReservationId,
        charges: Vec<Charge>,
        /// 1 ..= [`crate::TTL_MAX_MS`]
        ttl_ms: u64,
    },
    /// Deadline to now + ttl, never earlier than it is.
    Extend {
        tenant: String,
        id: ReservationId,
        ttl_ms: u64,
    },
    /// One amount for each charge, in their order. Accepted after an expiry too, which it corrects.
    Settle {
        tenant: String,
        id: ReservationId,
        actual: Vec<Amount>,
    },
    Release {
        tenant: String,
        id: ReservationId,
    },
    /// Proposed when deadlines have passed; the ledger decides for each whether it is due, and skips the others.
    Expire {
        tenant: String,
        ids: Vec<ReservationId>,
    },
    AdjustAccount {
        tenant: String,
        id: ReservationId,
        budget: String,
        subject: String,
        adjustment: Adjustment,
    },
    ReportProvider(ProviderReport),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adjustment {
    /// Raises the limit of the present window.
    TopUp(Amount),
    /// Sets spent (and overdraft) to zero; reservations stay.
    Reset,
    /// Another limit for this account, from this window on.
    OverrideLimit(Amount),
    ClearOverride,
}

/// What one gateway saw of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReport {
    pub backend: String,
    pub state: ProviderState,
    pub reason: String,
    /// How long the provider asked to be left alone, in milliseconds from the ledger's now; 0: not said.
    pub retry_after_ms: u64,
    pub reporter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderState {
    Healthy,
    /// 429
    Limited,
    /// connect errors, timeouts, 5xx
    Failing,
}
