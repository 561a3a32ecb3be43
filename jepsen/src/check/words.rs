//! How the workloads on accounts put operations and answers into the history. Amounts are micros; an account is named
//! `budget/subject`.

use quorate_ledger::{Balance, Charge as LedgerCharge, Command, Outcome, Refusal};
use quorate_rpc::{Executed, admin};
use serde::{Deserialize, Serialize};

use crate::history::{Operation, Outcome as Ended};

pub const RESERVE: &str = "reserve";
pub const SETTLE: &str = "settle";
pub const RELEASE: &str = "release";
pub const EXTEND: &str = "extend";
/// What needs a quorum, whoever is asked.
pub const DECISIONS: [&str; 4] = [RESERVE, SETTLE, RELEASE, EXTEND];
/// Linearizable.
pub const READ: &str = "read";
/// What the asked node has applied.
pub const STALE_READ: &str = "read-stale";
/// After the run, when all nodes have caught up.
pub const FINAL_READ: &str = "read-final";
pub const INVARIANTS: &str = "invariants";
/// A request through a gateway; its answer has a `status`.
pub const CHAT: &str = "chat";
/// What gateways show of themselves, and reads beside the operations of a workload.
pub const SEEN: &str = "seen";
pub const ROLLOUT: &str = "rollout";
pub const ACCOUNTS: &str = "accounts";
pub const FINAL_ACCOUNTS: &str = "final-accounts";
/// An event before a tenant's first operation: its accounts.
pub const TENANT: &str = "tenant";

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Charge {
    pub account: String,
    pub amount: u64,
    pub at_least: u64,
}

/// What is asked; which fields count depends on what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Who was asked.
    pub node: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actual: Vec<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub ttl_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One account in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub account: String,
    pub limit: u64,
    pub spent: u64,
    pub reserved: u64,
    /// What the operation holds or charged.
    pub amount: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    Granted { deadline_ms: u64, balances: Vec<Line> },
    Denied(Denied),
    Settled { balances: Vec<Line>, overdraft: Vec<u64> },
    Released,
    Extended { deadline_ms: u64 },
    Refused { reason: Reason, how: String, number: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    pub short: Line,
    pub asked: u64,
    pub available: u64,
    pub held_by_reservations: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    IdReused,
    StaleId,
    FutureId,
    UnknownReservation,
    AlreadyResolved,
    /// None that these workloads can bring about.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    #[serde(flatten)]
    pub decision: Decision,
    pub term: u64,
    /// 0: a denial from applied state.
    pub index: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub account: String,
    pub limit: u64,
    pub spent: u64,
    pub reserved: u64,
    pub available: u64,
    pub overdraft: u64,
    pub estimated: u64,
}

/// All accounts of a tenant at one point of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub accounts: Vec<Account>,
    /// Ledger time.
    pub time_ms: u64,
    pub term: u64,
    pub index: u64,
    pub node: u64,
    /// Two reads over one connection were answered by one process.
    pub connection: u64,
}

/// The event that makes a tenant known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub tenant: String,
    pub accounts: Vec<Limit>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub account: String,
    pub limit: u64,
}

/// What one node says of its own ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariants {
    pub node: u64,
    pub index: u64,
    pub violations: Vec<String>,
}

pub fn account_name(budget: &str, subject: &str) -> String {
    format!("{budget}/{subject}")
}

impl Call {
    /// What a command says, in these words; `None` for those that the workloads do not send.
    pub fn of(command: &Command, node: u64) -> Option<(&'static str, Self)> {
        let (f, tenant, id, call) = match command {
            Command::Reserve { tenant, id, charges, ttl_ms, .. } => {
                let charges = charges.iter().map(Charge::from).collect();
                (RESERVE, tenant, id, Self { charges, ttl_ms: *ttl_ms, ..Self::default() })
            }
            Command::Extend { tenant, id, ttl_ms } => {
                (EXTEND, tenant, id, Self { ttl_ms: *ttl_ms, ..Self::default() })
            }
            Command::Settle { tenant, id, actual, .. } => {
                let actual = actual.iter().map(|amount| amount.micros()).collect();
                (SETTLE, tenant, id, Self { actual, ..Self::default() })
            }
            Command::Release { tenant, id } => (RELEASE, tenant, id, Self::default()),
            _ => return None,
        };
        Some((f, Self { tenant: tenant.clone(), id: id.to_string(), node, ..call }))
    }

    pub fn read(tenant: &str, node: u64) -> Self {
        Self { tenant: tenant.to_owned(), node, ..Self::default() }
    }

    /// The call of an operation of these workloads.
    pub fn from_history(operation: &Operation) -> Option<Self> {
        serde_json::from_value(operation.call.clone()).ok()
    }
}

/// The answer of an operation that has one, if it is a `T`.
pub fn answer<T: serde::de::DeserializeOwned>(operation: &Operation) -> Option<T> {
    match &operation.outcome {
        Ended::Ok(value) => serde_json::from_value(value.clone()).ok(),
        Ended::Fail | Ended::Unknown => None,
    }
}

impl From<&LedgerCharge> for Charge {
    fn from(charge: &LedgerCharge) -> Self {
        let amount = charge.amount.micros();
        // On the wire, 0 is all of it.
        let at_least = if charge.at_least.is_zero() { amount } else { charge.at_least.micros() };
        Self { account: account_name(&charge.budget, &charge.subject), amount, at_least }
    }
}

impl From<&Balance> for Line {
    fn from(balance: &Balance) -> Self {
        Self {
            account: account_name(&balance.budget, &balance.subject),
            limit: balance.limit.micros(),
            spent: balance.spent.micros(),
            reserved: balance.reserved.micros(),
            amount: balance.amount.micros(),
        }
    }
}

impl From<&Outcome> for Decision {
    fn from(outcome: &Outcome) -> Self {
        let lines = |balances: &[Balance]| balances.iter().map(Line::from).collect();
        match outcome {
            Outcome::Granted(grant) => {
                Self::Granted { deadline_ms: grant.deadline.0, balances: lines(&grant.balances) }
            }
            Outcome::Denied(denial) => Self::Denied(Denied {
                short: Line::from(&denial.account),
                asked: denial.asked.micros(),
                available: denial.available.micros(),
                held_by_reservations: denial.held_by_reservations,
            }),
            Outcome::Settled(settlement) => Self::Settled {
                balances: lines(&settlement.balances),
                overdraft: settlement.overdraft.iter().map(|amount| amount.micros()).collect(),
            },
            Outcome::Released => Self::Released,
            Outcome::Extended { deadline } => Self::Extended { deadline_ms: deadline.0 },
            Outcome::Refused(refusal) => Self::refused(refusal),
            other => Self::Refused { reason: Reason::Other, how: format!("{other:?}"), number: 0 },
        }
    }
}

impl Decision {
    fn refused(refusal: &Refusal) -> Self {
        let (reason, how, number) = match refusal {
            Refusal::IdReused { .. } => (Reason::IdReused, String::new(), 0),
            Refusal::StaleId { age_ms, .. } => (Reason::StaleId, String::new(), *age_ms),
            Refusal::FutureId { ahead_ms, .. } => (Reason::FutureId, String::new(), *ahead_ms),
            Refusal::UnknownReservation { .. } => (Reason::UnknownReservation, String::new(), 0),
            Refusal::AlreadyResolved { how, .. } => (Reason::AlreadyResolved, how.clone(), 0),
            other => (Reason::Other, other.to_string(), 0),
        };
        Self::Refused { reason, how, number }
    }
}

impl From<&Executed> for Answer {
    fn from(executed: &Executed) -> Self {
        let decision = Decision::from(&executed.outcome);
        Self { decision, term: executed.log_term, index: executed.log_index }
    }
}

impl Snapshot {
    pub fn of(response: &admin::ListAccountsResponse, connection: u64) -> Self {
        let point = response.read_point.unwrap_or_default();
        let account = |account: &admin::Account| Account {
            account: account_name(&account.budget, &account.subject),
            limit: account.limit_micros,
            spent: account.spent_micros,
            reserved: account.reserved_micros,
            available: account.available_micros,
            overdraft: account.overdraft_micros,
            estimated: account.estimated_micros,
        };
        Self {
            accounts: response.accounts.iter().map(account).collect(),
            time_ms: point.ledger_time_ms,
            term: point.log_term,
            index: point.log_index,
            node: point.node_id,
            connection,
        }
    }
}
