//! The workloads: what clients do, and what must hold of what they saw. One file each, with its checker; the checker
//! reads nothing but the history, so a recorded one can be checked again.

pub mod account;
mod account_reads;
mod accounts;
mod gateway;
mod gateway_check;
mod gateway_looks;
mod gateway_loss;
mod health;
mod health_check;
pub mod hierarchy;
mod http;
mod policy;
mod policy_check;
mod provider_record;
mod proxies;
mod proxies_check;
#[cfg(test)]
mod script;
mod sse;
mod tally;
mod windows;
mod windows_check;

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::check::Verdict;
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

/// What a workload runs in. Several workloads may share one deployment: each keeps to tenants, users, budgets and backends
/// whose names begin with its own.
#[derive(Debug, Clone)]
pub struct Context {
    pub deployment: Arc<Deployment>,
    pub recorder: Recorder,
    /// Of this run; what a workload draws must come from it.
    pub seed: u64,
    /// How many clients to run at the same time.
    pub clients: usize,
    /// Cancelled when the time is up: clients end after the operation that they are at.
    pub stop: CancellationToken,
}

pub trait Workload: Send + Sync {
    fn name(&self) -> &'static str;

    /// Manifests, applied before `drive` beside those of the other workloads.
    fn policy(&self, deployment: &Deployment) -> String;

    /// Runs the clients until `context.stop`; records every operation.
    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>>;

    /// When the faults are healed and the cluster is well again: resolves what is open and records last reads.
    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>>;

    fn check(&self, history: &History) -> Verdict;
}

/// The manifest of a budget of the workload's own tenant. `more`: further lines of its `spec`.
fn budget(tenant: &str, name: &str, subject: &str, tokens: u64, window: &str, more: &str) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  tenant: {tenant}\n  \
         subject: [{subject}]\n  limit: {{tokens: {tokens}}}\n  window: {window}\n{more}"
    )
}
/// Of a budget: gateways spend it from slices.
const LEASED: &str = "  enforcement: Lease\n";

/// All of them, in the order of the issue.
pub fn all() -> Vec<Arc<dyn Workload>> {
    vec![
        Arc::new(account::Account::default()),
        Arc::new(hierarchy::Hierarchy::default()),
        Arc::new(gateway::Gateway::new(&gateway::PLAIN)),
        Arc::new(health::Health::new()),
        Arc::new(policy::Policy::new()),
        Arc::new(windows::Windows),
        Arc::new(gateway::Gateway::new(&gateway::LEASES)),
        Arc::new(proxies::Proxies),
    ]
}
