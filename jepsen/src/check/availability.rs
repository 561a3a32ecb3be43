//! How soon clients were served again when a fault was healed and no other was there. Not every answer is service: an error
//! of a gateway is none, nor is what a process says without asking a quorum.

use std::collections::BTreeMap;

use serde_json::Value;

use super::faults::{Spell, spells};
use super::{Verdict, Violation, words};
use crate::history::{Event, History, Kind, NEMESIS};

/// As promised.
pub const RECOVERY_MAX_US: u64 = 5_000_000;
const PROPERTY: &str = "availability within 5 s of a healed fault";
/// The nemesis's event when the time of the clients is up: what comes after it are last reads.
pub const CLIENTS_STOP: &str = "clients-stop";
/// A stale read needs no quorum, nor does what a gateway shows of itself; a node that reads accounts beside the requests of
/// a workload does not serve these.
const LOOKS: [&str; 4] = [words::STALE_READ, words::SEEN, words::ROLLOUT, words::ACCOUNTS];
/// From here on a status says that a gateway, or what is behind it, could not serve. A limit (429) is a decision.
const ERROR_STATUS: u64 = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub fault: String,
    pub workload: String,
    /// From the healing to the end of the workload's first operation that was answered; `None`: none was before the next
    /// fault, or the end.
    pub took_us: Option<u64>,
    /// How long clients were there, to the next fault or the end of the workload.
    pub watched_us: u64,
    pub event: u64,
}

/// Of each fault that was healed while no other was there, and each workload.
pub fn recoveries(history: &History) -> Vec<Recovery> {
    let spells = spells(history);
    let mut served: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let stop = history.faults().find(|event| event.f == CLIENTS_STOP).map(|event| event.time_us);
    let of_clients = |event: &&Event| {
        // What was not asked for, such as a provider's record, may be written down late.
        let is_asked = event.process != u64::MAX;
        event.workload != NEMESIS && is_asked && event.time_us <= stop.unwrap_or(u64::MAX) && !is_last(event)
    };
    for event in history.events.iter().filter(of_clients) {
        ends.insert(&event.workload, event.time_us);
        let served = served.entry(&event.workload).or_default();
        if is_service(event) {
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
            // Clients that all hang leave no events.
            let end = stop.or(ends.get(workload).copied()).unwrap_or(0);
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

/// Made when nobody else asks anything.
fn is_last(event: &Event) -> bool {
    [words::FINAL_READ, words::INVARIANTS, words::FINAL_ACCOUNTS].contains(&event.f.as_str())
}

/// The end of an operation with an answer that is of use.
fn is_service(event: &Event) -> bool {
    let status = || event.value.get("status").and_then(Value::as_u64);
    event.kind == Kind::Ok
        && !LOOKS.contains(&event.f.as_str())
        && (event.f != words::CHAT || status().is_some_and(|status| status < ERROR_STATUS))
}

/// The longest that any workload waited, in microseconds; `None`: nothing was healed, or nobody was served.
pub fn slowest_us(history: &History) -> Option<u64> {
    recoveries(history).iter().filter_map(|recovery| recovery.took_us).max()
}

pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let recoveries = recoveries(history);
    // Where the next fault came too soon, nothing was shown.
    let decided = |one: &&Recovery| one.took_us.is_some() || one.watched_us >= RECOVERY_MAX_US;
    verdict.checked.push((PROPERTY.to_owned(), recoveries.iter().filter(decided).count() as u64));
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
    fn errors_and_what_gateways_show_of_themselves_are_no_service() {
        let healed = |f: &str, status: u64| {
            let mut history = history(&[
                (0, NEMESIS, Kind::Info, "inject:kill-one"),
                (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
                (1_500, "gateway", Kind::Ok, f),
                (6_500, "gateway", Kind::Fail, words::CHAT),
            ]);
            history.events[2].value = serde_json::json!({"status": status});
            check(&history)
        };
        for (f, status, is_served) in [
            (words::CHAT, 200, true),
            (words::CHAT, 429, true),
            (words::CHAT, 503, false),
            (words::SEEN, 200, false),
            (words::ROLLOUT, 200, false),
            (words::ACCOUNTS, 200, false),
        ] {
            assert_eq!(healed(f, status).passed(), is_served, "{f} {status}");
        }
    }

    #[test]
    fn when_clients_have_stopped_nobody_waits() {
        let mut stopped = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (900, "account", Kind::Fail, "reserve"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (2_000, NEMESIS, Kind::Info, CLIENTS_STOP),
            (9_000, "account", Kind::Ok, words::READ),
        ]);
        assert!(check(&stopped).passed());
        // Until then they are there, also if they all hang.
        stopped.events[3].time_us = 8_000_000;
        assert!(!check(&stopped).passed());
    }

    #[test]
    fn what_the_next_fault_cut_short_has_shown_nothing() {
        let cut = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (3_000, NEMESIS, Kind::Info, "begin:kill-one"),
            (9_000, "account", Kind::Fail, "reserve"),
        ]);
        assert_eq!(check(&cut).checked[0].1, 0);
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
