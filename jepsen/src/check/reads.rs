//! A node's stale answers never go back while its process lives: of two reads over one connection, the later one saw at
//! least as much. Reads over different connections are not compared: between them, the process may be another one.

use std::collections::BTreeMap;

use super::forward::{Reading, back};
use super::words::{self, Snapshot};
use super::{Verdict, Violation};
use crate::history::History;

pub fn check(history: &History, workload: &str) -> Verdict {
    let mut by_connection: BTreeMap<(u64, u64), Vec<Reading>> = BTreeMap::new();
    let mut reads = 0;
    for operation in history.operations(workload) {
        if operation.f != words::STALE_READ && operation.f != words::FINAL_READ {
            continue;
        }
        let Some(seen) = words::answer::<Snapshot>(&operation) else { continue };
        reads += 1;
        by_connection.entry((seen.node, seen.connection)).or_default().push(Reading {
            invoked_us: operation.invoked_us,
            completed_us: operation.completed_us,
            value: seen.index,
            event: operation.index,
        });
    }
    let mut verdict = Verdict::default();
    verdict.checked.push(("stale reads never go back: reads".to_owned(), reads));
    for ((node, _), reads) in by_connection {
        verdict.violations.extend(back(reads).into_iter().map(|(before, after)| Violation {
            property: "stale reads never go back".to_owned(),
            detail: format!("node {node} had shown index {}, and then showed {}", before.value, after.value),
            events: vec![before.event, after.event],
        }));
    }
    verdict
}
