//! Random command sequences against a naive model: a list of facts, summed up anew for every question.
//!
//! Replays, reordered retries, clock jumps both ways, expiries, late settlements, adjustments. After every step all
//! invariants are checked, and what the ledger says of each account is compared with the model.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use proptest::prelude::*;
use quorate_ledger::{
    Adjustment, Amount, BudgetRule, Charge, Command, Ledger, Outcome, ReservationId, TimestampMs, Unit,
    Window, WindowSpan, invariant,
};

const START: u64 = 1_790_000_000_000;
const BUDGETS: [(&str, u64, Window); 3] =
    [("minute", 100, Window::Minute), ("hour", 250, Window::Hour), ("life", 900, Window::Lifetime)];
const SUBJECTS: [&str; 2] = ["alice", "bob"];

#[derive(Debug, Clone)]
enum Step {
    /// Milliseconds, also backwards.
    Clock(i64),
    Reserve {
        charges: Vec<(usize, usize, u64, u64)>,
        ttl_ms: u64,
    },
    /// Sends an earlier Reserve again, as it was.
    Replay(usize),
    Settle {
        which: usize,
        amounts: Vec<u64>,
    },
    Release(usize),
    Extend(usize, u64),
    ExpireAll,
    TopUp {
        budget: usize,
        subject: usize,
        units: u64,
    },
    Reset {
        budget: usize,
        subject: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let charge = (0..3_usize, 0..2_usize, 0..120_u64, 0..120_u64);
    prop_oneof![
        3 => (-5_000..40_000_i64).prop_map(Step::Clock),
        1 => (-100_000..4_000_000_i64).prop_map(Step::Clock),
        8 => (prop::collection::vec(charge, 1..4), 1..90_000_u64).prop_map(|(charges, ttl_ms)| Step::Reserve { charges, ttl_ms }),
        3 => any::<prop::sample::Index>().prop_map(|index| Step::Replay(index.index(1 << 16))),
        6 => (any::<prop::sample::Index>(), prop::collection::vec(0..150_u64, 3)).prop_map(|(index, amounts)| Step::Settle { which: index.index(1 << 16), amounts }),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::Release(index.index(1 << 16))),
        1 => (any::<prop::sample::Index>(), 1..60_000_u64).prop_map(|(index, ttl_ms)| Step::Extend(index.index(1 << 16), ttl_ms)),
        3 => Just(Step::ExpireAll),
        1 => (0..3_usize, 0..2_usize, 0..100_u64).prop_map(|(budget, subject, units)| Step::TopUp { budget, subject, units }),
        1 => (0..3_usize, 0..2_usize).prop_map(|(budget, subject)| Step::Reset { budget, subject }),
    ]
}

/// What happened to one window of one account.
#[derive(Debug, Clone, Copy)]
enum Fact {
    /// By the reservation with this number.
    Held(usize, u64),
    Freed(usize),
    Charged(usize, u64),
    ToppedUp(u64),
    Reset,
}

#[derive(Debug)]
struct Request {
    command: Command,
    state: State,
    /// (budget, subject, window, granted)
    lines: Vec<(usize, usize, WindowSpan, u64)>,
    deadline: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Denied,
    Open,
    Settled(Vec<u64>),
    Released,
    Expired,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    clock: u64,
    facts: Vec<(usize, usize, WindowSpan, Fact)>,
    requests: Vec<Request>,
}

fn units(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

fn id(at: u64, number: usize) -> ReservationId {
    ReservationId::from_u128((u128::from(at) << 80) | (7 << 76) | (0b10 << 62) | number as u128).unwrap()
}

impl Model {
    fn span(&self, budget: usize) -> WindowSpan {
        BUDGETS[budget].2.span_at(TimestampMs(self.now))
    }

    fn of(&self, budget: usize, subject: usize, span: WindowSpan) -> impl Iterator<Item = Fact> {
        self.facts
            .iter()
            .filter(move |(b, s, w, _)| (*b, *s, *w) == (budget, subject, span))
            .map(|(.., fact)| *fact)
    }

    /// (limit, spent, reserved), from the facts alone. A reservation's last charge counts; what was charged before a
    /// reset is forgiven, also when it is corrected later.
    fn account(&self, budget: usize, subject: usize, span: WindowSpan) -> (u64, u64, u64) {
        let (mut limit, mut reserved) = (BUDGETS[budget].1, 0);
        let mut charges: Vec<(usize, u64, u64)> = Vec::new();
        for fact in self.of(budget, subject, span) {
            match fact {
                Fact::Held(_, amount) => reserved += amount,
                Fact::Freed(number) => {
                    let held = self.of(budget, subject, span).find_map(|fact| match fact {
                        Fact::Held(other, amount) if other == number => Some(amount),
                        _ => None,
                    });
                    reserved -= held.unwrap();
                }
                Fact::Charged(number, amount) => {
                    match charges.iter_mut().find(|(other, ..)| *other == number) {
                        Some((_, charged, _)) => *charged = amount,
                        None => charges.push((number, amount, 0)),
                    }
                }
                Fact::ToppedUp(amount) => limit += amount,
                Fact::Reset => charges.iter_mut().for_each(|(_, charged, forgiven)| *forgiven = *charged),
            }
        }
        let spent = charges.iter().map(|(_, charged, forgiven)| charged.saturating_sub(*forgiven)).sum();
        (limit, spent, reserved)
    }

    fn add(&mut self, number: usize, line: usize, fact: Fact) {
        let (budget, subject, span, _) = self.requests[number].lines[line];
        self.facts.push((budget, subject, span, fact));
    }

    fn resolve(&mut self, number: usize, amounts: Option<&[u64]>, state: State) {
        let was_open = self.requests[number].state == State::Open;
        for line in 0..self.requests[number].lines.len() {
            let held = self.requests[number].lines[line].3;
            if was_open {
                self.add(number, line, Fact::Freed(number));
            }
            self.add(number, line, Fact::Charged(number, amounts.map_or(held, |amounts| amounts[line])));
        }
        self.requests[number].state = state;
    }
}

struct Run {
    ledger: Ledger,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let mut ledger = Ledger::default();
        let rules = BUDGETS.map(|(name, limit, window)| BudgetRule {
            name: name.into(),
            tenant: None,
            unit: Unit::Tokens,
            limit: units(limit),
            window,
        });
        ledger.apply(
            TimestampMs(START),
            &Command::PutPolicy { expected_version: None, rules: rules.to_vec(), document: String::new() },
        );
        Self { ledger, model: Model { now: START, clock: START, ..Model::default() } }
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.model.now = self.model.now.max(self.model.clock);
        self.ledger.apply(TimestampMs(self.model.clock), command)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Clock(ms) => {
                self.model.clock = self.model.clock.saturating_add_signed(ms).max(START - 1_000_000)
            }
            Step::Reserve { charges, ttl_ms } => self.reserve(charges, ttl_ms),
            Step::Replay(which) => self.replay(which),
            Step::Settle { which, amounts } => self.settle(which, &amounts),
            Step::Release(which) => self.release(which),
            Step::Extend(which, ttl_ms) => self.extend(which, ttl_ms),
            Step::ExpireAll => self.expire(),
            Step::TopUp { budget, subject, units: amount } => {
                self.adjust(budget, subject, Adjustment::TopUp(units(amount)), Fact::ToppedUp(amount));
            }
            Step::Reset { budget, subject } => self.adjust(budget, subject, Adjustment::Reset, Fact::Reset),
        }
    }

    fn reserve(&mut self, mut charges: Vec<(usize, usize, u64, u64)>, ttl_ms: u64) {
        charges.sort_unstable_by_key(|(budget, subject, ..)| (*budget, *subject));
        charges.dedup_by_key(|(budget, subject, ..)| (*budget, *subject));
        let number = self.model.requests.len();
        let asked = charges.iter().map(|(budget, subject, a, b)| Charge {
            budget: BUDGETS[*budget].0.into(),
            subject: SUBJECTS[*subject].into(),
            amount: units(*a.max(b)),
            at_least: units(*a.min(b)),
        });
        let at = self.model.now.max(self.model.clock);
        let command =
            Command::Reserve { tenant: "t".into(), id: id(at, number), charges: asked.collect(), ttl_ms };
        let outcome = self.apply(&command);
        let model = &mut self.model;
        let fits = charges.iter().all(|(budget, subject, a, b)| {
            let (limit, spent, reserved) = model.account_micros(*budget, *subject, model.span(*budget));
            let least = units(*a.min(b)).micros();
            spent + reserved + least <= limit || least == 0
        });
        let mut request =
            Request { command, state: State::Denied, lines: Vec::new(), deadline: model.now + ttl_ms };
        match outcome {
            Outcome::Granted(grant) => {
                assert!(fits, "granted what does not fit");
                request.state = State::Open;
                let mut whole = true;
                for ((budget, subject, a, b), balance) in charges.into_iter().zip(&grant.balances) {
                    let granted = balance.amount.micros();
                    let span = model.span(budget);
                    let (limit, spent, reserved) = model.account_micros(budget, subject, span);
                    assert!((units(a.min(b)).micros()..=units(a.max(b)).micros()).contains(&granted));
                    assert!(granted == 0 || spent + reserved + granted <= limit, "overspent");
                    whole &= granted == units(a.max(b)).micros();
                    request.lines.push((budget, subject, span, granted));
                }
                let all_fit = request.lines.len() == grant.balances.len();
                assert!(all_fit && (whole || model_shrinks(model, &request)), "shrunk without need");
            }
            Outcome::Denied(_) => assert!(!fits, "denied what fits"),
            other => panic!("{other:?}"),
        }
        model.requests.push(request);
        for line in 0..model.requests[number].lines.len() {
            let granted = model.requests[number].lines[line].3;
            model.add(number, line, Fact::Held(number, granted));
        }
    }

    fn replay(&mut self, which: usize) {
        let Some(number) = which.checked_rem(self.model.requests.len()) else { return };
        let command = self.model.requests[number].command.clone();
        let outcome = self.apply(&command);
        let request = &self.model.requests[number];
        match outcome {
            Outcome::Granted(grant) => {
                assert!(!matches!(request.state, State::Denied), "a replay granted what was denied");
                let amounts = grant.balances.iter().map(|balance| balance.amount.micros());
                assert!(amounts.eq(request.lines.iter().map(|line| line.3)), "a replay changed the decision");
            }
            Outcome::Denied(_) => assert_eq!(request.state, State::Denied),
            // Forgotten, and then surely too old to be taken for new.
            Outcome::Refused(_) => {
                assert_ne!(request.state, State::Open, "an open reservation was not recognised")
            }
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, which: usize, amounts: &[u64]) {
        let Some(number) = which.checked_rem(self.model.requests.len()) else { return };
        let Command::Reserve { id, .. } = self.model.requests[number].command else { unreachable!() };
        let lines = self.model.requests[number].lines.len();
        let micros: Vec<u64> = amounts.iter().take(lines).map(|amount| units(*amount).micros()).collect();
        let actual = micros.iter().map(|micros| Amount::from_micros(*micros).unwrap()).collect();
        let outcome = self.apply(&Command::Settle { tenant: "t".into(), id, actual });
        let state = self.model.requests[number].state.clone();
        match (outcome, state) {
            (Outcome::Settled(_), State::Open | State::Expired) => {
                self.model.resolve(number, Some(&micros), State::Settled(micros.clone()))
            }
            (Outcome::Settled(_), State::Settled(before)) => {
                assert_eq!(before, micros, "settled twice with other amounts")
            }
            (Outcome::Refused(_), State::Open) => panic!("an open reservation could not be settled"),
            (Outcome::Refused(_), _) => {}
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, which: usize) {
        let Some(number) = which.checked_rem(self.model.requests.len()) else { return };
        let Command::Reserve { id, .. } = self.model.requests[number].command else { unreachable!() };
        let outcome = self.apply(&Command::Release { tenant: "t".into(), id });
        let state = self.model.requests[number].state.clone();
        match (outcome, state) {
            (Outcome::Released, State::Open | State::Expired) => {
                let nothing = vec![0; self.model.requests[number].lines.len()];
                self.model.resolve(number, Some(&nothing), State::Released);
            }
            (Outcome::Released, State::Released) => {}
            (Outcome::Refused(_), State::Open) => panic!("an open reservation could not be released"),
            (Outcome::Refused(_), _) => {}
            other => panic!("{other:?}"),
        }
    }

    fn extend(&mut self, which: usize, ttl_ms: u64) {
        let Some(number) = which.checked_rem(self.model.requests.len()) else { return };
        let Command::Reserve { id, .. } = self.model.requests[number].command else { unreachable!() };
        let outcome = self.apply(&Command::Extend { tenant: "t".into(), id, ttl_ms });
        let open = self.model.requests[number].state == State::Open;
        assert_eq!(matches!(outcome, Outcome::Extended { .. }), open);
        if open {
            let deadline = self.model.now + ttl_ms;
            let request = &mut self.model.requests[number];
            request.deadline = request.deadline.max(deadline);
        }
    }

    fn expire(&mut self) {
        let ids = self.model.requests.iter().map(|request| match request.command {
            Command::Reserve { id, .. } => id,
            _ => unreachable!(),
        });
        let ids: Vec<ReservationId> = ids.collect();
        let Outcome::Expired { ids: expired } =
            self.apply(&Command::Expire { tenant: "t".into(), ids: ids.clone() })
        else {
            panic!()
        };
        for (number, id) in ids.into_iter().enumerate() {
            let due = self.model.requests[number].state == State::Open
                && self.model.requests[number].deadline <= self.model.now;
            assert_eq!(expired.contains(&id), due);
            if due {
                self.model.resolve(number, None, State::Expired);
            }
        }
    }

    fn adjust(&mut self, budget: usize, subject: usize, adjustment: Adjustment, fact: Fact) {
        let number =
            1_000_000 + self.model.facts.len() + usize::try_from(self.model.now % 1_000_000).unwrap();
        let at = self.model.now.max(self.model.clock);
        let command = Command::AdjustAccount {
            tenant: "t".into(),
            id: id(at, number),
            budget: BUDGETS[budget].0.into(),
            subject: SUBJECTS[subject].into(),
            adjustment,
        };
        if let Outcome::Adjusted(_) = self.apply(&command) {
            let span = self.model.span(budget);
            let fact = match fact {
                Fact::ToppedUp(amount) => Fact::ToppedUp(units(amount).micros()),
                other => other,
            };
            self.model.facts.push((budget, subject, span, fact));
        }
    }

    fn compare(&self) {
        assert_eq!(invariant::check(&self.ledger), []);
        for (budget, (name, ..)) in BUDGETS.iter().enumerate() {
            for (subject, who) in SUBJECTS.iter().enumerate() {
                let Some(view) = self.ledger.account(TimestampMs(0), "t", name, who) else { continue };
                let (limit, spent, reserved) =
                    self.model.account_micros(budget, subject, self.model.span(budget));
                assert_eq!(
                    (view.limit.micros(), view.spent.micros(), view.reserved.micros()),
                    (limit, spent, reserved),
                    "{name} {who}"
                );
            }
        }
    }
}

impl Model {
    /// Facts are in micros, limits in units.
    fn account_micros(&self, budget: usize, subject: usize, span: WindowSpan) -> (u64, u64, u64) {
        let (limit, spent, reserved) = self.account(budget, subject, span);
        let base = BUDGETS[budget].1;
        (units(base).micros() + (limit - base), spent, reserved)
    }
}

/// Some charge of the request had less left than it asked for at most.
fn model_shrinks(model: &Model, request: &Request) -> bool {
    let Command::Reserve { charges, .. } = &request.command else { unreachable!() };
    request.lines.iter().zip(charges).any(|((budget, subject, span, _), charge)| {
        let (limit, spent, reserved) = model.account_micros(*budget, *subject, *span);
        limit.saturating_sub(spent + reserved) < charge.amount.micros()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        let mut copy = None;
        for (number, step) in steps.into_iter().enumerate() {
            run.step(step);
            run.compare();
            if number == 30 {
                copy = Some((run.ledger.clone(), format!("{:?}", run.ledger)));
            }
        }
        // A clone is a snapshot: what came after did not reach it.
        if let Some((copy, text)) = copy {
            prop_assert_eq!(format!("{copy:?}"), text);
        }
    }
}
