//! Reads of all accounts of a tenant, as they stand in a history: small, and with the windows before the present one.

use quorate_rpc::admin::{Account, Consistency, ListAccountsResponse};
use serde::{Deserialize, Serialize};

use crate::client::{CALL, Ending, NodeClient};
use crate::history::Recorder;

/// Anything shorter is a slice of a sliding window, of which there are too many to write down.
const WINDOW_MS_MIN: u64 = 1_000;
pub use crate::check::words::{ACCOUNTS, FINAL_ACCOUNTS as FINAL};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub log_index: u64,
    pub time_ms: u64,
    pub accounts: Vec<Seen>,
}

/// One account. Amounts in micros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub budget: String,
    pub subject: String,
    pub present: Span,
    pub closed: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub start_ms: u64,
    /// 0: never.
    pub end_ms: u64,
    pub limit: u64,
    pub spent: u64,
    pub reserved: u64,
    pub overdraft: u64,
}

impl Span {
    /// Both are at most 10^18.
    pub fn taken(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }

    pub fn is_overspent(&self) -> bool {
        self.taken() > self.limit.saturating_add(self.overdraft)
    }
}

impl From<&Account> for Seen {
    fn from(account: &Account) -> Self {
        let present = Span {
            start_ms: account.window_start_ms,
            end_ms: account.window_end_ms,
            limit: account.limit_micros,
            spent: account.spent_micros,
            reserved: account.reserved_micros,
            overdraft: account.overdraft_micros,
        };
        let told = account
            .closed_windows
            .iter()
            .filter(|window| window.end_ms.saturating_sub(window.start_ms) >= WINDOW_MS_MIN);
        let closed = told.map(|window| Span {
            start_ms: window.start_ms,
            end_ms: window.end_ms,
            limit: window.limit_micros,
            spent: window.spent_micros,
            reserved: window.reserved_micros,
            overdraft: window.overdraft_micros,
        });
        Self {
            budget: account.budget.clone(),
            subject: account.subject.clone(),
            present,
            closed: closed.collect(),
        }
    }
}

fn snapshot(answer: &ListAccountsResponse) -> Snapshot {
    let point = answer.read_point.unwrap_or_default();
    Snapshot {
        log_index: point.log_index,
        time_ms: point.ledger_time_ms,
        accounts: answer.accounts.iter().map(Seen::from).collect(),
    }
}

/// One linearizable read of all accounts of `tenant`, recorded as `f`.
pub async fn read(
    recorder: &Recorder,
    workload: &'static str,
    f: &'static str,
    node: &NodeClient,
    tenant: &str,
) -> Option<Snapshot> {
    let pending = recorder.invoke(workload, recorder.process(), f, &node.node());
    match node.accounts(tenant, Consistency::Linearizable, CALL).await {
        Ending::Ok(read) => {
            let seen = snapshot(&read.value);
            pending.ok(&seen);
            Some(seen)
        }
        Ending::Fail(reason) | Ending::Unknown(reason) => {
            pending.fail(&reason);
            None
        }
    }
}
