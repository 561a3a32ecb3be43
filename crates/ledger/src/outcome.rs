//! What the ledger answers. A denial is a value, not an error.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Amount, KeyRecord, ReservationId, TimestampMs, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    PolicyPut {
        version: u64,
        changed: bool,
    },
    Granted(Grant),
    Denied(Denial),
    Extended {
        deadline: TimestampMs,
    },
    Settled(Settlement),
    Released,
    /// Those that really expired now.
    Expired {
        ids: Vec<ReservationId>,
    },
    Adjusted(Balance),
    PolicyStaged,
    KeyPut {
        key: KeyRecord,
    },
    KeyRevoked {
        key: KeyRecord,
    },
    AlertsAcked,
    ProviderReported {
        /// Of the circuit, after the report: a view of this revision or later has seen it.
        revision: u64,
    },
    ProbeGranted {
        /// The lease.
        until: TimestampMs,
        revision: u64,
    },
    ProbeRefused(ProbeRefusal),
    ProviderDrained {
        changed: bool,
        /// The ledger had heard of this backend before.
        known: bool,
    },
    Refused(Refusal),
    ChangeRecorded,
}

/// One account after the operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Balance {
    pub budget: String,
    pub subject: String,
    pub unit: Unit,
    /// The limit in force for this account and window: override, top-ups included.
    pub limit: Amount,
    pub spent: Amount,
    pub reserved: Amount,
    /// End of the window; of a sliding one, when the oldest of what counts leaves it. `None`: lifetime.
    pub resets_at: Option<TimestampMs>,
    /// What this operation holds (Reserve) or charged (Settle) here.
    pub amount: Amount,
}

/// The decision (deadline, amounts) is the first one however often the operation is replayed; the balances are those of now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub deadline: TimestampMs,
    /// One for each charge, in their order.
    pub balances: Vec<Balance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Denial {
    /// The first account that was short, in the order of the charges.
    pub account: Balance,
    /// The least that would have been accepted (`at_least` where the charge may shrink).
    pub asked: Amount,
    pub available: Amount,
    /// `None`: waiting will not help (more than the limit, or a lifetime budget without open reservations).
    pub retry_after_ms: Option<u64>,
    /// Only other requests' reservations stand in the way.
    pub held_by_reservations: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub balances: Vec<Balance>,
    /// Per charge: what was used beyond the reservation; of a budget that only counts, beyond what was asked. How far
    /// such a budget is beyond its limit is the account's overdraft.
    pub overdraft: Vec<Amount>,
}

/// Why somebody else, or nobody, is the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ProbeRefusal {
    #[error("the circuit is closed; go ahead")]
    NotNeeded,
    #[error("it rests until {} ms", until.0)]
    Resting { until: TimestampMs },
    #[error("{holder} probes it, until {} ms at most", until.0)]
    Held { holder: String, until: TimestampMs },
    #[error("an operator has drained the backend")]
    Drained,
}

/// The operation itself was wrong, and changed nothing. In the order of precedence: where several apply, the first is
/// returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    #[error("invalid operation: {0}")]
    Invalid(String),
    #[error("reservation {id} was used before with other fields; make a new id for a new request")]
    IdReused { id: ReservationId },
    #[error(
        "reservation id {id} is {age_ms} ms old, more than the retention; make a new id (is the client's clock right?)"
    )]
    StaleId { id: ReservationId, age_ms: u64 },
    #[error("reservation id {id} is {ahead_ms} ms ahead of the ledger's time; check the client's clock")]
    FutureId { id: ReservationId, ahead_ms: u64 },
    #[error("reservation {id} is unknown: it was never made, or was resolved longer ago than the retention")]
    UnknownReservation { id: ReservationId },
    #[error("reservation {id} was already {how}")]
    AlreadyResolved { id: ReservationId, how: String },
    #[error("policy has no budget {budget} for tenant {tenant}; the policy may have changed, read it again")]
    UnknownBudget { tenant: String, budget: String },
    #[error(
        "tenant {tenant} cannot have another account of budget {budget}: {max} is the most; does the subject come from what clients choose?"
    )]
    TooManyAccounts { tenant: String, budget: String, max: u64 },
    #[error("key {id} is unknown: it was never made, or was dropped after it had ended")]
    UnknownKey { id: String },
    #[error(
        "policy upload {upload:032x}: part {part} does not follow what is there; upload all parts again, under a new number"
    )]
    WrongPart { upload: u128, part: u32 },
    #[error("policy is at version {actual}, not {expected}; read it again and repeat the change")]
    VersionConflict { expected: u64, actual: u64 },
    /// One of the others, where only its text came over the wire.
    #[error("{0}")]
    Told(String),
}
