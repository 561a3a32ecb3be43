//! Everything that can change the ledger.

use serde::{Deserialize, Serialize};

use crate::{Amount, BudgetRule, KeyRecord, ReservationId};

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
    /// Replaces all budgets. Accounts of budgets that are gone stay readable as long as they would have otherwise.
    PutPolicy {
        /// Refused unless this is the version in force; `None`: unconditionally.
        expected_version: Option<u64>,
        rules: Vec<BudgetRule>,
        /// The policy file as applied: opaque here, compiled by the gateways. At most
        /// [`crate::DOCUMENT_PART_MAX_BYTES`]; what is longer comes in parts.
        document: String,
        /// The parts of this upload come before `rules` and `document`.
        staged: Option<u128>,
        /// Who, for the history; at most 128 bytes, may be empty.
        by: String,
        /// Why, for the history; at most 512 bytes.
        comment: String,
    },
    /// One part of a policy that is too large for one command. One upload at a time: part 0 starts it and drops an older
    /// one; then part by part, each once (a replay of the last one changes nothing).
    StagePolicy {
        /// Chosen by the uploader, a new one for each upload.
        upload: u128,
        part: u32,
        rules: Vec<BudgetRule>,
        document: String,
    },
    Reserve {
        tenant: String,
        id: ReservationId,
        charges: Vec<Charge>,
        /// 1 ..= [`crate::TTL_MAX_MS`]
        ttl_ms: u64,
        /// A denial where only reservations stand in the way is not remembered: the same id may ask again.
        wait: bool,
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
        /// Who, for the audit log; at most 128 bytes, may be empty.
        by: String,
    },
    /// A new key, or the same once more.
    PutKey {
        key: KeyRecord,
        by: String,
    },
    RevokeKey {
        id: String,
        by: String,
    },
    /// Alerts up to this seq have been delivered and can be dropped.
    AckAlerts {
        up_to: u64,
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

/// `top-up 50`, `reset`, `override 200`, `clear override`
impl std::fmt::Display for Adjustment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TopUp(amount) => write!(f, "top-up {amount}"),
            Self::Reset => f.write_str("reset"),
            Self::OverrideLimit(limit) => write!(f, "override {limit}"),
            Self::ClearOverride => f.write_str("clear override"),
        }
    }
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
