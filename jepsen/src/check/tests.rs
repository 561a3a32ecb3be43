//! The checkers against the real ledger: what it does is accepted, what a bug would do is found.

use proptest::prelude::*;

use super::Verdict;
use super::accounts::check_within;
use super::words::{FINAL_READ, TENANT};
use crate::history::{History, Kind};

use super::simulated::{Bug, WORKLOAD, simulate};

const STEPS: usize = 60;
/// Seeds with which each bug is tried; some give it no occasion.
const SEEDS: u64 = 8;
const TRIES: u64 = 4_000;

fn check(history: &History) -> Verdict {
    check_within(history, WORKLOAD, TRIES)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_the_ledger_does_is_accepted(seed: u64) {
        let history = simulate(seed, None, STEPS).unwrap();
        let verdict = check(&history);
        // A search may give up: it has few tries here.
        let found = (&verdict.violations, &verdict.not_shown);
        prop_assert!(found.0.is_empty() && found.1.is_empty(), "{found:#?}");
    }
}

/// Whenever the bug strikes the history does not pass; mostly by a violation of this property.
fn always_found(bug: Bug, by: &str) {
    let histories = (0..SEEDS).filter_map(|seed| simulate(seed, Some(bug), STEPS));
    let verdicts: Vec<Verdict> = histories.map(|history| check(&history)).collect();
    assert!(verdicts.len() >= 4, "{bug:?} struck {} times", verdicts.len());
    for verdict in &verdicts {
        assert!(!verdict.passed(), "{bug:?} was missed: {verdict:#?}");
    }
    let is_by = |verdict: &&Verdict| verdict.violations.iter().any(|violation| violation.property == by);
    assert!(verdicts.iter().filter(is_by).count() * 2 > verdicts.len(), "{bug:?}: {verdicts:#?}");
}

#[test]
fn operations_of_an_unknown_tenant_are_not_passed_over() {
    let mut history = simulate(1, None, STEPS).unwrap();
    let tenant = history.events.iter().position(|event| event.f == TENANT).unwrap();
    history.events.remove(tenant);
    let verdict = check(&history);
    assert!(verdict.not_shown.iter().any(|why| why.contains("no known tenant")), "{verdict:?}");
}

#[test]
fn a_node_that_did_not_show_a_tenant_at_the_end_does_not_agree() {
    let whole = simulate(1, None, STEPS).unwrap();
    let last = whole.events.iter().rposition(|event| event.f == FINAL_READ).unwrap();
    let mut gone = whole.clone();
    let process = gone.events[last].process;
    gone.events.retain(|event| event.process != process);
    assert!(check(&gone).not_shown.iter().any(|why| why.starts_with("agreement: 2 of 3 nodes")));
    let mut other = whole;
    other.events[last].value = "a word of another release".into();
    assert!(check(&other).not_shown.iter().any(|why| why.contains("of an unknown kind (read-final)")));
}

#[test]
fn only_answers_count_as_checked() {
    let mut history = simulate(1, None, STEPS).unwrap();
    history
        .events
        .iter_mut()
        .filter(|event| event.kind == Kind::Ok)
        .for_each(|event| event.kind = Kind::Fail);
    let verdict = check(&history);
    let count = verdict.checked.iter().find(|(property, _)| property == "linearizable: answers");
    assert_eq!(count.map(|(_, count)| *count), Some(0));
}

#[test]
fn a_lost_write_is_found() {
    always_found(Bug::LostWrite, "linearizable");
}

#[test]
fn a_settlement_applied_twice_is_found() {
    always_found(Bug::AppliedTwice, "exactly once");
}

#[test]
fn a_read_of_the_past_is_found() {
    always_found(Bug::StaleRead, "replayed in log order");
}

#[test]
fn a_partial_reservation_is_found() {
    always_found(Bug::PartialReservation, "linearizable");
}

#[test]
fn a_node_that_goes_back_is_found() {
    always_found(Bug::ReadBack, "stale reads never go back");
}

#[test]
fn an_expiry_before_the_deadline_is_found() {
    always_found(Bug::EarlyExpiry, "replayed in log order");
}

#[test]
fn a_replay_that_is_a_new_reservation_is_found() {
    always_found(Bug::ReplayedAsNew, "linearizable");
}
