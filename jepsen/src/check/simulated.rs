//! Histories made up for the tests: the real ledger applies random commands one after the other, as a cluster would, and
//! what clients saw of it overlaps at random. With a bug, if wanted.

use std::collections::BTreeMap;

use quorate_ledger::{
    Amount, BudgetRule, Charge, Command, Ledger, Outcome, ReservationId, TimestampMs, Unit, Window, invariant,
};
use quorate_rpc::Executed;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, to_value};

use super::words::{self, Account, Answer, Call, Invariants, Limit, Snapshot};
use crate::history::{Event, History, Kind};

pub const WORKLOAD: &str = "account";
const START_MS: u64 = 1_700_000_000_000;
const USER: u64 = 300;
const SHARED: u64 = 800;

/// What is done wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledged, and then gone.
    LostWrite,
    /// Charged again by a retry.
    AppliedTwice,
    /// A read that ought to be linearizable shows what was before the last change.
    StaleRead,
    /// All charges were acknowledged, one is held.
    PartialReservation,
    /// A node shows less than it has shown.
    ReadBack,
    /// Charged before the deadline.
    EarlyExpiry,
    /// The replay of a reservation is a new one.
    ReplayedAsNew,
}

pub struct Simulation {
    random: StdRng,
    ledger: Ledger,
    /// Of the past: index, and the ledger as it was.
    past: Vec<(u64, Ledger)>,
    shown: BTreeMap<u64, u64>,
    index: u64,
    now_us: u64,
    events: Vec<Event>,
    processes: u64,
    reserves: Vec<Command>,
    /// The bug, until it has struck; and whether it has.
    bug: Option<Bug>,
    after: usize,
    struck: bool,
}

/// `None`: there was no occasion for the bug.
pub fn simulate(seed: u64, bug: Option<Bug>, steps: usize) -> Option<History> {
    let mut random = StdRng::seed_from_u64(seed);
    let after = random.random_range(0..steps / 2);
    let mut simulation = Simulation {
        random,
        ledger: Ledger::default(),
        past: Vec::new(),
        shown: BTreeMap::new(),
        index: 10,
        now_us: 1_000_000,
        events: Vec::new(),
        processes: 0,
        reserves: Vec::new(),
        bug,
        after,
        struck: false,
    };
    simulation.begin();
    for step in 0..steps {
        simulation.entry(step);
    }
    simulation.end();
    (bug.is_none() || simulation.struck).then(|| simulation.history())
}

fn tokens(micros: u64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

fn tenant(second: bool) -> String {
    if second { "account-1".to_owned() } else { "account-0".to_owned() }
}

impl Simulation {
    fn at(&self) -> TimestampMs {
        TimestampMs(START_MS + self.now_us / 1_000)
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        let at = self.at();
        self.ledger.apply(at, command)
    }

    fn begin(&mut self) {
        let rule = |name: &str, limit| BudgetRule::new(name, Unit::Tokens, tokens(limit), Window::Lifetime);
        let rules = vec![rule("user", USER), rule("shared", SHARED)];
        let (document, by, comment) = (String::new(), String::new(), String::new());
        self.apply(&Command::PutPolicy {
            expected_version: None,
            rules,
            document,
            staged: None,
            by,
            comment,
        });
        for second in [false, true] {
            let limit = |account: &str, limit| Limit { account: account.to_owned(), limit };
            let accounts = vec![limit("user/a", USER), limit("user/b", USER), limit("shared/", SHARED)];
            let known = words::Tenant { tenant: tenant(second), accounts };
            self.event(0, u64::MAX, Kind::Info, words::TENANT, to_value(known).unwrap());
        }
    }

    fn event(&mut self, time_us: u64, process: u64, kind: Kind, f: &str, value: Value) {
        let (workload, f) = (WORKLOAD.to_owned(), f.to_owned());
        self.events.push(Event { index: 0, time_us, workload, process, kind, f, value, error: None });
    }

    /// An operation that took effect now, as somebody saw it who was told later or not at all.
    fn record(&mut self, f: &str, call: &Call, answer: Option<Value>) {
        let process = self.processes;
        self.processes += 1;
        let invoked = self.now_us - self.random.random_range(1..20_000);
        let completed = self.now_us + self.random.random_range(1..20_000);
        self.event(invoked, process, Kind::Invoke, f, to_value(call).unwrap());
        match answer {
            Some(answer) => self.event(completed, process, Kind::Ok, f, answer),
            None => self.event(completed, process, Kind::Info, f, Value::Null),
        }
    }

    fn strikes(&mut self, bug: Bug, step: usize) -> bool {
        let now = self.bug == Some(bug) && step >= self.after;
        if now {
            (self.bug, self.struck) = (None, true);
        }
        now
    }

    fn entry(&mut self, step: usize) {
        self.now_us += self.random.random_range(1..30_000);
        if self.random.random_bool(0.1) {
            self.expire();
        }
        self.index += 1;
        for _ in 0..self.random.random_range(1..4) {
            let command = self.command();
            self.execute(&command, step);
        }
        self.past.push((self.index, self.ledger.clone()));
        for second in [false, true] {
            if self.random.random_bool(0.3) {
                self.read(second, step);
            }
        }
        if self.random.random_bool(0.3) {
            self.read_stale(step);
        }
    }

    fn command(&mut self) -> Command {
        let tenant = tenant(self.random.random_bool(0.3));
        let again = self.reserves.len().saturating_sub(12);
        let pick = self.random.random_range(0..10);
        if self.reserves.is_empty() || pick < 4 {
            return self.reserve(tenant);
        }
        let chosen = self.random.random_range(again..self.reserves.len());
        let reserve = self.reserves[chosen].clone();
        let Command::Reserve { tenant, id, charges, .. } = &reserve else { unreachable!() };
        let (tenant, id) = (tenant.clone(), *id);
        match pick {
            4 => reserve,
            5 => Command::Release { tenant, id },
            6 => Command::Extend { tenant, id, ttl_ms: self.random.random_range(1..400) },
            _ => {
                let least = |charge: &Charge| charge.at_least.micros() + self.random.random_range(0..30);
                let actual = charges.iter().map(least).map(tokens).collect();
                Command::Settle { tenant, id, actual, estimated: false }
            }
        }
    }

    fn reserve(&mut self, tenant: String) -> Command {
        let id = self.fresh_id();
        let amount = self.random.random_range(1..80);
        let at_least =
            if self.random.random_bool(0.3) { self.random.random_range(1..=amount) } else { amount };
        let subject = if self.random.random_bool(0.5) { "a" } else { "b" };
        let charge = |budget: &str, subject: &str| Charge {
            budget: budget.to_owned(),
            subject: subject.to_owned(),
            amount: tokens(amount),
            at_least: tokens(at_least),
        };
        let charges = vec![charge("user", subject), charge("shared", "")];
        let ttl_ms = self.random.random_range(50..2_000);
        let reserve = Command::Reserve { tenant, id, charges, ttl_ms, wait: false };
        self.reserves.push(reserve.clone());
        reserve
    }

    fn fresh_id(&mut self) -> ReservationId {
        let drawn = u128::from(self.random.random::<u64>() >> 2);
        let id = (u128::from(self.at().0) << 80) | (7 << 76) | (0b10 << 62) | drawn;
        ReservationId::from_u128(id).unwrap()
    }

    fn execute(&mut self, command: &Command, step: usize) {
        let (f, call) = Call::of(command, 1).unwrap();
        let known = self.random.random_bool(0.9);
        if !known && self.random.random_bool(0.5) {
            // It never arrived.
            return self.record(f, &call, None);
        }
        if let Some(denial) = self.ledger.would_deny(self.at(), command).filter(|_| known)
            && self.random.random_bool(0.5)
        {
            let executed = Executed { outcome: Outcome::Denied(denial), log_term: 0, log_index: 0 };
            return self.record(f, &call, Some(to_value(Answer::from(&executed)).unwrap()));
        }
        let before = self.ledger.clone();
        // A bug that could not be seen even in principle is none.
        let (_, changed) = self.tried(command);
        let index = self.index;
        // Nobody misses what nobody was told.
        let wrong = if known { self.wrongly(command, step) } else { None };
        let outcome = wrong.unwrap_or_else(|| self.apply(command));
        if known && changed && is_decision(&outcome) && self.strikes(Bug::LostWrite, step) {
            self.ledger = before;
        }
        let executed = Executed { outcome, log_term: 1, log_index: index };
        self.record(f, &call, known.then(|| to_value(Answer::from(&executed)).unwrap()));
    }

    /// What the answer would be, and whether anything would change but the time.
    fn tried(&self, command: &Command) -> (Outcome, bool) {
        let mut before = self.ledger.clone();
        before.apply(self.at(), &Command::AckAlerts { up_to: 0 });
        let mut after = before.clone();
        let outcome = after.apply(self.at(), command);
        (outcome, after != before)
    }

    /// The answer, if this is where the bug strikes.
    fn wrongly(&mut self, command: &Command, step: usize) -> Option<Outcome> {
        let (outcome, fresh) = self.tried(command);
        let granted = matches!(outcome, Outcome::Granted(_));
        match command {
            Command::Settle { tenant, actual, .. }
                if fresh && actual.iter().all(|amount| amount.micros() > 0) && is_decision(&outcome) =>
            {
                let again = self.reserves.iter().find(|reserve| id_of(reserve) == id_of(command))?.clone();
                let Command::Reserve { charges, .. } = again else { return None };
                if !self.strikes(Bug::AppliedTwice, step) {
                    return None;
                }
                self.apply(command);
                self.charge_unseen(tenant, &charges, actual);
                Some(outcome)
            }
            Command::Reserve { tenant, id, charges, ttl_ms, wait } if granted && fresh => {
                // What holds nothing there cannot be missed.
                let Outcome::Granted(grant) = &outcome else { return None };
                if grant.balances.iter().any(|balance| balance.amount.is_zero())
                    || !self.strikes(Bug::PartialReservation, step)
                {
                    return None;
                }
                let charges = charges[..1].to_vec();
                let (name, ttl_ms) = (tenant.clone(), *ttl_ms);
                self.apply(&Command::Reserve { tenant: name, id: *id, charges, ttl_ms, wait: *wait });
                // Before anybody releases it.
                self.read_now(tenant);
                Some(outcome)
            }
            Command::Reserve { tenant, charges, ttl_ms, wait, .. } if granted => {
                let (tenant, id, charges, ttl_ms) =
                    (tenant.clone(), self.fresh_id(), charges.clone(), *ttl_ms);
                let again = Command::Reserve { tenant, id, charges, ttl_ms, wait: *wait };
                if self.ledger.would_deny(self.at(), &again).is_some()
                    || !self.strikes(Bug::ReplayedAsNew, step)
                {
                    return None;
                }
                Some(self.apply(&again))
            }
            Command::Extend { tenant, id, .. } if matches!(outcome, Outcome::Extended { .. }) => {
                if !self.strikes(Bug::EarlyExpiry, step) {
                    return None;
                }
                self.apply(command);
                let reservation = self.ledger.reservations(tenant).find(|open| open.id == *id)?;
                let actual = reservation.charges.iter().map(|charge| charge.amount).collect();
                self.apply(&Command::Settle { tenant: tenant.clone(), id: *id, actual, estimated: true });
                // Seen before the deadline.
                self.read_now(tenant);
                Some(outcome)
            }
            _ => None,
        }
    }

    /// As if the settlement had been applied again.
    fn charge_unseen(&mut self, tenant: &str, charges: &[Charge], actual: &[Amount]) {
        let id = self.fresh_id();
        let least =
            |charge: &Charge| Charge { amount: Amount::ZERO, at_least: Amount::ZERO, ..charge.clone() };
        let charges = charges.iter().map(least).collect();
        let tenant = tenant.to_owned();
        self.apply(&Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms: 1_000, wait: false });
        self.apply(&Command::Settle { tenant, id, actual: actual.to_vec(), estimated: false });
    }

    fn expire(&mut self) {
        for second in [false, true] {
            let tenant = tenant(second);
            let ids = self.ledger.due(&tenant, self.at(), 256);
            if !ids.is_empty() {
                self.index += 1;
                self.apply(&Command::Expire { tenant, ids });
            }
        }
    }

    fn snapshot(&self, ledger: &Ledger, tenant: &str, index: u64, node: u64) -> Snapshot {
        let accounts = ledger.accounts(ledger.time(), tenant, None).map(|view| Account {
            account: words::account_name(&view.budget, &view.subject),
            limit: view.limit.micros(),
            spent: view.spent.micros(),
            reserved: view.reserved.micros(),
            available: view.available.micros(),
            overdraft: view.overdraft.micros(),
            estimated: view.estimated.micros(),
        });
        let (accounts, time_ms) = (accounts.collect(), ledger.time().0);
        Snapshot { accounts, time_ms, term: 1, index, node, connection: node }
    }

    fn read_now(&mut self, tenant: &str) {
        let seen = self.snapshot(&self.ledger, tenant, self.index, 1);
        self.record(words::READ, &Call::read(tenant, 1), Some(to_value(seen).unwrap()));
        // Reads see whole entries.
        self.index += 1;
    }

    fn read(&mut self, second: bool, step: usize) {
        let tenant = tenant(second);
        let now = self.snapshot(&self.ledger, &tenant, self.index, 1);
        let old = self.past.iter().rev().skip(1).take(3);
        let old = old.map(|(_, ledger)| self.snapshot(ledger, &tenant, self.index, 1));
        let other = old.into_iter().find(|old| old.accounts != now.accounts);
        let seen = match other {
            Some(old) if self.strikes(Bug::StaleRead, step) => old,
            _ => now,
        };
        self.record(words::READ, &Call::read(&tenant, 1), Some(to_value(seen).unwrap()));
    }

    fn read_stale(&mut self, step: usize) {
        let node = self.random.random_range(1..4);
        let shown = self.shown.get(&node).copied().unwrap_or(0);
        let before =
            self.past.iter().filter(|(index, _)| *index < shown).map(|(index, _)| *index).next_back();
        let back = before.filter(|_| self.strikes(Bug::ReadBack, step));
        let from = back.unwrap_or(shown.max(self.index.saturating_sub(8)));
        let Some((index, ledger)) = self.past.iter().find(|(index, _)| *index >= from).cloned() else {
            return;
        };
        self.shown.insert(node, index);
        let tenant = tenant(false);
        let seen = self.snapshot(&ledger, &tenant, index, node);
        // One after the other: none overlaps the one before.
        self.now_us += 50_000;
        self.record(words::STALE_READ, &Call::read(&tenant, node), Some(to_value(seen).unwrap()));
        self.now_us += 50_000;
    }

    fn end(&mut self) {
        self.now_us += 100_000_000;
        self.expire();
        self.now_us += 100_000;
        for node in 1..4 {
            for second in [false, true] {
                let tenant = tenant(second);
                let seen = self.snapshot(&self.ledger, &tenant, self.index, node);
                self.record(words::FINAL_READ, &Call::read(&tenant, node), Some(to_value(seen).unwrap()));
            }
            let found = invariant::check(&self.ledger);
            let violations = found.into_iter().map(|violation| violation.detail).collect();
            let found = Invariants { node, index: self.index, violations };
            self.record(words::INVARIANTS, &Call::read("", node), Some(to_value(found).unwrap()));
        }
    }

    fn history(mut self) -> History {
        self.events.sort_by_key(|event| event.time_us);
        for (index, event) in self.events.iter_mut().enumerate() {
            event.index = index as u64;
        }
        History { events: self.events }
    }
}

fn is_decision(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Granted(_) | Outcome::Settled(_) | Outcome::Released)
}

fn id_of(command: &Command) -> Option<ReservationId> {
    match command {
        Command::Reserve { id, .. } | Command::Settle { id, .. } => Some(*id),
        _ => None,
    }
}
