//! The table of a report: for each workload and fault, how its operations ended while the fault was there.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Verdict;
use super::faults::spells;
use crate::history::{History, Kind, NEMESIS, Outcome};

/// The fault of operations that met none.
pub const NONE: &str = "none";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub workload: String,
    pub fault: String,
    pub operations: u64,
    pub ok: u64,
    pub fail: u64,
    pub unknown: u64,
    pub violations: u64,
}

/// By workload and fault. An operation, or a violation, counts under each fault that was there at its time.
pub fn table(history: &History, verdicts: &[(String, Verdict)]) -> Vec<Count> {
    let spells = spells(history);
    let end = history.events.last().map_or(0, |event| event.time_us);
    let mut counts: BTreeMap<(String, String), Count> = BTreeMap::new();
    let mut count = |workload: &str, from_us: u64, to_us: u64, add: &dyn Fn(&mut Count)| {
        let mut faults: Vec<&str> =
            spells.iter().filter(|spell| spell.overlaps(from_us, to_us)).map(|spell| &*spell.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        for fault in if faults.is_empty() { vec![NONE] } else { faults } {
            let (workload, fault) = (workload.to_owned(), fault.to_owned());
            add(counts.entry((workload.clone(), fault.clone())).or_insert_with(|| Count {
                workload,
                fault,
                ..Count::default()
            }));
        }
    };
    let mut workloads: Vec<&str> = history.events.iter().map(|event| &*event.workload).collect();
    workloads.sort_unstable();
    workloads.dedup();
    for workload in workloads.into_iter().filter(|workload| *workload != NEMESIS) {
        // A process ends with an operation of unknown outcome, or goes on: its last word is that of the unknown one.
        let infos =
            history.events.iter().filter(|event| event.workload == workload && event.kind == Kind::Info);
        let gave_up: HashMap<u64, u64> = infos.map(|event| (event.process, event.time_us)).collect();
        for operation in history.operations(workload) {
            let ended = match operation.outcome {
                Outcome::Unknown => gave_up.get(&operation.process).copied().unwrap_or(end),
                Outcome::Ok(_) | Outcome::Fail => operation.completed_us,
            };
            count(workload, operation.invoked_us, ended, &|count| {
                count.operations += 1;
                match operation.outcome {
                    Outcome::Ok(_) => count.ok += 1,
                    Outcome::Fail => count.fail += 1,
                    Outcome::Unknown => count.unknown += 1,
                }
            });
        }
    }
    for (workload, verdict) in verdicts {
        for violation in &verdict.violations {
            let events = history.events.iter().filter(|event| violation.events.contains(&event.index));
            let times: Vec<u64> = events.map(|event| event.time_us).collect();
            let (from, to) = (times.iter().min().copied(), times.iter().max().copied());
            count(workload, from.unwrap_or(0), to.unwrap_or(end), &|count| count.violations += 1);
        }
    }
    counts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::check::Violation;
    use crate::history::Event;

    fn event(index: u64, workload: &str, process: u64, kind: Kind, f: &str) -> Event {
        Event {
            index,
            time_us: index * 10,
            workload: workload.to_owned(),
            process,
            kind,
            f: f.to_owned(),
            value: Value::Null,
            error: None,
        }
    }

    #[test]
    fn operations_count_under_the_faults_that_they_met() {
        let events = vec![
            event(0, "account", 1, Kind::Invoke, "reserve"),
            event(1, "account", 1, Kind::Ok, "reserve"),
            event(2, NEMESIS, 9, Kind::Info, "inject:pause-one"),
            event(3, "account", 2, Kind::Invoke, "reserve"),
            event(4, "account", 2, Kind::Info, "reserve"),
            event(5, NEMESIS, 9, Kind::Info, "heal:pause-one"),
            event(6, "account", 3, Kind::Invoke, "settle"),
            event(7, "account", 3, Kind::Fail, "settle"),
            event(8, NEMESIS, 9, Kind::Info, "inject:kill-all"),
        ];
        let violation = Violation { property: "p".into(), detail: "d".into(), events: vec![4] };
        let verdict = Verdict { violations: vec![violation], ..Verdict::default() };
        let table = table(&History { events }, &[("account".to_owned(), verdict)]);
        let row = |fault: &str| table.iter().find(|count| count.fault == fault).unwrap().clone();
        let none = row(NONE);
        assert_eq!((none.operations, none.ok, none.fail, none.unknown, none.violations), (2, 1, 1, 0, 0));
        let paused = row("pause-one");
        assert_eq!((paused.operations, paused.unknown, paused.violations), (1, 1, 1));
        assert_eq!(table.len(), 2);
    }
}
