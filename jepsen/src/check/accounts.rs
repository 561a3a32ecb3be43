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

/// Each tenant that a workload made known, with its operations; and those (by their index) that belong to none.
pub fn lives(history: &History, workload: &str) -> (Vec<Life>, Vec<u64>) {
    let mut strays = Vec::new();
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    for event in history.events.iter().filter(|event| event.workload == workload && event.f == words::TENANT)
    {
        let Ok(known) = serde_json::from_value::<words::Tenant>(event.value.clone()) else {
            strays.push(event.index);
            continue;
        };
        let life = lives.entry(known.tenant.clone()).or_default();
        (life.tenant, life.limits) = (known.tenant, known.accounts);
    }
    for operation in history.operations(workload) {
        // It is about all tenants.
        if operation.f == words::INVARIANTS {
            continue;
        }
        match Call::from_history(&operation).and_then(|call| Some((lives.get_mut(&call.tenant)?, call))) {
            Some((life, call)) => life.operations.push(Asked { operation, call }),
            None => strays.push(operation.index),
        }
    }
    (lives.into_values().collect(), strays)
}

/// Everything that `jepsen/SEMANTICS.md` promises of accounts.
pub fn check(history: &History, workload: &str) -> Verdict {
    check_within(history, workload, linear::TRIES)
}

/// The same, with so many tries for the search of each tenant.
pub fn check_within(history: &History, workload: &str, tries: u64) -> Verdict {
    let (lives, strays) = lives(history, workload);
    let mut verdict = linear::check(&lives, tries);
    if let Some(first) = strays.first() {
        let why = format!("{} operations, event {first} for one, are of no known tenant", strays.len());
        verdict.not_shown.push(why);
    }
    verdict.merge(order::check(&order::entries(history, workload)));
    verdict.merge(amounts::check(&lives));
    verdict.merge(reads::check(history, workload));
    verdict.merge(agreement::check(history, workload));
    verdict
}
