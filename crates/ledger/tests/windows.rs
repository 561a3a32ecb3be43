//! Windows as such: in any time zone every instant is in exactly one, and in no interval as long as a sliding window is
//! more spent than its limit.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use proptest::prelude::*;
use quorate_ledger::{
    Amount, BudgetRule, Charge, Command, Ledger, Outcome, ReservationId, TimestampMs, Unit, Window,
    ZoneOffset, invariant,
};

const START_MS: u64 = 1_790_000_000_000;
const CALENDAR: [Window; 8] = [
    Window::Second,
    Window::Minute,
    Window::Hour,
    Window::Day,
    Window::Week,
    Window::Month,
    Window::Year,
    Window::Lifetime,
];

fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

/// Changes that come close together and are as large as they may be: worse than any real zone.
fn zone() -> impl Strategy<Value = Vec<ZoneOffset>> {
    let entry = (START_MS - 4_000_000_000..START_MS + 4_000_000_000, -86_400..=86_400_i32);
    proptest::collection::vec(entry, 0..8).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.0);
        entries.dedup_by_key(|entry| entry.0);
        entries.into_iter().map(|(from, seconds)| ZoneOffset { from: TimestampMs(from), seconds }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_instant_is_in_one_window(
        zone in zone(),
        near in prop_oneof![START_MS - 5_000_000_000..START_MS + 5_000_000_000, 0..200_000_000_u64],
    ) {
        for window in CALENDAR {
            let rule = BudgetRule { zone: zone.clone(), ..BudgetRule::new("any", Unit::Tokens, tokens(1), window) };
            let span = rule.span_at(TimestampMs(near));
            prop_assert!(span.start.0 <= near, "{window:?} {span:?}");
            prop_assert_eq!(rule.span_at(span.start), span, "{:?}", window);
            let Some(end) = span.end else { continue };
            prop_assert!(near < end.0, "{window:?} {span:?}");
            prop_assert_eq!(rule.span_at(TimestampMs(end.0 - 1)), span, "{:?}", window);
            prop_assert_eq!(rule.span_at(end).start, end, "{:?}", window);
        }
    }

    #[test]
    fn no_instant_is_too_late(zone in zone()) {
        for window in CALENDAR {
            let rule = BudgetRule { zone: zone.clone(), ..BudgetRule::new("any", Unit::Tokens, tokens(1), window) };
            rule.span_at(TimestampMs(u64::MAX));
        }
    }

    /// What is granted at one time is settled at another; it counts at the first.
    #[test]
    fn no_interval_spends_more_than_a_sliding_limit(
        ms in prop_oneof![Just(1_000_u64), Just(60_000), 1_000..100_000_u64],
        steps in proptest::collection::vec((0..8_000_u64, 1..60_u64, 0..4_000_u64), 1..60),
    ) {
        let mut ledger = Ledger::default();
        let rule = BudgetRule::new("sliding", Unit::Tokens, tokens(100), Window::Sliding { ms });
        let put = Command::PutPolicy {
            expected_version: None,
            rules: vec![rule],
            document: String::new(),
            staged: None,
            by: String::new(),
            comment: String::new(),
        };
        ledger.apply(TimestampMs(START_MS), &put);
        let (mut now, mut granted) = (START_MS, Vec::new());
        for (number, (later, amount, settled_later)) in steps.into_iter().enumerate() {
            now += later;
            let value = (u128::from(now) << 80) | (7 << 76) | (0b10 << 62) | number as u128;
            let (tenant, id) = ("acme".to_owned(), ReservationId::from_u128(value).unwrap());
            let charges = vec![Charge {
                budget: "sliding".into(),
                subject: String::new(),
                amount: tokens(amount),
                at_least: tokens(1),
            }];
            let reserve = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms: 60_000, wait: false };
            if let Outcome::Granted(grant) = ledger.apply(TimestampMs(now), &reserve) {
                let actual = vec![grant.balances[0].amount];
                granted.push((now, actual[0].units_floor()));
                now += settled_later;
                ledger.apply(TimestampMs(now), &Command::Settle { tenant, id, actual, estimated: false });
            }
            prop_assert_eq!(invariant::check(&ledger), []);
        }
        for (from, _) in &granted {
            let inside = granted.iter().filter(|(at, _)| (*from..from + ms).contains(at));
            prop_assert!(inside.map(|(_, amount)| amount).sum::<u64>() <= 100, "from {from}: {granted:?}");
        }
    }
}
