//! The checkers against the real ledger: what it does is accepted, what a bug would do is found.

use proptest::prelude::*;

use super::accounts::check;
use super::simulated::{Bug, WORKLOAD, simulate};

const STEPS: usize = 60;
/// Seeds with which each bug is tried; some give it no occasion.
const SEEDS: u64 = 12;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_ledger_does_is_accepted(seed: u64) {
        let history = simulate(seed, None, STEPS).unwrap();
        let verdict = check(&history, WORKLOAD);
        prop_assert!(verdict.passed(), "{:#?}", (&verdict.violations, &verdict.undecided));
    }
}

/// How often the bug struck, and the properties by which it was found each time.
fn found(bug: Bug) -> Vec<Vec<String>> {
    let histories = (0..SEEDS).filter_map(|seed| simulate(seed, Some(bug), STEPS));
    histories
        .map(|history| {
            let verdict = check(&history, WORKLOAD);
            verdict.violations.into_iter().map(|violation| violation.property).collect()
        })
        .collect()
}

fn always_found(bug: Bug, by: &str) {
    let found = found(bug);
    assert!(found.len() >= 6, "{bug:?} struck {} times", found.len());
    for properties in &found {
        assert!(!properties.is_empty(), "{bug:?} was missed: {found:#?}");
    }
    let by = found.iter().filter(|properties| properties.iter().any(|property| property == by)).count();
    assert!(by * 2 > found.len(), "{bug:?}: {found:#?}");
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
