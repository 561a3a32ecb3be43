//! The ledger against a naive model: random operations, replays, retries out of order and a clock that jumps. After
//! every step both give the same answer, show the same accounts, and every invariant holds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail here")]

#[path = "model/circuits.rs"]
mod circuits;
#[path = "model/facts.rs"]
mod facts;
#[path = "model/naive.rs"]
mod naive;
#[path = "model/operations.rs"]
mod operations;

use std::collections::BTreeMap;

use naive::{Naive, State};
use operations::*;
use proptest::prelude::*;
use quorate_ledger::{Amount, Command, Ledger, Outcome, Refusal, ReservationId, TimestampMs, invariant};

#[derive(Default)]
struct Run {
    ledger: Ledger,
    naive: Naive,
    circuits: circuits::Circuits,
    clock: TimestampMs,
    ids: BTreeMap<u8, ReservationId>,
    ids_made: u64,
    history: Vec<Command>,
    day: bool,
    /// What was seen how often: a check that the check sees all.
    seen: BTreeMap<&'static str, u64>,
}

impl Run {
    fn id(&mut self, slot: Slot) -> ReservationId {
        let at = moved(self.clock, slot.skew_ms).0;
        if let Some(known) = self.ids.get(&slot.number) {
            let old = known.timestamp().0 + 100_000 < self.naive.facts.now;
            let open =
                self.naive.records.iter().any(|record| record.id == *known && record.state == State::Open);
            // Some slots keep their id for ever: a client that never gives up.
            if !old || open || slot.number.is_multiple_of(5) {
                return *known;
            }
        }
        self.ids_made += 1;
        let made = id(at, self.ids_made);
        self.ids.insert(slot.number, made);
        made
    }

    fn command(&mut self, operation: &Operation) -> Option<Command> {
        Some(match operation {
            Operation::Policy { limit, day, temporary, enforcement, expected } => {
                // One way only: a window kind that changes back is a matter for the tables.
                self.day |= *day && self.history.len() > 60;
                policy(*limit, self.day, *temporary, *enforcement, *expected)
            }
            Operation::Reserve { tenant: second, slot, charges, ttl_ms, wait } => {
                let charges = charges.iter().copied().map(charge).collect();
                Command::Reserve {
                    tenant: tenant(*second),
                    id: self.id(*slot),
                    charges,
                    ttl_ms: *ttl_ms,
                    wait: *wait,
                }
            }
            Operation::Extend { tenant: second, slot, ttl_ms } => {
                Command::Extend { tenant: tenant(*second), id: self.id(*slot), ttl_ms: *ttl_ms }
            }
            Operation::Settle { tenant: second, slot, tenths } => {
                let (tenant, id) = (tenant(*second), self.id(*slot));
                let held = self.held(&tenant, id);
                let part = |(at, tenths): (usize, &u64)| {
                    let held = held.get(at).map_or(50_000_000, |amount| amount.micros());
                    Amount::from_micros(held / 10 * tenths).unwrap()
                };
                let wanted = if tenths.len() == 3 { tenths.len() } else { held.len().max(1) };
                let actual = tenths.iter().cycle().take(wanted).enumerate().map(part).collect();
                Command::Settle { tenant, id, actual, estimated: is_odd(tenths[0]) }
            }
            Operation::SettleAsHeld { tenant: second, slot } => {
                let (tenant, id) = (tenant(*second), self.id(*slot));
                let actual = self.held(&tenant, id);
                Command::Settle { tenant, id, actual, estimated: false }
            }
            Operation::SettleOpen { tenant: second, index, tenths } => {
                let tenant = tenant(*second);
                let open: Vec<_> = self.ledger.reservations(&tenant).collect();
                let reservation = open.get(index.checked_rem(open.len())?)?;
                let part = |held: Amount| Amount::from_micros(held.micros() / 10 * tenths).unwrap();
                let actual = reservation.charges.iter().map(|charge| part(charge.amount)).collect();
                Command::Settle { tenant, id: reservation.id, actual, estimated: is_odd(*tenths) }
            }
            Operation::Release { tenant: second, slot } => {
                Command::Release { tenant: tenant(*second), id: self.id(*slot) }
            }
            Operation::Expire { tenant: second, slots } => {
                let ids = slots.iter().map(|slot| self.id(*slot)).collect();
                Command::Expire { tenant: tenant(*second), ids }
            }
            Operation::ExpireDue { tenant: second } => {
                let tenant = tenant(*second);
                let ids = self.ledger.due(&tenant, self.clock, 100);
                Command::Expire { tenant, ids }
            }
            Operation::Adjust { tenant: second, slot, budget: number, subject: to, kind, amount } => {
                Command::AdjustAccount {
                    tenant: tenant(*second),
                    id: self.id(*slot),
                    budget: budget(*number),
                    subject: subject(*to),
                    adjustment: adjustment(*kind, *amount),
                    by: String::new(),
                }
            }
            Operation::Circuit(operation) => self.circuits.command(operation)?,
            Operation::Again(index) => {
                let length = self.history.len();
                self.history.get(index.checked_rem(length)?)?.clone()
            }
        })
    }

    fn held(&self, tenant: &str, id: ReservationId) -> Vec<Amount> {
        let open = self.ledger.reservations(tenant).find(|reservation| reservation.id == id);
        open.map(|open| open.charges.iter().map(|charge| charge.amount).collect()).unwrap_or_default()
    }

    fn step(&mut self, operation: &Operation, jump_ms: i64) {
        self.clock = moved(self.clock, jump_ms);
        let Some(command) = self.command(operation) else { return };
        let now = self.clock.0.max(self.naive.facts.now);
        let early = self.ledger.would_deny(self.clock, &command);
        let known = record_of(&command).is_some_and(|(tenant, id)| self.naive.record(tenant, id).is_some());
        let outcome = self.ledger.apply(self.clock, &command);
        self.naive.facts.now = now;
        if let Some(seen) = self.circuits.check(now, &command, &outcome, &self.ledger) {
            assert_eq!(invariant::check(&self.ledger), [], "after {command:?} at {now}");
            *self.seen.entry(seen).or_default() += 1;
            self.history.push(command);
            return;
        }
        let gone =
            matches!(outcome, Outcome::Refused(Refusal::StaleId { .. } | Refusal::UnknownReservation { .. }));
        let forgotten =
            gone && record_of(&command).is_some_and(|(tenant, id)| self.naive.may_be_forgotten(tenant, id));
        let expected = self.naive.apply(self.clock.0, &command, forgotten);
        assert_eq!(outcome, expected, "{command:?} at {now}");
        let fresh_denial = if let Outcome::Denied(denial) = &outcome { Some(denial) } else { None };
        assert_eq!(early.as_ref(), fresh_denial.filter(|_| !known), "would_deny({command:?})");
        assert_eq!(invariant::check(&self.ledger), [], "after {command:?} at {now}");
        self.compare_views();
        self.compare_alerts();
        *self.seen.entry(name(&outcome, known)).or_default() += 1;
        self.note_what_is_rare();
        self.history.push(command);
    }

    fn compare_views(&self) {
        let now = TimestampMs(self.naive.facts.now);
        assert_eq!(self.ledger.time(), now);
        for second in [false, true] {
            let tenant = tenant(second);
            let records = || self.naive.records.iter().filter(|record| record.tenant == tenant);
            let mut open: Vec<_> = records().filter(|record| record.state == State::Open).collect();
            open.sort_by_key(|record| record.id);
            let shown = self.ledger.reservations(&tenant);
            assert!(shown.map(|view| (view.id, view.deadline.0)).eq(open.iter().map(|r| (r.id, r.deadline))));
            let next = open.iter().map(|record| TimestampMs(record.deadline)).min();
            assert_eq!(self.ledger.next_deadline(&tenant), next);
            for number in 0..BUDGETS {
                for subject in [subject(0), subject(1)] {
                    self.compare_account(now, &(tenant.clone(), budget(number), subject));
                }
            }
        }
    }

    fn compare_account(&self, now: TimestampMs, account: &(String, String, String)) {
        let facts = &self.naive.facts;
        let view = self.ledger.account(now, &account.0, &account.1, &account.2);
        let rule = facts.rule(&account.0, &account.1);
        let Some(view) = view else {
            let Some(rule) = rule else { return };
            let span = rule.span_at(now);
            let (sums, _) = facts.total(account, span);
            let all = [sums.spent, sums.reserved, sums.topped_up, facts.carried(account, span)];
            assert_eq!(all, [0; 4], "{account:?} is gone too early");
            return;
        };
        // Of a budget that is gone, the window that was last used is shown.
        let span = rule.map_or(view.window, |rule| rule.span_at(now));
        let (sums, shown) = facts.total(account, span);
        assert_eq!(view.window, shown);
        let seen = [view.spent, view.reserved, view.overdraft, view.estimated, view.topped_up, view.limit];
        let limit = facts.limit(account, span);
        let expected = [sums.spent, sums.reserved, sums.overdraft, sums.estimated, sums.topped_up, limit];
        assert_eq!(seen.map(|amount| i128::from(amount.micros())), expected, "{account:?}");
        assert_eq!(view.shadow_denied, sums.shadow_denied, "{account:?}");
        if rule.is_some() {
            assert_eq!(i128::from(view.carried.micros()), facts.carried(account, span), "{account:?}");
        }
        for closed in &view.closed_windows {
            let sums = facts.sums(account, closed.window);
            let shown = [closed.spent, closed.reserved, closed.overdraft, closed.estimated];
            let expected = [sums.spent, sums.reserved, sums.overdraft, sums.estimated];
            assert_eq!(shown.map(|amount| i128::from(amount.micros())), expected, "{account:?} {closed:?}");
            assert_eq!(closed.shadow_denied, sums.shadow_denied, "{account:?} {closed:?}");
        }
    }

    fn note_what_is_rare(&mut self) {
        let views = self.ledger.accounts(TimestampMs(self.naive.facts.now), "acme", None);
        for view in views {
            let rare = [
                ("carried over", !view.carried.is_zero()),
                ("let through by a shadow", view.shadow_denied > 0),
                ("overshoot", view.budget == "mixed" && !view.overdraft.is_zero()),
                ("estimated", !view.estimated.is_zero() && view.estimated < view.spent),
                ("many slices", view.budget == "sliding" && view.closed_windows.len() > 13),
            ];
            for (what, _) in rare.iter().filter(|(_, seen)| *seen) {
                *self.seen.entry(what).or_default() += 1;
            }
        }
        for (account, ..) in &self.naive.facts.alerts {
            let what = if account.1 == "sliding" { "sliding alert" } else { "alert" };
            *self.seen.entry(what).or_default() += 1;
        }
    }

    fn compare_alerts(&self) {
        let given = self.ledger.alerts_after(0).map(|alert| {
            let account = (alert.tenant, alert.budget, alert.subject);
            let (spent, limit) = (i128::from(alert.spent.micros()), i128::from(alert.limit.micros()));
            (account, alert.share, spent, limit, alert.window)
        });
        assert!(given.eq(self.naive.facts.alerts.iter().cloned()), "{:?}", self.naive.facts.alerts);
    }
}

/// Which settlements are estimates.
fn is_odd(tenths: u64) -> bool {
    tenths % 2 == 1
}

fn record_of(command: &Command) -> Option<(&str, ReservationId)> {
    match command {
        Command::Reserve { tenant, id, .. }
        | Command::Extend { tenant, id, .. }
        | Command::Settle { tenant, id, .. }
        | Command::Release { tenant, id }
        | Command::AdjustAccount { tenant, id, .. } => Some((tenant, *id)),
        _ => None,
    }
}

fn name(outcome: &Outcome, known: bool) -> &'static str {
    match outcome {
        Outcome::PolicyPut { .. } => "policy put",
        Outcome::Granted(_) if known => "granted again",
        Outcome::Granted(_) => "granted",
        Outcome::Denied(_) if known => "denied again",
        Outcome::Denied(denial) if denial.held_by_reservations => "denied, held",
        Outcome::Denied(denial) if denial.account.budget == "sliding" => "denied, sliding",
        Outcome::Denied(denial) if denial.account.budget == "mixed" => "denied, mixed",
        Outcome::Denied(_) => "denied",
        Outcome::Extended { .. } => "extended",
        Outcome::Settled(settlement) if settlement.overdraft.iter().any(|over| !over.is_zero()) => {
            "overdraft"
        }
        Outcome::Settled(_) => "settled",
        Outcome::Released => "released",
        Outcome::Expired { ids } if ids.is_empty() => "none due",
        Outcome::Expired { .. } => "expired",
        Outcome::Adjusted(_) => "adjusted",
        Outcome::Refused(Refusal::Invalid(_)) => "invalid",
        Outcome::Refused(Refusal::IdReused { .. }) => "id reused",
        Outcome::Refused(Refusal::StaleId { .. }) => "stale",
        Outcome::Refused(Refusal::FutureId { .. }) => "future",
        Outcome::Refused(Refusal::UnknownReservation { .. }) => "unknown reservation",
        Outcome::Refused(Refusal::AlreadyResolved { .. }) => "already resolved",
        Outcome::Refused(Refusal::UnknownBudget { .. }) => "unknown budget",
        Outcome::Refused(Refusal::VersionConflict { .. }) => "version conflict",
        Outcome::Refused(Refusal::TooManyAccounts { .. }) => "too many accounts",
        Outcome::PolicyStaged
        | Outcome::KeyPut { .. }
        | Outcome::KeyRevoked { .. }
        | Outcome::AlertsAcked
        | Outcome::ProviderReported { .. }
        | Outcome::ProbeGranted { .. }
        | Outcome::ProbeRefused(_)
        | Outcome::ProviderDrained { .. }
        | Outcome::ChangeRecorded
        | Outcome::Refused(Refusal::UnknownKey { .. } | Refusal::WrongPart { .. } | Refusal::Told(_)) => {
            "of no account"
        }
    }
}

fn run(steps: &[(Operation, i64)]) -> Run {
    let mut run = Run { clock: TimestampMs(START_MS), ..Run::default() };
    let first = Operation::Policy { limit: 250, day: false, temporary: true, enforcement: 0, expected: None };
    run.step(&first, 0);
    let mut snapshot: Option<(Ledger, String)> = None;
    for (index, (operation, jump_ms)) in steps.iter().enumerate() {
        run.step(operation, *jump_ms);
        if index % 40 == 20 {
            let text = serde_json::to_string(&run.ledger).unwrap();
            let back: Ledger = serde_json::from_str(&text).unwrap();
            assert_eq!(back, run.ledger, "what is read back is what was written");
            if let Some((clone, text)) = snapshot.replace((run.ledger.clone(), text)) {
                assert_eq!(serde_json::to_string(&clone).unwrap(), text, "a clone does not move");
            }
            // From here on with what was read back: it must behave alike, not only look alike.
            run.ledger = back;
        }
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_model(steps in proptest::collection::vec((operation(), jump()), 1..220)) {
        run(&steps);
    }

    #[test]
    fn agrees_where_many_requests_meet(
        steps in proptest::collection::vec((dense_operation(), dense_jump()), 1..160)
    ) {
        run(&steps);
    }

    #[test]
    fn agrees_about_circuits(steps in proptest::collection::vec((circuits_mostly(), jump()), 1..160)) {
        run(&steps);
    }
}

/// A fixed seed: every outcome comes up, so agreement above means something.
#[test]
fn random_operations_meet_every_outcome() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeMap::new();
    for _ in 0..30 {
        let wide = proptest::collection::vec((operation(), jump()), 220).new_tree(&mut runner).unwrap();
        let dense =
            proptest::collection::vec((dense_operation(), dense_jump()), 160).new_tree(&mut runner).unwrap();
        let circuits =
            proptest::collection::vec((circuits_mostly(), jump()), 160).new_tree(&mut runner).unwrap();
        for steps in [wide.current(), dense.current(), circuits.current()] {
            for (name, count) in run(&steps).seen {
                *seen.entry(name).or_insert(0) += count;
            }
        }
    }
    let all = [
        "policy put",
        "granted",
        "granted again",
        "denied",
        "denied again",
        "denied, held",
        "denied, sliding",
        "denied, mixed",
        "too many accounts",
        "carried over",
        "let through by a shadow",
        "overshoot",
        "estimated",
        "many slices",
        "alert",
        "sliding alert",
        "extended",
        "settled",
        "overdraft",
        "released",
        "none due",
        "expired",
        "adjusted",
        "invalid",
        "id reused",
        "stale",
        "future",
        "unknown reservation",
        "already resolved",
        "unknown budget",
        "version conflict",
        "probe granted",
        "probe refused",
        "probe passed",
        "probe failed",
        "probe given up",
        "limited",
        "failing",
        "rests longer",
        "opened under a probe",
        "drained",
    ];
    let missing: Vec<_> = all.iter().filter(|name| !seen.contains_key(**name)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?} of {seen:?}");
}
