//! Reads of all accounts of a tenant, as they stand in a history: small, and with the windows before the present one;
//! now and then while clients work, and once when everything is resolved. Who judges them: the `*_check` of a workload.

use std::time::{Duration, Instant};

use anyhow::Result;
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{Account, Consistency, ListAccountsResponse, ListReservationsRequest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use super::Context;
pub use crate::check::words::{ACCOUNTS, FINAL_ACCOUNTS as FINAL};
use crate::client::{CALL, Ending, NodeClient, Nodes, Via};
use crate::deploy::Deployment;
use crate::history::Recorder;

/// Anything shorter is a slice of a sliding window, of which there are too many to write down.
const WINDOW_MS_MIN: u64 = 1_000;

/// All accounts of a tenant at one point of the log. Not `check::words::Snapshot`: budgets that roll over are told window by
/// window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSnapshot {
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

fn snapshot(answer: &ListAccountsResponse) -> WindowSnapshot {
    let point = answer.read_point.unwrap_or_default();
    WindowSnapshot {
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
) -> Option<WindowSnapshot> {
    let pending = recorder.invoke(workload, recorder.process(), f, &node.node());
    node.accounts(tenant, Consistency::Linearizable, CALL).await.record(pending, |read| snapshot(&read.value))
}

/// Of the workload's tenant, now and then, from one node or another.
pub async fn watch(context: &Context, workload: &'static str, every: Duration) {
    let nodes = Nodes::new(&context.deployment, Via::Unary);
    let mut random = StdRng::seed_from_u64(context.seed);
    while !context.stop.is_cancelled() {
        if let Some(node) = nodes.any(&mut random) {
            read(&context.recorder, workload, ACCOUNTS, &node, workload).await;
        }
        tokio::select! {
            () = context.stop.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Until a tenant has no open reservation: each was resolved, or has expired.
pub async fn wait_until_resolved(deployment: &Deployment, tenant: &str, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let nodes = NodeClient::of_all(deployment, Via::Unary);
    let mut left = "no node answered".to_owned();
    while Instant::now() < deadline {
        for node in &nodes {
            let request = ListReservationsRequest { tenant: tenant.to_owned(), ..Default::default() };
            let list =
                async |mut client: AdminClient<Channel>, request| client.list_reservations(request).await;
            match node.read(request, CALL, list).await {
                Ending::Ok(read) if read.value.reservations.is_empty() => return Ok(()),
                Ending::Ok(read) => left = format!("{} are open", read.value.reservations.len()),
                Ending::Fail(reason) | Ending::Unknown(reason) => left = reason,
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{tenant}: reservations do not end within {} s: {left}", within.as_secs())
}

/// The last word: one linearizable read of all accounts, tried until a node answers.
pub async fn last(context: &Context, workload: &'static str) -> Result<()> {
    let nodes = NodeClient::of_all(&context.deployment, Via::Unary);
    for turn in 0..nodes.len() * 5 {
        let node = &nodes[turn % nodes.len()];
        if read(&context.recorder, workload, FINAL, node, workload).await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{workload}: no node reads the accounts")
}
