//! How long an apply takes, what idle tenants weigh, and whether a snapshot stops the world. Prints; asserts nothing.
//!
//! `cargo run --release -p quorate-ledger --example measure`

#![allow(clippy::unwrap_used, reason = "a measurement may fail here")]

use std::time::Instant;

use quorate_ledger::*;

fn amount(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

fn id(at: u64, number: u64) -> ReservationId {
    ReservationId::from_u128((u128::from(at) << 80) | (7 << 76) | (0b10 << 62) | u128::from(number)).unwrap()
}

fn reserve(tenant: &str, id: ReservationId) -> Command {
    let charges = vec![Charge {
        budget: "hourly".into(),
        subject: "alice".into(),
        amount: amount(1),
        at_least: amount(1),
    }];
    Command::Reserve { tenant: tenant.into(), id, charges, ttl_ms: 60_000, wait: false }
}

fn resident_mb() -> u64 {
    resident_kb() / 1_024
}

fn resident_kb() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// Each the same budget in every respect but one, one account, five requests a second.
fn other_budgets(start: u64) {
    let rule = |window| BudgetRule::new("hourly", Unit::Tokens, amount(900_000_000), window);
    let berlin = (0..40).map(|change| ZoneOffset {
        from: TimestampMs(start - 315_000_000_000 + change * 15_780_000_000),
        seconds: if change % 2 == 0 { 3_600 } else { 7_200 },
    });
    let sliding = Window::Sliding { ms: 60_000 };
    let rules = [
        ("reserve", rule(Window::Hour)),
        ("day, utc", rule(Window::Day)),
        ("day, zone", BudgetRule { zone: berlin.collect(), ..rule(Window::Day) }),
        ("count", BudgetRule { enforcement: Enforcement::Count, ..rule(Window::Hour) }),
        ("shadow", BudgetRule { enforcement: Enforcement::Shadow, ..rule(Window::Hour) }),
        ("alerts", BudgetRule { alerts: vec![50, 80, 100], ..rule(Window::Hour) }),
        ("carry over", BudgetRule { carry_over: Some(amount(5)), ..rule(Window::Minute) }),
        ("sliding", rule(sliding)),
        ("sliding count", BudgetRule { enforcement: Enforcement::Count, ..rule(sliding) }),
        ("sliding shadow", BudgetRule { enforcement: Enforcement::Shadow, ..rule(sliding) }),
    ];
    for (name, rule) in rules {
        let mut ledger = Ledger::default();
        ledger.apply(TimestampMs(start), &put(rule));
        let requests = 50_000_u64;
        let began = Instant::now();
        for number in 0..requests {
            let at = start + number * 200;
            ledger.apply(TimestampMs(at), &reserve("acme", id(at, number)));
            let settle = Command::Settle {
                tenant: "acme".into(),
                id: id(at, number),
                actual: vec![amount(1)],
                estimated: false,
            };
            ledger.apply(TimestampMs(at), &settle);
        }
        println!("{name}: {} ns for both", began.elapsed().as_nanos() / u128::from(requests));
        std::mem::forget(ledger);
    }
}

/// Every slice of a sliding window in use, and one window of an hour.
fn accounts(start: u64) {
    for (name, window, requests) in
        [("hourly", Window::Hour, 1), ("sliding, 61 slices", Window::Sliding { ms: 3_600_000 }, 61)]
    {
        let mut ledger = Ledger::default();
        let rule = BudgetRule::new("hourly", Unit::Tokens, amount(900_000_000), window);
        ledger.apply(TimestampMs(start), &put(rule));
        let before = resident_kb();
        for slice in 0..requests {
            let at = start + slice * 60_000;
            for number in 0..10_000_u64 {
                let (tenant, id) = ("acme".to_owned(), id(at, number));
                let mut command = reserve(&tenant, id);
                if let Command::Reserve { charges, .. } = &mut command {
                    charges[0].subject = format!("subject-{number}");
                }
                ledger.apply(TimestampMs(at), &command);
                ledger.apply(TimestampMs(at), &Command::Release { tenant, id });
            }
        }
        // What is remembered of the last 70 seconds is no part of an account.
        for _ in 0..10_000 {
            let command = Command::Release { tenant: "none".into(), id: id(start, 0) };
            ledger.apply(TimestampMs(start + requests * 60_000 + 70_001), &command);
        }
        println!("an account, {name}: {} bytes", (resident_kb() - before) * 1_024 / 10_000);
        // Its memory would be taken again by what is measured next.
        std::mem::forget(ledger);
    }
}

fn put(rule: BudgetRule) -> Command {
    Command::PutPolicy {
        expected_version: None,
        rules: vec![rule],
        document: String::new(),
        staged: None,
        by: String::new(),
        comment: String::new(),
    }
}

fn main() {
    let start = 1_790_000_000_000_u64;
    let mut ledger = Ledger::default();
    let put = put(BudgetRule::new("hourly", Unit::Tokens, amount(900_000_000), Window::Hour));
    ledger.apply(TimestampMs(start), &put);
    accounts(start);
    other_budgets(start);
    let tenants: Vec<String> = (0..10_000).map(|number| format!("tenant-{number:05}")).collect();
    let before = resident_mb();
    for (number, tenant) in tenants.iter().enumerate() {
        ledger.apply(TimestampMs(start), &reserve(tenant, id(start, number as u64)));
        ledger.apply(
            TimestampMs(start),
            &Command::Release { tenant: tenant.clone(), id: id(start, number as u64) },
        );
    }
    for number in 0..8_000 {
        ledger.apply(
            TimestampMs(start + 70_001),
            &Command::Release { tenant: "none".into(), id: id(start, number) },
        );
    }
    println!("10,000 idle tenants: {} MB", resident_mb() - before);
    let (records, start) = (3_000_000_u64, start + 100_000);
    let pairs: Vec<_> = (0..200_000_u64)
        .map(|number| (tenants[(number * 7_919 % 10_000) as usize].clone(), id(start, number)))
        .collect();
    let commands: Vec<_> = pairs.iter().map(|(tenant, id)| reserve(tenant, *id)).collect();
    let ends: Vec<_> = pairs
        .into_iter()
        .map(|(tenant, id)| Command::Settle { tenant, id, actual: vec![amount(1)], estimated: false })
        .collect();
    for (name, commands) in [("reserve", &commands), ("settle", &ends)] {
        let began = Instant::now();
        commands.iter().for_each(|command| drop(ledger.apply(TimestampMs(start), command)));
        println!("{name}: {} ns", began.elapsed().as_nanos() / commands.len() as u128);
    }
    let before = resident_mb();
    for number in 200_000..records {
        let (tenant, id) = (&tenants[(number % 3) as usize], id(start, number));
        ledger.apply(TimestampMs(start), &reserve(tenant, id));
        ledger.apply(
            TimestampMs(start),
            &Command::Settle { tenant: tenant.clone(), id, actual: vec![amount(1)], estimated: false },
        );
    }
    println!(
        "{records} retained records: {} bytes each",
        (resident_mb() - before) * 1_048_576 / (records - 200_000)
    );
    let began = Instant::now();
    let snapshot = ledger.clone();
    println!("clone: {} µs", began.elapsed().as_micros());
    let mut slowest = 0;
    for number in records..records + 100_000 {
        let command = reserve(&tenants[(number % 10_000) as usize], id(start, number));
        let began = Instant::now();
        ledger.apply(TimestampMs(start + 1), &command);
        slowest = slowest.max(began.elapsed().as_micros());
    }
    println!("slowest of 100,000 applies after it: {slowest} µs");
    drop(snapshot);
}
