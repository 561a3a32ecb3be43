//! The shortest histories on which the search once went wrong.

use super::super::words::{Charge, Limit, Line};
use super::*;

const USER: &str = "user/a";

fn id(number: u8) -> String {
    format!("01900000-0000-7000-8000-{number:012}")
}

fn line(spent: u64, reserved: u64, amount: u64) -> Line {
    Line { account: USER.to_owned(), limit: 100, spent, reserved, amount }
}

/// One after the other, each an entry of its own.
fn in_turn(steps: Vec<(u8, Ask, Told)>) -> Vec<Step> {
    let step = |(place, (number, ask, told)): (u64, (u8, Ask, Told))| Step {
        event: place,
        id: id(number),
        ask,
        told,
        invoked_us: 10 * place + 1,
        completed_us: 10 * place + 5,
        index: Some(place + 1),
        since_ms: 0,
    };
    (0..).zip(steps).map(step).collect()
}

fn granted(number: u8, amount: u64, deadline_ms: u64, reserved: u64) -> (u8, Ask, Told) {
    let charges = vec![Charge { account: USER.to_owned(), amount, at_least: amount }];
    let balances = vec![line(0, reserved, amount)];
    let decision = Decision::Granted { deadline_ms, balances };
    let told = Told::Answer(Answer { decision, term: 1, index: u64::from(number) });
    (number, Ask::Reserve { charges, ttl_ms: 1_000 }, told)
}

/// The first of three expires, as a read shows. The others do without being seen, and then the first is settled late, for
/// less: so less is spent than before.
fn settled_late(spent: u64) -> Vec<Step> {
    let account = Account {
        account: USER.to_owned(),
        limit: 100,
        spent: 40,
        reserved: 30,
        available: 30,
        overdraft: 0,
        estimated: 40,
    };
    let seen =
        Snapshot { accounts: vec![account], time_ms: 11_200, term: 1, index: 4, node: 1, connection: 1 };
    let settled = Decision::Settled { balances: vec![line(spent, 0, 4)], overdraft: vec![0] };
    in_turn(vec![
        granted(1, 40, 11_000, 40),
        granted(2, 10, 12_000, 50),
        granted(3, 20, 12_000, 70),
        (0, Ask::Read, Told::Seen(seen)),
        (1, Ask::Settle { actual: vec![4] }, Told::Answer(Answer { decision: settled, term: 1, index: 5 })),
    ])
}

fn start() -> Tenant {
    Tenant::new(&[Limit { account: USER.to_owned(), limit: 100 }])
}

#[test]
fn what_expires_unseen_before_a_late_settlement_is_found() {
    let found = |spent| search(&start(), &settled_late(spent), By::Log, 1_000);
    assert_eq!(found(4 + 10 + 20), Found::Order);
    assert!(matches!(found(4 + 10 + 20 - 1), Found::Contradiction { .. }));
}

/// More is spent before it than it shows, and it is what takes that back.
#[test]
fn a_late_settlement_takes_back_its_own_expiry_and_no_other() {
    let steps = settled_late(34);
    let before = steps[..4].iter().try_fold(start(), |state, step| match &step.told {
        Told::Answer(answer) => state.answered(&step.id, &step.ask, answer),
        Told::Seen(seen) => state.expired(&id(1))?.read(seen),
        Told::Nothing => None,
    });
    let two_expired = before.and_then(|state| state.expired(&id(2))).unwrap();
    assert!(!Search::new(&steps, By::Log).is_beyond(&two_expired, &[4]));
    let too_little = settled_late(9);
    assert!(Search::new(&too_little, By::Log).is_beyond(&two_expired, &[4]));
}
