//! Everything that can change the ledger.

use serde::{Deserialize, Serialize};

use crate::{Amount, AuditAction, BudgetRule, KeyRecord, ReservationId};

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
        /// Nobody said what was used: the amounts were counted, and the account marks them as an estimate.
        estimated: bool,
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
    /// Asks to be the one probe of a circuit whose rest is over. Again with the same `probe`: the same answer.
    ClaimProbe {
        backend: String,
        /// Empty: the whole backend.
        model: String,
        /// The gateway.
        holder: String,
        /// Chosen by the holder, a new one for each probe.
        probe: u64,
        /// 1 ..= [`crate::PROBE_LEASE_MAX_MS`]: after that, another may claim it.
        lease_ms: u64,
    },
    /// By hand: a drained backend gets nothing until it is undrained.
    DrainProvider {
        backend: String,
        drained: bool,
        by: String,
    },
    /// For the audit log: a change that is not the ledger's own. Releases before it cannot read it.
    RecordChange {
        action: AuditAction,
        /// At most 512 bytes, like `detail`.
        subject: String,
        detail: String,
        by: String,
    },
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

/// What one gateway saw of one circuit since its last report. May arrive twice where an answer was lost: counts may then be
/// counted twice, a probe's verdict never.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReport {
    pub backend: String,
    /// As sent to the backend; empty: the whole backend (it could not be reached at all).
    pub model: String,
    pub reporter: String,
    pub successes: u32,
    pub failures: u32,
    /// Those of `failures` that came after the last success.
    pub consecutive_failures: u32,
    /// Of so many calls the time to the first byte, in milliseconds together.
    pub first_byte_ms_sum: u64,
    pub first_byte_count: u32,
    pub signal: Option<ProviderSignal>,
    /// How a probe ended that was granted to the reporter.
    pub probe: Option<ProbeEnd>,
    /// Of the signal, or of the last failure. Cut to 512 bytes.
    pub reason: String,
}

/// What cannot wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderSignal {
    /// 429: opens the circuit at once.
    Limited {
        /// How long the backend asked to be left alone; 0: not said. At most a day counts.
        retry_after_ms: u64,
    },
    /// Failures are in the counts; opens the circuit if those say so.
    Failing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeEnd {
    /// The number that it was claimed with.
    pub probe: u64,
    pub verdict: ProbeVerdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProbeVerdict {
    Passed,
    Failed,
    /// It ended without saying anything of the backend: the next may claim the probe at once.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderState {
    /// Used.
    Closed,
    /// Left alone.
    Open,
    /// One gateway tries whether it works again.
    HalfOpen,
}

/// Why a circuit opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProviderCause {
    /// It limits: 429.
    Limited,
    /// It fails: no connection, timeouts, 5xx.
    Failing,
}
