//! Histories made by hand: good ones, and for each property one that breaks it.

use super::*;
use crate::deploy::SETTLES_BEHIND;
use crate::history::Kind;
use crate::workloads::account_reads::{Seen, Span};
use crate::workloads::gateway::{LEASES, PLAIN};
use crate::workloads::script::{Script, violated};

fn call(marker: &str) -> Call {
    Call {
        marker: marker.to_owned(),
        user: "gateway-0".to_owned(),
        gateway: 0,
        stream: true,
        prompt_bytes: 20,
        max_tokens: 30,
        leave_after: None,
    }
}

fn answer(status: u16, end: End, tokens: u64) -> Answer {
    let tokens = (status == 200 && end == End::Whole).then_some(tokens);
    let (code, backend) = (String::new(), "steady".to_owned());
    Answer { status, code, backend, end, charged: tokens, usage: tokens, received: 3, limit: None }
}

fn served(marker: &str, input: u64, output: u64) -> Served {
    let (backend, marker) = ("steady".to_owned(), marker.to_owned());
    Served { backend, marker, status: 200, input, output, at_us: 0, ended_us: 0 }
}

fn last(spent: u64, reserved: u64, overdraft: u64) -> WindowSnapshot {
    let present =
        Span { start_ms: 0, end_ms: 0, limit: 100 * MICROS, spent: spent * MICROS, reserved, overdraft };
    let account =
        Seen { budget: PLAIN.life.to_owned(), subject: "gateway-0".to_owned(), present, closed: Vec::new() };
    WindowSnapshot { log_index: 9, time_ms: 9, accounts: vec![account] }
}

/// A whole answer of 14, a stream that was left after 3 pieces, a refusal, and one that nobody knows the end of.
fn script() -> Script {
    let mut script = Script::new(PLAIN.name);
    script.ok(CHAT, &call("a"), &answer(200, End::Whole, 14));
    script.info(SERVED, &served("a", 4, 10));
    script.ok(CHAT, &call("b"), &answer(200, End::Left, 0));
    script.info(SERVED, &served("b", 4, 9));
    script.ok(CHAT, &call("c"), &answer(429, End::Whole, 0));
    let lost = script.invoke(CHAT, &call("d"));
    script.info(SERVED, &served("d", 4, 10));
    script.end(lost, Kind::Info, CHAT, &());
    let not_sent = script.invoke(CHAT, &call("e"));
    script.end(not_sent, Kind::Fail, CHAT, &());
    script
}

fn finished(mut script: Script, last: &WindowSnapshot) -> Verdict {
    script.info(COMPLETE, &"steady");
    script.ok(FINAL, &1, last);
    check(&script.history(), &PLAIN)
}

#[test]
fn what_was_charged_is_what_was_served() {
    // 14, at least 7 and at least 14; at most 14 + 20 + 64 + 30 twice.
    for spent in [35, 60, 98] {
        let verdict = finished(script(), &last(spent, 0, 0));
        assert!(verdict.passed(), "{spent}: {verdict:?}");
        assert!(verdict.checked.iter().all(|(_, count)| *count > 0), "{:?}", verdict.checked);
    }
}

#[test]
fn each_property_has_a_history_that_breaks_it() {
    let broken = |change: fn(&mut Script), last: &WindowSnapshot| {
        let mut script = script();
        change(&mut script);
        violated(&finished(script, last)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let good = last(60, 0, 0);
    let differs = |script: &mut Script| {
        script.ok(CHAT, &call("x"), &answer(200, End::Whole, 14));
        script.info(SERVED, &served("x", 4, 11));
    };
    assert_eq!(broken(differs, &good), [EXACT]);
    let twice = |script: &mut Script| script.info(SERVED, &served("d", 4, 1));
    assert_eq!(broken(twice, &good), [ONCE]);
    let unasked = |script: &mut Script| script.info(SERVED, &served("y", 4, 1));
    assert_eq!(broken(unasked, &good), [ONCE]);
    for marker in ["c", "e"] {
        let refused = if marker == "c" {
            |script: &mut Script| script.info(SERVED, &served("c", 4, 1))
        } else {
            |script: &mut Script| script.info(SERVED, &served("e", 4, 1))
        };
        assert_eq!(broken(refused, &good), [FREE], "{marker}");
    }
    let nothing = |_: &mut Script| ();
    assert_eq!(broken(nothing, &last(34, 0, 0)), [COVERED], "less than was served");
    assert_eq!(broken(nothing, &last(60, 1, 0)), [RESOLVED]);
    assert_eq!(broken(nothing, &last(60, 0, 1)), [OVERSPENT]);
    assert_eq!(broken(nothing, &last(101, 0, 0)), [OVERSPENT]);
    assert_eq!(broken(nothing, &last(300, 0, 0)), [COVERED, OVERSPENT], "more than was held");
}

#[test]
fn without_the_record_or_the_last_read_nothing_is_decided() {
    let mut broken_off = script();
    broken_off.ok(CHAT, &call("x"), &answer(200, End::Whole, 14));
    let verdict = check(&broken_off.history(), &PLAIN);
    assert_eq!((verdict.violations.len(), verdict.not_shown.len()), (0, 2), "{verdict:?}");
    let mut lost = broken_off;
    lost.info(LOST, &"steady");
    let verdict = finished(lost, &last(74, 0, 0));
    assert_eq!((verdict.violations.len(), verdict.not_shown.len()), (0, 1), "{verdict:?}");
}

/// One whole answer of 14 by that gateway, 46 that it held then, and what was charged.
fn one_answer(variant: &Variant, gateway: usize, fault: Option<&str>, spent: u64) -> Verdict {
    let mut script = Script::new(variant.name);
    script.ok(CHAT, &Call { gateway: gateway as u64, ..call("a") }, &answer(200, End::Whole, 14));
    script.info(SERVED, &served("a", 4, 10));
    script.info(COMPLETE, &"steady");
    for (f, spent, reserved) in [(ACCOUNTS, 0, 46 * MICROS), (FINAL, spent, 0)] {
        let mut seen = last(spent, reserved, 0);
        seen.accounts[0].budget = variant.life.to_owned();
        script.ok(f, &1, &seen);
    }
    let mut history = script.history();
    if let Some(fault) = fault {
        let mut event = history.events[0].clone();
        (event.workload, event.f) = (crate::history::NEMESIS.to_owned(), format!("inject:{fault}"));
        history.events.push(event);
    }
    check(&history, variant)
}

/// A killed gateway's slices are charged whole, and no more than that; nothing else excuses a charge.
#[test]
fn with_leases_more_is_charged_only_where_a_gateway_was_killed() {
    let history = |fault, spent| one_answer(&LEASES, 0, fault, spent);
    assert!(history(None, 14).passed());
    let killed = Some("kill-gateway");
    for (fault, spent) in [(None, 15), (Some("kill-leader"), 15), (killed, 13), (killed, 61), (None, 13)] {
        assert_eq!(violated(&history(fault, spent)), [COVERED], "{fault:?} {spent}");
    }
    assert!(history(killed, 60).passed());
}

#[test]
fn what_was_lost_in_slices_is_at_most_what_was_held_then() {
    let s = |at: u64| at * 1_000_000;
    let reads = [(1, 90), (10, 20), (12, 30), (14, 25), (30, 70)].map(|(at, held)| (s(at), s(at) + 1, held));
    for (slices, most) in [
        (vec![], 0),
        (vec![(s(10), s(11))], 30),
        (vec![(s(10), s(11)), (s(13), s(13))], 55),
        (vec![(s(27), s(28))], 70),
        // Nobody could read.
        (vec![(s(40), s(42))], 90),
    ] {
        assert_eq!(lost(&reads, &slices), most, "{slices:?}");
    }
}

/// Its answers do not wait for their settlements: a kill may come between, and then what was reserved is charged.
#[test]
fn the_gateway_that_settles_behind_is_charged_more_only_where_one_was_killed() {
    let killed = Some("kill-gateway");
    for (gateway, fault, spent) in
        [(SETTLES_BEHIND, None, 14), (SETTLES_BEHIND, killed, 14), (SETTLES_BEHIND, killed, 100)]
    {
        assert!(one_answer(&PLAIN, gateway, fault, spent).passed(), "{gateway} {fault:?} {spent}");
    }
    for (gateway, fault, spent) in [(SETTLES_BEHIND, None, 15), (SETTLES_BEHIND, killed, 13), (0, killed, 15)]
    {
        assert_eq!(
            violated(&one_answer(&PLAIN, gateway, fault, spent)),
            [COVERED],
            "{gateway} {fault:?} {spent}"
        );
    }
}
