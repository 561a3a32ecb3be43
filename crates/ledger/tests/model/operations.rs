//! Random operations over few tenants, budgets, subjects and ids, so that they meet.

use proptest::prelude::*;
use quorate_ledger::{
    Adjustment, Amount, BudgetRule, Charge, Command, Enforcement, ReservationId, TimestampMs, Unit, Window,
    ZoneOffset,
};

use crate::circuits::{CircuitOperation, circuit_operation};

pub const START_MS: u64 = 1_790_000_000_000;

/// An id is made when its slot is first used, by a clock that may be wrong.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub number: u8,
    pub skew_ms: i64,
}

#[derive(Debug, Clone)]
pub enum Operation {
    Policy {
        limit: u64,
        day: bool,
        temporary: bool,
        /// Of two budgets.
        enforcement: u8,
        expected: Option<u64>,
    },
    Reserve {
        tenant: bool,
        slot: Slot,
        charges: Vec<(u8, u8, u64, u64)>,
        ttl_ms: u64,
        wait: bool,
    },
    Extend {
        tenant: bool,
        slot: Slot,
        ttl_ms: u64,
    },
    /// In tenths of what is held.
    Settle {
        tenant: bool,
        slot: Slot,
        tenths: Vec<u64>,
    },
    /// As held, so that replays meet.
    SettleAsHeld {
        tenant: bool,
        slot: Slot,
    },
    /// One of those that are open, in tenths of what is held.
    SettleOpen {
        tenant: bool,
        index: usize,
        tenths: u64,
    },
    Release {
        tenant: bool,
        slot: Slot,
    },
    Expire {
        tenant: bool,
        slots: Vec<Slot>,
    },
    /// What a node would propose.
    ExpireDue {
        tenant: bool,
    },
    Adjust {
        tenant: bool,
        slot: Slot,
        budget: u8,
        subject: u8,
        kind: u8,
        amount: u64,
    },
    /// An earlier command once more, late or out of order.
    Again(usize),
    Circuit(CircuitOperation),
}

fn slot() -> impl Strategy<Value = Slot> {
    let skew = prop_oneof![
        12 => Just(0_i64),
        1 => -61_000_i64..-59_000,
        1 => 9_000_i64..11_000,
    ];
    (0..24_u8, skew).prop_map(|(number, skew_ms)| Slot { number, skew_ms })
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1..5_000_u64, 3 => 5_000..90_000_u64, 1 => 90_000..7_200_000_u64]
}

fn charges() -> impl Strategy<Value = Vec<(u8, u8, u64, u64)>> {
    let charge = (0..BUDGETS, 0..2_u8, 0..130_u64, 0..=100_u64);
    proptest::collection::vec(charge, 1..4).prop_map(|mut charges| {
        charges.sort_by_key(|charge| (charge.0, charge.1));
        charges.dedup_by_key(|charge| (charge.0, charge.1));
        charges
    })
}

/// Not the budget that comes and goes: when its override is forgotten is a matter for the tables.
fn adjusted() -> impl Strategy<Value = u8> {
    (0..BUDGETS).prop_filter("it comes and goes", |number| *number != 4)
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let tenant = proptest::bool::weighted(0.2);
    prop_oneof![
        2 => (50..300_u64, any::<bool>(), any::<bool>(), 0..4_u8, proptest::option::weighted(0.3, 0..6_u64)).prop_map(
            |(limit, day, temporary, enforcement, expected)| Operation::Policy { limit, day, temporary, enforcement, expected }
        ),
        30 => (tenant, slot(), charges(), ttl(), proptest::bool::weighted(0.2)).prop_map(
            |(tenant, slot, charges, ttl_ms, wait)| Operation::Reserve { tenant, slot, charges, ttl_ms, wait }
        ),
        8 => (tenant, slot(), ttl())
            .prop_map(|(tenant, slot, ttl_ms)| Operation::Extend { tenant, slot, ttl_ms }),
        14 => (tenant, slot(), proptest::collection::vec(0..14_u64, 1..4))
            .prop_map(|(tenant, slot, tenths)| Operation::Settle { tenant, slot, tenths }),
        6 => (tenant, slot()).prop_map(|(tenant, slot)| Operation::SettleAsHeld { tenant, slot }),
        8 => settle_open(),
        6 => (tenant, slot()).prop_map(|(tenant, slot)| Operation::Release { tenant, slot }),
        4 => (tenant, proptest::collection::vec(slot(), 0..9))
            .prop_map(|(tenant, slots)| Operation::Expire { tenant, slots }),
        8 => tenant.prop_map(|tenant| Operation::ExpireDue { tenant }),
        9 => (tenant, slot(), adjusted(), 0..2_u8, 0..4_u8, 0..200_u64).prop_map(
            |(tenant, slot, budget, subject, kind, amount)| Operation::Adjust { tenant, slot, budget, subject, kind, amount }
        ),
        12 => any::<proptest::sample::Index>().prop_map(|index| Operation::Again(index.index(1 << 20))),
        12 => circuit_operation().prop_map(Operation::Circuit),
    ]
}

/// Little else than reports and claims.
pub fn circuits_mostly() -> impl Strategy<Value = Operation> {
    prop_oneof![
        30 => circuit_operation().prop_map(Operation::Circuit),
        4 => any::<proptest::sample::Index>().prop_map(|index| Operation::Again(index.index(1 << 20))),
        1 => operation(),
    ]
}

fn settle_open() -> impl Strategy<Value = Operation> {
    (proptest::bool::weighted(0.2), 0..50_usize, 0..14_u64)
        .prop_map(|(tenant, index, tenths)| Operation::SettleOpen { tenant, index, tenths })
}

/// Small requests on one account of the two budgets that slide, carry over and change how they are enforced.
pub fn dense_operation() -> impl Strategy<Value = Operation> {
    let fresh = (0..=255_u8).prop_map(|number| Slot { number, skew_ms: 0 });
    let charges = proptest::collection::vec((0..12_u64, 0..=100_u64), 2).prop_map(|amounts| {
        let charge = |(budget, (amount, share)): (u8, (u64, u64))| (budget, 0, amount, share);
        (5..7_u8).zip(amounts).map(charge).collect::<Vec<_>>()
    });
    prop_oneof![
        1 => (50..300_u64, 0..4_u8).prop_map(|(limit, enforcement)| {
            Operation::Policy { limit, day: false, temporary: true, enforcement, expected: None }
        }),
        30 => (fresh, charges, 500..30_000_u64, any::<bool>()).prop_map(|(slot, charges, ttl_ms, wait)| {
            Operation::Reserve { tenant: false, slot, charges, ttl_ms, wait }
        }),
        22 => settle_open(),
        4 => Just(Operation::ExpireDue { tenant: false }),
        2 => (slot(), 0..4_u8, 0..50_u64).prop_map(|(slot, kind, amount)| {
            Operation::Adjust { tenant: false, slot, budget: 5, subject: 0, kind, amount }
        }),
        4 => any::<proptest::sample::Index>().prop_map(|index| Operation::Again(index.index(1 << 20))),
    ]
}

pub fn dense_jump() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0..700_i64, 1 => 700..30_000_i64, 1 => 60_000..200_000_i64]
}

/// The clock of the next leader: mostly a little later, sometimes earlier, sometimes much later.
pub fn jump() -> impl Strategy<Value = i64> {
    prop_oneof![
        10 => 0..2_000_i64,
        2 => -8_000..0_i64,
        2 => 2_000..40_000_i64,
        1 => 40_000..100_000_i64,
        1 => 100_000..50_000_000_i64,
    ]
}

pub fn tenant(second: bool) -> String {
    if second { "globex".into() } else { "acme".into() }
}

pub const BUDGETS: u8 = 9;

/// One budget is another tenant's, one comes and goes, two change how they are enforced.
pub fn budget(number: u8) -> String {
    let names =
        ["hourly", "minutely", "ever", "acme-only", "temporary", "sliding", "mixed", "capped", "zoned"];
    names[usize::from(number)].into()
}

pub fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

pub fn id(at_ms: u64, number: u64) -> ReservationId {
    ReservationId::from_u128((u128::from(at_ms) << 80) | (7 << 76) | (0b10 << 62) | u128::from(number))
        .unwrap()
}

pub fn policy(
    limit: u64,
    day: bool,
    temporary: bool,
    enforcement: u8,
    expected_version: Option<u64>,
) -> Command {
    let rule = |name: &str, limit, window| BudgetRule::new(name, Unit::Tokens, tokens(limit), window);
    let alerts = vec![50, 80, 100];
    let enforcement = [Enforcement::Reserve, Enforcement::Count, Enforcement::Shadow, Enforcement::Lease]
        [usize::from(enforcement)];
    let carry_over = Some(tokens(limit));
    let sliding = Window::Sliding { ms: 20_500 };
    // The clock is changed an hour after the beginning, and a day later back.
    let offset =
        |hours: u64, seconds| ZoneOffset { from: TimestampMs(START_MS + hours * 3_600_000), seconds };
    let zone = vec![offset(0, 3_600), offset(1, 7_200), offset(25, 3_600)];
    let mut rules = vec![
        BudgetRule {
            alerts: alerts.clone(),
            ..rule("hourly", limit, if day { Window::Day } else { Window::Hour })
        },
        BudgetRule { carry_over, ..rule("minutely", limit / 2 + 20, Window::Minute) },
        rule("ever", 900, Window::Lifetime),
        BudgetRule { tenant: Some("acme".into()), ..rule("acme-only", 250, Window::Month) },
        BudgetRule { enforcement, alerts: alerts.clone(), ..rule("sliding", limit / 2, sliding) },
        BudgetRule { enforcement, alerts, carry_over, ..rule("mixed", limit / 2, Window::Minute) },
        BudgetRule { accounts_max: 1, ..rule("capped", 500, Window::Lifetime) },
        BudgetRule { zone, ..rule("zoned", limit + 100, Window::Day) },
    ];
    if temporary {
        rules.push(rule("temporary", 150, Window::Second));
    }
    Command::PutPolicy {
        expected_version,
        rules,
        document: format!("limit {limit}"),
        staged: None,
        by: String::new(),
        comment: String::new(),
    }
}

/// at_least is given in hundredths of the amount.
pub fn charge((number, subject, amount, hundredths): (u8, u8, u64, u64)) -> Charge {
    let amount = tokens(amount);
    let at_least = Amount::from_micros(amount.micros() / 100 * hundredths).unwrap();
    Charge { budget: budget(number), subject: self::subject(subject), amount, at_least }
}

pub fn subject(number: u8) -> String {
    if number == 0 { String::new() } else { "alice + gpt-4o".into() }
}

pub fn adjustment(kind: u8, amount: u64) -> Adjustment {
    match kind {
        0 => Adjustment::TopUp(tokens(amount)),
        1 => Adjustment::Reset,
        2 => Adjustment::OverrideLimit(tokens(amount)),
        _ => Adjustment::ClearOverride,
    }
}

pub fn moved(now: TimestampMs, by_ms: i64) -> TimestampMs {
    TimestampMs(now.0.saturating_add_signed(by_ms))
}
