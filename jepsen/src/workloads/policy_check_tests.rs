//! Histories made by hand: a good one, and for each property one that breaks it.

use super::*;
use crate::history::Kind;
use crate::workloads::script::{Script, violated};

fn apply(marker: &str, limit: u64, expected: Option<u64>, back_to: Option<u64>) -> Apply {
    Apply { marker: marker.to_owned(), limit, back_to, expected }
}

fn made(version: u64) -> Applied {
    Applied { version: Some(version), changed: true }
}

const REFUSED: Applied = Applied { version: None, changed: false };

/// Of those who ask for 1: all of it is gone where one is denied.
fn decided(granted: bool, log_index: u64, limit: u64) -> Decision {
    let taken = if granted { limit / 2 * MICROS } else { limit * MICROS };
    Decision { granted, log_index, limit: Some(limit * MICROS), taken, other: String::new() }
}

fn list(versions: &[(u64, &str)]) -> Versions {
    let versions = versions.iter().map(|(version, comment)| (*version, (*comment).to_owned())).collect();
    Versions { log_index: 1, versions }
}

fn running(life: u64, version: u64) -> Running {
    Running { life, version }
}

/// Version 3 at the beginning; 4 by `a` at 100 to 103 ms, of which `b` knew nothing; 5 by nobody knows, at 200 ms or later;
/// 6 goes back to 4 at 300 ms.
fn script() -> Script {
    let mut script = Script::new(NAME);
    script.ok(VERSIONS, &1, &list(&[(3, "first"), (2, ""), (1, "")]));
    script.at(50).ok(RESERVE, &1, &decided(true, 10, INITIAL));
    let a = script.at(100).invoke(APPLY, &apply("a", 200, Some(3), None));
    // Meanwhile either may decide, in this order.
    script.ok(RESERVE, &1, &decided(true, 11, INITIAL));
    script.ok(RESERVE, &1, &decided(true, 13, 200));
    script.end(a, Kind::Ok, APPLY, &made(4));
    script.ok(APPLY, &apply("b", 300, Some(3), None), &REFUSED);
    script.ok(ROLLOUT, &0, &running(1, 3));
    script.ok(ROLLOUT, &0, &running(1, 4));
    script.at(150).ok(RESERVE, &1, &decided(false, 14, 200));
    let c = script.at(200).invoke(APPLY, &apply("c", 500, None, None));
    script.end(c, Kind::Info, APPLY, &());
    script.at(250).ok(RESERVE, &1, &decided(true, 15, 200));
    script.at(260).ok(RESERVE, &1, &decided(true, 17, 500));
    script.at(300).ok(APPLY, &apply("d", 0, None, Some(4)), &made(6));
    script.at(310).ok(RESERVE, &1, &decided(false, 0, 200));
    script.at(320).ok(RESERVE, &1, &decided(true, 20, 200));
    script.at(900);
    script
}

const LAST: [(u64, &str); 4] = [(6, "d"), (5, "c"), (4, "a"), (3, "first")];

fn finished(mut script: Script, last: &[(u64, &str)]) -> Verdict {
    script.ok(VERSIONS, &1, &list(last));
    check(&script.history())
}

#[test]
fn every_decision_is_of_a_version_in_force() {
    let verdict = finished(script(), &LAST);
    assert!(verdict.passed(), "{verdict:?}");
    assert!(verdict.checked.iter().all(|(_, count)| *count > 0), "{:?}", verdict.checked);
}

#[test]
fn each_property_has_a_history_that_breaks_it() {
    type Change = fn(&mut Script);
    let table: [(&str, Change, &[&str]); 13] = [
        ("a limit that never was", |script| script.ok(RESERVE, &1, &decided(true, 30, 7)), &[AGREES]),
        ("an old limit", |script| script.ok(RESERVE, &1, &decided(true, 30, INITIAL)), &[AGREES]),
        (
            "a limit before its time",
            |script| script.at(60).ok(RESERVE, &1, &decided(true, 9, 200)),
            &[AGREES],
        ),
        (
            "back and forth in the log",
            |script| script.at(255).ok(RESERVE, &1, &decided(true, 18, 200)),
            &[ORDER],
        ),
        (
            "above the limit",
            |script| script.ok(RESERVE, &1, &Decision { taken: 201 * MICROS, ..decided(true, 30, 200) }),
            &[ABOVE],
        ),
        (
            "room for it",
            |script| script.ok(RESERVE, &1, &Decision { taken: 200 * MICROS - 1, ..decided(false, 30, 200) }),
            &[ROOM],
        ),
        ("a gateway goes back", |script| script.ok(ROLLOUT, &0, &running(1, 3)), &[ROLLOUTS]),
        ("a version from nowhere", |script| script.ok(ROLLOUT, &0, &running(1, 9)), &[ROLLOUTS]),
        (
            "two who expected the same",
            |script| script.ok(APPLY, &apply("x", 700, Some(3), None), &made(7)),
            &[ONE],
        ),
        ("a version twice", |script| script.ok(APPLY, &apply("x", 700, None, None), &made(6)), &[ONE]),
        (
            "refused without a reason",
            |script| script.ok(APPLY, &apply("x", 700, Some(6), None), &REFUSED),
            &[ONE],
        ),
        ("a gap", |script| script.ok(VERSIONS, &1, &list(&[(6, "d"), (4, "a")])), &[GAPS]),
        ("an older list", |script| script.ok(VERSIONS, &1, &list(&[(5, "c"), (4, "a")])), &[GAPS]),
    ];
    for (name, change, expected) in table {
        let mut script = script();
        change(&mut script);
        script.at(1_000);
        let mut verdict = finished(script, &LAST);
        if name == "an older list" {
            let mut again = self::script();
            again.ok(VERSIONS, &1, &list(&LAST));
            again.at(950);
            change(&mut again);
            verdict = finished(again, &LAST);
        }
        assert_eq!(violated(&verdict), expected, "{name}: {verdict:?}");
    }
}

#[test]
fn who_was_refused_is_not_in_force_and_a_new_process_may_be_behind() {
    let last = [(7, "b"), (6, "d"), (5, "c"), (4, "a"), (3, "first")];
    assert!(violated(&finished(script(), &last)).contains(&ONE));
    let changed = [(6, "d"), (5, "c"), (4, "z"), (3, "first")];
    assert!(violated(&finished(script(), &changed)).contains(&ONE), "`a` was told that it made version 4");
    let mut behind = script();
    behind.ok(ROLLOUT, &0, &running(2, 3));
    assert!(finished(behind, &LAST).passed());
}

#[test]
fn decisions_of_one_entry_may_be_told_in_any_order() {
    for (second, expected) in [(12, vec![]), (13, vec![ORDER])] {
        let mut script = Script::new(NAME);
        script.ok(VERSIONS, &1, &list(&[(3, "first"), (2, ""), (1, "")]));
        let a = script.at(100).invoke(APPLY, &apply("a", 200, Some(3), None));
        script.ok(RESERVE, &1, &decided(true, 12, 200));
        script.ok(RESERVE, &1, &decided(true, second, INITIAL));
        script.end(a, Kind::Ok, APPLY, &made(4));
        assert_eq!(violated(&finished(script, &[(4, "a"), (3, "first")])), expected);
    }
}
