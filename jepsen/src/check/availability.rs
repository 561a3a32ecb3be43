//! How soon clients were served again when a fault was healed and no other was there.

use std::collections::BTreeMap;

use super::faults::{Spell, spells};
use super::{Verdict, Violation, words};
use crate::history::{History, Kind, NEMESIS};

/// As promised.
pub const RECOVERY_MAX_US: u64 = 5_000_000;
const PROPERTY: &str = "availability within 5 s of a healed fault";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub fault: String,
    pub workload: String,
    /// From the healing to the end of the workload's first operation that was answered; `None`: none was before the next
    /// fault, or the end.
    pub took_us: Option<u64>,
    /// How long the record goes on, to the next fault or the end of the workload.
    pub watched_us: u64,
    pub event: u64,
}

/// Of each fault that was healed while no other was there, and each workload.
pub fn recoveries(history: &History) -> Vec<Recovery> {
    let spells = spells(history);
    let mut served: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for event in history.events.iter().filter(|event| event.workload != NEMESIS) {
        // A stale read needs no quorum; a last one is made when nobody else asks anything.
        if [words::STALE_READ, words::FINAL_READ, words::INVARIANTS].contains(&event.f.as_str()) {
            continue;
        }
        ends.insert(&event.workload, event.time_us);
        let served = served.entry(&event.workload).or_default();
        if event.kind == Kind::Ok {
            served.push(event.time_us);
        }
    }
    let is_alone = |spell: &&Spell| {
        let mut others = spells.iter().filter(|other| other.event != spell.event);
        spell.to_us < u64::MAX && !others.any(|other| other.overlaps(spell.to_us, spell.to_us))
    };
    let of = |spell: &Spell| {
        let next = spells.iter().map(|other| other.from_us).filter(|from| *from > spell.to_us).min();
        let recovery = |(workload, served): (&&str, &Vec<u64>)| {
            let end = ends.get(workload).copied().unwrap_or(0);
            let until = next.unwrap_or(end).min(end);
            let first = served.iter().find(|at| (spell.to_us..=until).contains(*at));
            Recovery {
                fault: spell.fault.clone(),
                workload: (*workload).to_owned(),
                took_us: first.map(|at| at - spell.to_us),
                watched_us: until.saturating_sub(spell.to_us),
                event: spell.event,
            }
        };
        served.iter().map(recovery).collect::<Vec<_>>()
    };
    spells.iter().filter(is_alone).flat_map(of).collect()
}

/// The longest that any workload waited, in microseconds; `None`: nothing was healed, or nobody was served.
pub fn slowest_us(history: &History) -> Option<u64> {
    recoveries(history).iter().filter_map(|recovery| recovery.took_us).max()
}

pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let recoveries = recoveries(history);
    verdict.checked.push((PROPERTY.to_owned(), recoveries.len() as u64));
    for Recovery { fault, workload, took_us, watched_us, event } in recoveries {
        let ms = |us: u64| us / 1_000;
        let detail = match took_us {
            Some(took) if took <= RECOVERY_MAX_US => continue,
            Some(took) => format!("{workload}: first answer {} ms after {fault} was healed", ms(took)),
            None if watched_us < RECOVERY_MAX_US => continue,
            None => format!("{workload}: no answer within {} ms after {fault} was healed", ms(watched_us)),
        };
        verdict.violations.push(Violation { property: PROPERTY.to_owned(), detail, events: vec![event] });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::history::Event;

    fn history(events: &[(u64, &str, Kind, &str)]) -> History {
        let event = |(index, (time_ms, workload, kind, f)): (usize, &(u64, &str, Kind, &str))| Event {
            index: index as u64,
            time_us: time_ms * 1_000,
            workload: (*workload).to_owned(),
            process: 1,
            kind: *kind,
            f: (*f).to_owned(),
            value: Value::Null,
            error: None,
        };
        History { events: events.iter().enumerate().map(event).collect() }
    }

    #[test]
    fn the_first_answer_after_a_heal_counts() {
        let good = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (1_500, "account", Kind::Ok, words::STALE_READ),
            (2_000, "account", Kind::Fail, "reserve"),
            (5_900, "account", Kind::Ok, "reserve"),
        ]);
        assert_eq!(recoveries(&good)[0].took_us, Some(4_900_000));
        assert!(check(&good).passed());
    }

    #[test]
    fn too_late_or_never_is_a_violation_and_too_short_a_look_is_neither() {
        let late = |f, at| {
            history(&[
                (0, NEMESIS, Kind::Info, "inject:kill-one"),
                (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
                (at, "account", Kind::Ok, f),
            ])
        };
        assert!(!check(&late("settle", 6_001)).passed());
        assert!(!check(&late(words::STALE_READ, 6_001)).passed());
        assert!(check(&late(words::STALE_READ, 5_999)).passed());
    }

    #[test]
    fn while_another_fault_is_there_nothing_is_promised() {
        let both = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (500, NEMESIS, Kind::Info, "inject:partition-halves"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (9_000, NEMESIS, Kind::Info, "heal:partition-halves"),
            (9_500, "account", Kind::Ok, "reserve"),
        ]);
        let recoveries = recoveries(&both);
        assert_eq!(recoveries.len(), 1);
        assert_eq!(
            (recoveries[0].fault.as_str(), recoveries[0].took_us),
            ("partition-halves", Some(500_000))
        );
    }
    #[test]
    fn each_workload_has_to_be_served_again() {
        let one_only = history(&[
            (0, "account", Kind::Ok, "reserve"),
            (0, "policy", Kind::Ok, "request"),
            (0, NEMESIS, Kind::Info, "begin:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (1_100, "account", Kind::Ok, "reserve"),
            (6_500, "policy", Kind::Fail, "request"),
        ]);
        assert_eq!(slowest_us(&one_only), Some(100_000));
        let verdict = check(&one_only);
        assert_eq!(verdict.checked[0].1, 2);
        assert_eq!(verdict.violations.len(), 1);
        assert!(verdict.violations[0].detail.starts_with("policy: no answer"), "{verdict:?}");
    }
}
