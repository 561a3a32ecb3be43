//! A node's stale answers never go back while its process lives: of two reads over one connection, the later one saw at
//! least as much.

use std::collections::BTreeMap;

use super::words::{self, Snapshot};
use super::{Verdict, Violation};
use crate::history::History;

pub fn check(history: &History, workload: &str) -> Verdict {
    let mut by_connection: BTreeMap<(u64, u64), Vec<(u64, u64, u64, u64)>> = BTreeMap::new();
    let mut reads = 0;
    for operation in history.operations(workload) {
        if operation.f != words::STALE_READ && operation.f != words::FINAL_READ {
            continue;
        }
        let Some(seen) = words::answer::<Snapshot>(&operation) else { continue };
        reads += 1;
        let read = (operation.invoked_us, operation.completed_us, seen.index, operation.index);
        by_connection.entry((seen.node, seen.connection)).or_default().push(read);
    }
    let mut verdict = Verdict::default();
    verdict.checked.push(("stale reads never go back: reads".to_owned(), reads));
    for ((node, _), mut reads) in by_connection {
        reads.sort_unstable();
        let mut ended = reads.clone();
        ended.sort_unstable_by_key(|(_, completed, ..)| *completed);
        let (mut ended, mut highest) = (ended.into_iter().peekable(), (0, 0));
        for (invoked, _, index, event) in reads {
            while let Some((_, _, index, event)) = ended.next_if(|(_, completed, ..)| *completed < invoked) {
                highest = highest.max((index, event));
            }
            if index < highest.0 {
                verdict.violations.push(Violation {
                    property: "stale reads never go back".to_owned(),
                    detail: format!("node {node} had shown index {}, and then showed {index}", highest.0),
                    events: vec![highest.1, event],
                });
            }
        }
    }
    verdict
}
