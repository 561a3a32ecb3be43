//! The promise in its smallest form: 250 tokens, 20 requests of 100, two admitted.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use quorate_ledger::{
    Amount, BudgetRule, Charge, Command, Ledger, Outcome, ReservationId, TimestampMs, Unit, Window, invariant,
};

const NOW: TimestampMs = TimestampMs(1_790_000_000_000);

fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

fn id(number: u128) -> ReservationId {
    ReservationId::from_u128((u128::from(NOW.0) << 80) | (7 << 76) | (0b10 << 62) | number).unwrap()
}

fn ledger(window: Window) -> Ledger {
    let mut ledger = Ledger::default();
    let put = Command::PutPolicy {
        expected_version: None,
        rules: vec![BudgetRule::new("hourly", Unit::Tokens, tokens(250), window)],
        document: String::new(),
        staged: None,
        by: String::new(),
        comment: String::new(),
    };
    let outcome = ledger.apply(NOW, &put);
    assert_eq!(outcome, Outcome::PolicyPut { version: 1, changed: true });
    ledger
}

fn reserve(number: u128, amount: u64) -> Command {
    let amount = tokens(amount);
    let charges = vec![Charge { budget: "hourly".into(), subject: "alice".into(), amount, at_least: amount }];
    Command::Reserve { tenant: "acme".into(), id: id(number), charges, ttl_ms: 30_000, wait: false }
}

#[test]
fn twenty_requests_of_100_against_250_admit_two() {
    let mut ledger = ledger(Window::Hour);
    let outcomes: Vec<Outcome> = (0..20).map(|number| ledger.apply(NOW, &reserve(number, 100))).collect();
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Granted(_))).count(), 2);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Denied(_))).count(), 18);
    for number in 0..2 {
        let settle = Command::Settle {
            tenant: "acme".into(),
            id: id(number),
            actual: vec![tokens(100)],
            estimated: false,
        };
        assert!(matches!(ledger.apply(NOW, &settle), Outcome::Settled(_)));
    }
    let account = ledger.account(NOW, "acme", "hourly", "alice").unwrap();
    assert_eq!((account.spent, account.reserved, account.available), (tokens(200), tokens(0), tokens(50)));
    assert_eq!(invariant::check(&ledger), []);
}

#[test]
fn an_expiry_charges_and_a_late_settlement_corrects_it() {
    let mut ledger = ledger(Window::Lifetime);
    ledger.apply(NOW, &reserve(1, 100));
    let expire = Command::Expire { tenant: "acme".into(), ids: vec![id(1)] };
    assert_eq!(ledger.apply(NOW, &expire), Outcome::Expired { ids: vec![] }, "not due yet");
    let later = NOW.saturating_add(30_000);
    assert_eq!(ledger.apply(later, &expire), Outcome::Expired { ids: vec![id(1)] });
    assert_eq!(ledger.account(later, "acme", "hourly", "alice").unwrap().spent, tokens(100));
    let settle =
        Command::Settle { tenant: "acme".into(), id: id(1), actual: vec![tokens(40)], estimated: false };
    ledger.apply(later, &settle);
    ledger.apply(later, &settle);
    assert_eq!(ledger.account(later, "acme", "hourly", "alice").unwrap().spent, tokens(40));
    assert_eq!(invariant::check(&ledger), []);
}
