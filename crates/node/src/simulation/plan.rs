//! What a seed stands for: how many nodes, clients and tenants, which budgets and limits, how long and how bad.

use quorate_ledger::{Amount, BudgetRule, Charge, Command, Enforcement, Unit, Window};

use super::rng::Rng;
use crate::config::Limits;

pub(super) const BUDGETS: [(&str, Enforcement, u64); 5] = [
    ("user", Enforcement::Reserve, 100),
    ("team", Enforcement::Reserve, 180),
    ("org", Enforcement::Reserve, 60_000),
    ("counted", Enforcement::Count, 150),
    ("shadow", Enforcement::Shadow, 60),
];

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub tenants: usize,
    /// Of trouble.
    pub seconds: u64,
    pub limits: Limits,
}

impl Plan {
    pub fn of(rng: &mut Rng) -> Self {
        let limits = Limits {
            tenant_in_flight: *rng.pick(&[2, 4, 16, 32]),
            tenant_waiting: *rng.pick(&[1, 3, 16]),
            proposer_queue: *rng.pick(&[2, 16, 64]),
            batch_operations: *rng.pick(&[1, 3, 16]),
            batches_in_flight: *rng.pick(&[1, 2, 4]),
            operation_timeout_ms: *rng.pick(&[1_000, 3_000, 5_000]),
            ..Limits::default()
        };
        Self {
            nodes: *rng.pick(&[3, 3, 5]),
            clients: rng.below(6) + 3,
            tenants: rng.below(2) + 1,
            seconds: rng.between(8, 25),
            limits,
        }
    }
}

pub(super) fn tenant(number: usize) -> String {
    ["acme", "globex"][number].to_owned()
}

pub(super) fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap_or(Amount::MAX)
}

/// The limits of the two tight budgets change, the others stay.
pub(super) fn policy(rng: &mut Rng) -> Command {
    let rule = |(name, enforcement, limit): (&str, Enforcement, u64), window| BudgetRule {
        enforcement,
        ..BudgetRule::new(name, Unit::Tokens, tokens(limit), window)
    };
    let [mut user, mut team, org, counted, shadow] = BUDGETS;
    (user.2, team.2) = (rng.between(60, 140), rng.between(100, 260));
    let rules = vec![
        BudgetRule { alerts: vec![80], ..rule(user, Window::Minute) },
        rule(team, Window::Sliding { ms: 10_500 }),
        rule(org, Window::Lifetime),
        rule(counted, Window::Minute),
        rule(shadow, Window::Second),
    ];
    Command::PutPolicy {
        expected_version: None,
        document: format!("user {} team {}", user.2, team.2),
        rules,
        staged: None,
        by: String::new(),
        comment: String::new(),
    }
}

/// One to three accounts, the tight ones most often, each budget once.
pub(super) fn charges(rng: &mut Rng) -> Vec<Charge> {
    let amount = if rng.percent(15) { rng.between(60, 150) } else { rng.between(1, 60) };
    let mut numbers = vec![*rng.pick(&[0, 0, 0, 1, 1, 3])];
    for number in [1, 2, 4] {
        if rng.percent(30) && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let subject = *rng.pick(&["alice", "alice", "bob"]);
    let hundredths = if rng.percent(30) { rng.between(0, 99) } else { 100 };
    let charge = |number: usize| Charge {
        budget: BUDGETS[number].0.to_owned(),
        subject: if number == 2 { String::new() } else { subject.to_owned() },
        amount: tokens(amount),
        at_least: Amount::from_micros(tokens(amount).micros() / 100 * hundredths).unwrap_or(Amount::ZERO),
    };
    numbers.into_iter().map(charge).collect()
}
