//! What the workloads on accounts recorded, tenant by tenant, and all that must hold of it.

use std::collections::BTreeMap;

use super::words::{self, Call, Limit};
use super::{Verdict, agreement, amounts, linear, order, reads};
use crate::history::{History, Operation};

/// One operation and what it asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub operation: Operation,
    pub call: Call,
}

/// The life of one tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Life {
    pub tenant: String,
    pub limits: Vec<Limit>,
    /// By invocation.
    pub operations: Vec<Asked>,
}

/// Each tenant that a workload made known, with its operations.
pub fn lives(history: &History, workload: &str) -> Vec<Life> {
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    for event in history.events.iter().filter(|event| event.workload == workload && event.f == words::TENANT)
    {
        let Ok(known) = serde_json::from_value::<words::Tenant>(event.value.clone()) else { continue };
        let life = lives.entry(known.tenant.clone()).or_default();
        (life.tenant, life.limits) = (known.tenant, known.accounts);
    }
    for operation in history.operations(workload) {
        let Some(call) = Call::from_history(&operation) else { continue };
        if let Some(life) = lives.get_mut(&call.tenant) {
            life.operations.push(Asked { operation, call });
        }
    }
    lives.into_values().collect()
}

/// Everything that `jepsen/SEMANTICS.md` promises of accounts.
pub fn check(history: &History, workload: &str) -> Verdict {
    check_within(history, workload, linear::TRIES)
}

/// The same, with so many tries for the search of each tenant.
pub fn check_within(history: &History, workload: &str, tries: u64) -> Verdict {
    let lives = lives(history, workload);
    let mut verdict = linear::check(&lives, tries);
    verdict.merge(order::check(&order::entries(history, workload)));
    verdict.merge(amounts::check(&lives));
    verdict.merge(reads::check(history, workload));
    verdict.merge(agreement::check(history, workload));
    verdict
}
