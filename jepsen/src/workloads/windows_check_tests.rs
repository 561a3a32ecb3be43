//! Histories made by hand: a good one, and for each property one that breaks it.

use super::*;
use crate::history::Kind;
use crate::workloads::script::{Script, violated};

/// A whole minute.
const T: u64 = 1_790_000_040_000;
const SUBJECT: &str = "windows-0";

fn reserve(id: &str, tokens: u64) -> Reserve {
    Reserve { id: id.to_owned(), subject: SUBJECT.to_owned(), amount: tokens * MICROS, ttl_ms: 1_000 }
}

fn granted(at_ms: u64, log_index: u64) -> Reserved {
    let ends = [(0, at_ms - at_ms % 1_000 + 1_000), (1, at_ms - at_ms % 60_000 + 60_000)];
    let resets = ends.map(|(budget, end): (usize, u64)| (BUDGETS[budget].to_owned(), end)).to_vec();
    Reserved { deadline_ms: Some(at_ms + 1_000), why: String::new(), log_index, tries: 1, resets }
}

fn resolve(id: &str, actual: Option<u64>) -> Resolve {
    Resolve { id: id.to_owned(), actual: actual.map(|tokens| tokens * MICROS) }
}

fn done(log_index: u64) -> Resolved {
    Resolved { done: true, why: String::new(), log_index, tries: 1 }
}

fn span(start_ms: u64, length_ms: u64, spent: u64, reserved: u64) -> Span {
    Span {
        start_ms,
        end_ms: start_ms + length_ms,
        limit: 100 * MICROS,
        spent: spent * MICROS,
        reserved: reserved * MICROS,
        overdraft: 0,
    }
}

/// Of the minute's budget: all of it is in one window.
fn minute(taken: u64) -> Seen {
    let (budget, subject) = (BUDGETS[1].to_owned(), SUBJECT.to_owned());
    Seen { budget, subject, present: span(T, 60_000, taken, 0), closed: Vec::new() }
}

/// Of the first budget: its windows of this second and the one before.
fn seconds(log_index: u64, before: u64, now: u64) -> WindowSnapshot {
    let account = Seen {
        budget: BUDGETS[0].to_owned(),
        subject: SUBJECT.to_owned(),
        present: span(T + 1_000, 1_000, now, 0),
        closed: vec![span(T, 1_000, before, 0)],
    };
    WindowSnapshot { log_index, time_ms: T + 1_900, accounts: vec![account, minute(before + now)] }
}

/// 10 in the first second, of which 4 are used and settled in the next; 20 in the second, released; 30 that expire.
fn script() -> Script {
    let mut script = Script::new(NAME);
    script.ok(RESERVE, &reserve("a", 10), &granted(T + 500, 10));
    script.ok(RESERVE, &reserve("b", 20), &granted(T + 1_100, 12));
    script.ok(RESERVE, &reserve("c", 30), &granted(T + 1_200, 13));
    script.ok(SETTLE, &resolve("a", Some(4)), &done(14));
    script.ok(RELEASE, &resolve("b", None), &done(16));
    script
}

fn finished(mut script: Script, snapshots: &[WindowSnapshot]) -> Verdict {
    for snapshot in snapshots {
        script.ok(FINAL, &1, snapshot);
    }
    check(&script.history())
}

#[test]
fn sums_are_right_at_every_point_of_the_log() {
    for (index, before, now) in
        [(10, 10, 0), (12, 10, 20), (13, 10, 50), (14, 4, 50), (16, 4, 30), (99, 4, 30)]
    {
        let verdict = finished(script(), &[seconds(index, before, now)]);
        let others = violated(&verdict).iter().any(|property| *property != TIME);
        assert!(!others && verdict.not_shown.is_empty(), "{index}: {verdict:?}");
    }
    let verdict = finished(script(), &[seconds(16, 4, 30)]);
    assert!(verdict.passed(), "{verdict:?}");
    assert!(verdict.checked.iter().all(|(_, count)| *count > 0), "{:?}", verdict.checked);
}

#[test]
fn a_settlement_in_another_window_is_seen() {
    for (before, now) in [(0, 34), (4, 34), (10, 30), (4, 50), (4, 0)] {
        let verdict = finished(script(), &[seconds(16, before, now)]);
        assert_eq!(violated(&verdict), [OWN], "{before} {now}");
    }
}

#[test]
fn a_window_that_is_missing_is_seen() {
    let mut gone = seconds(16, 4, 30);
    // Over, and so it may be forgotten.
    gone.accounts[0].closed.clear();
    assert!(finished(script(), &[gone.clone()]).passed());
    gone.accounts.clear();
    assert_eq!(violated(&finished(script(), &[gone.clone()])), [OWN]);
    gone.time_ms = T + 90_000;
    assert!(finished(script(), &[gone]).passed());
}

#[test]
fn what_is_unknown_may_be_either() {
    let mut settled = Script::new(NAME);
    settled.ok(RESERVE, &reserve("a", 10), &granted(T + 500, 10));
    let process = settled.invoke(SETTLE, &resolve("a", Some(4)));
    settled.end(process, Kind::Info, SETTLE, &());
    let mut reserved = Script::new(NAME);
    let process = reserved.invoke(RESERVE, &reserve("a", 10));
    reserved.end(process, Kind::Info, RESERVE, &());
    let mut again = Script::new(NAME);
    again.ok(RESERVE, &reserve("a", 10), &Reserved { tries: 2, ..granted(T + 500, 30) });
    // Refused as too old, after a try without an answer.
    let forgotten = Reserved { why: "Refused(StaleId)".to_owned(), tries: 2, ..Reserved::default() };
    let mut refused = Script::new(NAME);
    refused.ok(RESERVE, &reserve("a", 10), &forgotten);
    let mut denied = Script::new(NAME);
    denied.ok(RESERVE, &reserve("a", 10), &Reserved { why: format!("{DENIED}: x"), ..forgotten });
    let mut ended = Script::new(NAME);
    ended.ok(RESERVE, &reserve("a", 10), &granted(T + 500, 10));
    ended.ok(SETTLE, &resolve("a", Some(4)), &Resolved { done: false, tries: 2, ..done(15) });
    let table = [
        (refused, vec![(0, 0), (10, 0), (0, 10)], vec![(11, 0)]),
        (denied, vec![(0, 0)], vec![(10, 0)]),
        (ended, vec![(4, 0), (10, 0)], vec![(3, 0)]),
        (settled, vec![(4, 0), (10, 0)], vec![(3, 0), (11, 0)]),
        (reserved, vec![(0, 0), (10, 0), (0, 10)], vec![(11, 0), (0, 11)]),
        // Before its answer in the log it may have been granted, in its own window.
        (again, vec![(0, 0), (10, 0)], vec![(0, 10)]),
    ];
    for (script, good, bad) in table {
        for (sums, expected) in good.iter().map(|sums| (sums, 0)).chain(bad.iter().map(|sums| (sums, 1))) {
            let mut history = script.history();
            let mut last = Script::new(NAME);
            last.now_us = 1_000_000;
            last.ok(FINAL, &1, &seconds(20, sums.0, sums.1));
            history.events.extend(last.history().events.into_iter().map(|mut event| {
                event.process += 100;
                event
            }));
            let verdict = check(&history);
            let own = verdict.violations.iter().any(|violation| violation.property == OWN);
            assert_eq!(own, expected == 1, "{sums:?}: {verdict:?}");
        }
    }
}

#[test]
fn slices_count_from_the_oldest_that_is_shown() {
    let sliding = |start_ms: u64, taken: u64, time_ms: u64| {
        let present = span(start_ms, SLIDING_MS + 84, taken, 0);
        let (budget, subject) = (BUDGETS[2].to_owned(), SUBJECT.to_owned());
        let account = Seen { budget, subject, present, closed: Vec::new() };
        WindowSnapshot { log_index: 16, time_ms, accounts: vec![account, minute(34)] }
    };
    for (start_ms, taken, time_ms, expected) in [
        (T + 450, 34, T + 5_000, vec![]),
        (T + 450, 30, T + 5_000, vec![OWN]),
        (T + 1_150, 30, T + 5_700, vec![]),
        (T + 1_150, 34, T + 5_700, vec![OWN]),
        (T + 6_300, 0, T + 6_350, vec![]),
        (T + 450, 34, T + 5_700, vec![ALIGNED]),
    ] {
        let verdict = finished(script(), &[sliding(start_ms, taken, time_ms)]);
        assert_eq!(violated(&verdict), expected, "{taken} at {}: {verdict:?}", time_ms - T);
    }
}

#[test]
fn each_other_property_has_a_history_that_breaks_it() {
    let mut over = seconds(16, 4, 30);
    over.accounts[0].closed[0].limit = 3 * MICROS;
    assert_eq!(violated(&finished(script(), &[over.clone()])), [OVERSPENT]);
    over.accounts[0].closed[0].overdraft = MICROS;
    assert!(finished(script(), &[over]).passed());
    let mut off = seconds(16, 4, 30);
    off.accounts[0].closed.push(span(T - 999, 1_000, 0, 0));
    assert_eq!(violated(&finished(script(), &[off])), [ALIGNED]);
    let mut twice = seconds(16, 4, 30);
    twice.accounts[0].closed.push(span(T, 1_000, 4, 0));
    assert_eq!(violated(&finished(script(), &[twice])), [ALIGNED]);
    let mut back = script();
    back.ok(RESERVE, &reserve("d", 0), &granted(T + 400, 15));
    assert_eq!(violated(&finished(back, &[seconds(16, 4, 30)])), [TIME]);
    let mut wrong = script();
    let mut answer = granted(T + 1_700, 15);
    answer.resets[0].1 += 1_000;
    wrong.ok(RESERVE, &reserve("d", 0), &answer);
    assert_eq!(violated(&finished(wrong, &[seconds(16, 4, 30)])), [NAMED]);
    assert!(!finished(script(), &[]).not_shown.is_empty());
}
