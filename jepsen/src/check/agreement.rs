//! At the end, when every node has caught up: all show the same accounts, and none finds a property of its ledger broken.

use std::collections::BTreeMap;

use super::words::{self, Call, Invariants, Snapshot};
use super::{Verdict, Violation};
use crate::history::{History, Outcome};

pub fn check(history: &History, workload: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let mut last: BTreeMap<String, Vec<(u64, Snapshot)>> = BTreeMap::new();
    let mut ledgers = 0;
    for operation in history.operations(workload) {
        let is_read = operation.f == words::FINAL_READ;
        if !is_read && operation.f != words::INVARIANTS {
            continue;
        }
        let call = Call::from_history(&operation).unwrap_or_default();
        if !matches!(operation.outcome, Outcome::Ok(_)) {
            verdict
                .not_shown
                .push(format!("node {} could not be asked at the end ({})", call.node, operation.f));
            continue;
        }
        let seen = words::answer(&operation).filter(|_| is_read);
        let found = words::answer::<Invariants>(&operation).filter(|_| !is_read);
        if let Some(seen) = seen {
            last.entry(call.tenant).or_default().push((operation.index, seen));
        } else if let Some(found) = found {
            ledgers += 1;
            verdict.violations.extend(found.violations.into_iter().map(|detail| Violation {
                property: "ledger's own invariants".to_owned(),
                detail: format!("node {}: {detail}", found.node),
                events: vec![operation.index],
            }));
        } else {
            let why = format!("event {}: an answer of an unknown kind ({})", operation.index, operation.f);
            verdict.not_shown.push(why);
        }
    }
    let nodes = last.values().map(Vec::len).max().unwrap_or(0);
    verdict.checked.push(("agreement: tenants".to_owned(), last.len() as u64));
    verdict.checked.push(("ledger's own invariants: nodes".to_owned(), ledgers));
    for (tenant, seen) in last {
        if seen.len() < nodes.max(2) {
            let why = format!("agreement: {} of {nodes} nodes showed tenant {tenant} at the end", seen.len());
            verdict.not_shown.push(why);
        }
        let Some(((first_event, first), others)) = seen.split_first() else { continue };
        for (event, other) in others.iter().filter(|(_, other)| other.accounts != first.accounts) {
            verdict.violations.push(Violation {
                property: "agreement".to_owned(),
                detail: format!(
                    "tenant {tenant}: node {} has {:?}, node {} has {:?}",
                    first.node, first.accounts, other.node, other.accounts
                ),
                events: vec![*first_event, *event],
            });
        }
    }
    verdict
}
