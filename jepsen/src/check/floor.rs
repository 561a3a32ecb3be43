//! A run in which hardly anybody is served breaks nothing, and shows as little: of what each workload asked while no fault was
//! there, a share must have been served or decided.

use serde_json::Value;

use super::availability::CLIENTS_STOP;
use super::counts::NONE;
use super::faults::{Spell, spells};
use super::words;
use crate::history::{History, Operation, Outcome};

/// One in so many. Runs had twice that and more: many requests are refused for a limit, on purpose.
const ONE_IN: usize = 5;

/// What is missing, in words.
pub fn missing(history: &History, workload: &str) -> Vec<String> {
    let stop = history.faults().find(|event| event.f == CLIENTS_STOP);
    let stop_us = stop.map_or(u64::MAX, |event| event.time_us);
    let spells: Vec<Spell> = spells(history).into_iter().filter(|spell| spell.fault != NONE).collect();
    let was_quiet = |operation: &&Operation| {
        let Operation { invoked_us, completed_us, .. } = **operation;
        // What never had an answer may have been given up before the next fault.
        let ended_us = if completed_us == u64::MAX { invoked_us } else { completed_us };
        invoked_us < stop_us && !spells.iter().any(|spell| spell.overlaps(invoked_us, ended_us))
    };
    let operations = history.operations(workload);
    let share = |what: &str, is_meant: fn(&Operation) -> bool, is_good: fn(&Operation) -> bool| {
        let asked = || operations.iter().filter(|operation| is_meant(operation));
        let all = asked().filter(was_quiet).count();
        let good = asked().filter(was_quiet).filter(|operation| is_good(operation)).count();
        // A workload that never asks for it is not about it.
        let enough = asked().next().is_none() || (good > 0 && good * ONE_IN >= all);
        (!enough).then(|| format!("{good} of {all} {what} while there was no fault: less than a fifth"))
    };
    let mut missing: Vec<String> = [
        share("requests were served", is_chat, is_served),
        share("operations were decided", is_decision, |operation| {
            matches!(operation.outcome, Outcome::Ok(_))
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !operations.iter().any(|operation| is_chat(operation) || is_decision(operation)) {
        missing.push("nobody asked for anything".to_owned());
    }
    missing
}

fn is_chat(operation: &Operation) -> bool {
    operation.f == words::CHAT
}

fn is_decision(operation: &Operation) -> bool {
    words::DECISIONS.contains(&operation.f.as_str())
}

fn is_served(operation: &Operation) -> bool {
    matches!(&operation.outcome, Outcome::Ok(value) if value.get("status").and_then(Value::as_u64) == Some(200))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::{Event, Kind, NEMESIS};

    /// One operation after the other, a millisecond each; the fault is there in between.
    fn history(f: &str, ends: &[(Kind, u64)], fault: Option<(&str, &[(Kind, u64)])>) -> History {
        let mut history = History::default();
        let mut push = |workload: &str, process, kind, f: &str, value| {
            let index = history.events.len() as u64;
            let (workload, f, time_us) = (workload.to_owned(), f.to_owned(), index * 1_000);
            history.events.push(Event { index, time_us, workload, process, kind, f, value, error: None });
        };
        let ask = |ends: &[(Kind, u64)], push: &mut dyn FnMut(&str, u64, Kind, &str, Value)| {
            for (process, (kind, status)) in (0..).zip(ends) {
                push("w", process, Kind::Invoke, f, Value::Null);
                push("w", process, *kind, f, json!({"status": status}));
            }
        };
        ask(ends, &mut push);
        if let Some((name, ends)) = fault {
            push(NEMESIS, u64::MAX, Kind::Info, &format!("inject:{name}"), Value::Null);
            ask(ends, &mut push);
            push(NEMESIS, u64::MAX, Kind::Info, &format!("heal:{name}"), Value::Null);
        }
        push(NEMESIS, u64::MAX, Kind::Info, CLIENTS_STOP, Value::Null);
        // Afterwards it does not count.
        ask(&[(Kind::Fail, 0); 50], &mut push);
        history
    }

    #[test]
    fn a_fifth_is_enough_and_less_is_not() {
        let served = |good: usize, all: usize, refused: u64| {
            let end = |number| (Kind::Ok, if number < good { 200 } else { refused });
            (0..all).map(end).collect::<Vec<_>>()
        };
        for (f, ends, is_enough) in [
            (words::CHAT, served(2, 10, 429), true),
            (words::CHAT, served(1, 10, 429), false),
            (words::CHAT, served(0, 10, 503), false),
            (words::SETTLE, vec![(Kind::Ok, 0), (Kind::Fail, 0), (Kind::Info, 0)], true),
            (words::SETTLE, vec![(Kind::Fail, 0)], false),
            (words::READ, vec![(Kind::Ok, 0)], false),
        ] {
            let missing = missing(&history(f, &ends, None), "w");
            assert_eq!(missing.is_empty(), is_enough, "{f} {ends:?}: {missing:?}");
        }
    }

    #[test]
    fn what_fails_under_a_fault_does_not_count_and_what_is_served_there_does_not_either() {
        let (good, bad) = (&[(Kind::Ok, 200); 9][..], &[(Kind::Ok, 503); 9][..]);
        assert!(missing(&history(words::CHAT, good, Some(("kill-all", bad))), "w").is_empty());
        assert_eq!(missing(&history(words::CHAT, bad, Some(("kill-all", good))), "w").len(), 1);
        assert_eq!(missing(&history(words::CHAT, &[], Some(("kill-all", good))), "w").len(), 1);
        // The fault that is none.
        assert!(missing(&history(words::CHAT, &[], Some((NONE, good))), "w").is_empty());
    }
}
