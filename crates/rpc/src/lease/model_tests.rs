//! Several books and one real ledger, against a naive count of what was served: whatever is taken, ended, lost, delayed or
//! killed, no limit is passed, and in the end what was charged is what was served.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_ledger::{
    Amount, Balance, BudgetRule, Charge, Command, Enforcement, Ledger, Outcome, Refusal, ReservationId,
    TimestampMs, Unit, Window, invariant,
};

use super::book::Book;
use super::types::{Action, Ask, LeaseSettings, Line, Now, Return, Taken, Want};

const TENANT: &str = "acme";
const GATEWAYS: usize = 3;
const HOLD_MS: u64 = 20_000;
const HOUR: u64 = 3_600_000;
/// Shortly before an hour ends.
const START: u64 = 500_001 * HOUR - 3_000;
const LIMITS: [(&str, u64, Window); 4] = [
    ("hour", 3_000, Window::Hour),
    ("minute", 1_500, Window::Minute),
    ("sliding", 2_500, Window::Sliding { ms: 60_000 }),
    // So much that a request takes slices for those after it.
    ("rich", 200_000, Window::Hour),
];

#[derive(Debug, Clone)]
enum Operation {
    /// A burst of requests at one gateway; `budgets`: a bit for each.
    Take {
        gateway: usize,
        budgets: u8,
        amounts: Vec<u64>,
        /// What becomes of slices that they wait for; none: they do not wait.
        waits: Option<Fate>,
    },
    /// One request ends: with so many percent of what it held.
    End {
        which: usize,
        percent: u64,
    },
    /// The cluster hears what a gateway wants, all of it.
    Deliver {
        gateway: usize,
        fate: Fate,
    },
    Tick {
        gateway: usize,
    },
    Advance {
        ms: u64,
    },
    Crash {
        gateway: usize,
    },
    Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It happened, and the gateway does not hear of it.
    AnswerLost,
    /// Nothing happened.
    NotSent,
}

fn operation() -> impl Strategy<Value = Operation> {
    let gateway = 0..GATEWAYS;
    let fate = prop_oneof![6 => Just(Fate::Answered), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::NotSent)];
    // Some meet only the budget that has plenty.
    let budgets = prop_oneof![3 => 1..16_u8, 1 => Just(8_u8)];
    prop_oneof![
        30 => (gateway.clone(), budgets, proptest::collection::vec(1..40_u64, 1..12), proptest::option::of(fate.clone()))
            .prop_map(|(gateway, budgets, amounts, waits)| Operation::Take { gateway, budgets, amounts, waits }),
        40 => (any::<usize>(), 0..=110_u64).prop_map(|(which, percent)| Operation::End { which, percent }),
        20 => (gateway.clone(), fate).prop_map(|(gateway, fate)| Operation::Deliver { gateway, fate }),
        8 => gateway.clone().prop_map(|gateway| Operation::Tick { gateway }),
        20 => prop_oneof![3 => 10..300_u64, 1 => 300..7_000_u64].prop_map(|ms| Operation::Advance { ms }),
        1 => gateway.prop_map(|gateway| Operation::Crash { gateway }),
        1 => Just(Operation::Policy),
    ]
}

/// What one request holds.
#[derive(Debug)]
struct Held {
    gateway: usize,
    /// (budget, amount) as held.
    amounts: Vec<(usize, Amount)>,
    since: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Local(Vec<Line>),
    Direct(ReservationId),
}

#[derive(Debug, Default)]
struct Seen {
    local: u64,
    direct: u64,
    denied: u64,
    slices: u64,
    waited: u64,
    crashes: u64,
    room: u64,
}

struct Gateway {
    book: Book,
    /// What the book wants done, and releases of slices that may have been granted.
    wants: VecDeque<Wanted>,
    skew: i64,
}

enum Wanted {
    Action(Action),
    Abandon(ReservationId),
}

struct World {
    ledger: Ledger,
    gateways: Vec<Gateway>,
    rules: Vec<BudgetRule>,
    version: u64,
    now: u64,
    ids: u64,
    open: Vec<Held>,
    /// Of ended requests, by budget and start of the window in which they were admitted.
    served: BTreeMap<(usize, u64), u64>,
    /// By how much requests used more than they held, by budget.
    overused: BTreeMap<usize, u64>,
    seen: Seen,
}

fn settings() -> LeaseSettings {
    LeaseSettings { rate_min: 0.5, ..LeaseSettings::new(HOLD_MS) }
}

impl World {
    fn new(skews: &[i64]) -> Self {
        let rule = |(name, limit, window): (&str, u64, Window)| BudgetRule {
            enforcement: Enforcement::Lease,
            ..BudgetRule::new(name, Unit::Tokens, Amount::from_units(limit).unwrap(), window)
        };
        let gateway =
            |skew: &i64| Gateway { book: Book::new(settings()), wants: VecDeque::new(), skew: *skew };
        let mut world = Self {
            ledger: Ledger::default(),
            gateways: skews.iter().map(gateway).collect(),
            rules: LIMITS.into_iter().map(rule).collect(),
            version: 0,
            now: START,
            ids: 0,
            open: Vec::new(),
            served: BTreeMap::new(),
            overused: BTreeMap::new(),
            seen: Seen::default(),
        };
        world.put_policy();
        world
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        let outcome = self.ledger.apply(TimestampMs(self.now), command);
        assert_eq!(invariant::check(&self.ledger), [], "after {command:?}");
        outcome
    }

    fn put_policy(&mut self) {
        self.version += 1;
        let other =
            BudgetRule::new(format!("other-{}", self.version), Unit::Tokens, Amount::MAX, Window::Day);
        let rules = self.rules.iter().cloned().chain([other]).collect();
        let (document, by, comment) = Default::default();
        let put = Command::PutPolicy { expected_version: None, rules, document, staged: None, by, comment };
        assert!(matches!(self.apply(&put), Outcome::PolicyPut { .. }));
    }

    fn new_id(&mut self) -> ReservationId {
        self.ids += 1;
        let id = (u128::from(self.now) << 80) | (7 << 76) | (0b10 << 62) | u128::from(self.ids);
        ReservationId::from_u128(id).unwrap()
    }

    fn at(&self, gateway: usize) -> Now {
        let ledger = TimestampMs(self.now.saturating_add_signed(self.gateways[gateway].skew));
        Now { local_ms: self.now - START, ledger }
    }

    /// As a gateway does it: from slices, else of the cluster, and once more where something could be returned.
    fn take(&mut self, gateway: usize, amounts: Vec<(usize, Amount)>, waits: Option<Fate>) {
        let now = self.at(gateway);
        let rules = self.rules.clone();
        let want =
            |(budget, amount): &(usize, Amount)| Want { rule: &rules[*budget], subject: "", amount: *amount };
        let wants: Vec<Want<'_>> = amounts.iter().map(want).collect();
        let taken = self.gateways[gateway].book.take(self.version, TENANT, &wants, waits.is_some(), now);
        let lines = match (taken, waits) {
            (Taken::Held(lines), _) => Some(lines),
            (Taken::Direct, _) => None,
            (Taken::Wait(asks), Some(fate)) => {
                asks.into_iter().for_each(|ask| self.ask(gateway, ask, fate));
                let lines = self.gateways[gateway].book.take_after(self.version, TENANT, &wants, now);
                self.seen.waited += u64::from(lines.is_some());
                // Who hears nothing of the cluster asks it for nothing else.
                if lines.is_none() && fate != Fate::Answered {
                    self.seen.denied += 1;
                    return;
                }
                lines
            }
            (Taken::Wait(asks), None) => panic!("nobody waits for {asks:?}"),
        };
        let what = match lines {
            Some(lines) => Some(What::Local(lines)),
            None => self.direct(gateway, &amounts),
        };
        match &what {
            Some(What::Local(_)) => self.seen.local += 1,
            Some(What::Direct(_)) => self.seen.direct += 1,
            None => self.seen.denied += 1,
        }
        self.open.extend(what.map(|what| Held { gateway, amounts, since: self.now, what }));
    }

    fn direct(&mut self, gateway: usize, amounts: &[(usize, Amount)]) -> Option<What> {
        for asked_before in [false, true] {
            let id = self.new_id();
            let charge = |(budget, amount): &(usize, Amount)| Charge {
                budget: LIMITS[*budget].0.to_owned(),
                subject: String::new(),
                amount: *amount,
                at_least: *amount,
            };
            let charges = amounts.iter().map(charge).collect();
            let tenant = TENANT.to_owned();
            let outcome = self.apply(&Command::Reserve { tenant, id, charges, ttl_ms: HOLD_MS, wait: false });
            let now = self.at(gateway);
            let book = &mut self.gateways[gateway].book;
            let denial = match outcome {
                Outcome::Granted(grant) => {
                    book.saw(TENANT, &grant.balances);
                    return Some(What::Direct(id));
                }
                Outcome::Denied(denial) => denial,
                other => panic!("{other:?}"),
            };
            book.saw(TENANT, std::slice::from_ref(&denial.account));
            if asked_before || !denial.held_by_reservations {
                return None;
            }
            let (_, returns) = book.make_room(TENANT, &denial.account.budget, "", now)?;
            self.seen.room += returns.len() as u64;
            for back in returns {
                self.give_back(gateway, &back);
            }
        }
        None
    }

    fn end(&mut self, which: usize, percent: u64) {
        if self.open.is_empty() {
            return;
        }
        let Held { gateway, amounts, since, what } = self.open.swap_remove(which % self.open.len());
        let used = |amount: &Amount| Amount::from_micros(amount.micros() * percent / 100).unwrap();
        let actual: Vec<Amount> = amounts.iter().map(|(_, amount)| used(amount)).collect();
        for ((budget, held), used) in amounts.iter().zip(&actual) {
            *self.overused.entry(*budget).or_default() += used.saturating_sub(*held).micros();
            let start = self.rules[*budget].span_at(TimestampMs(since)).start.0;
            *self.served.entry((*budget, start)).or_default() += used.micros();
        }
        match what {
            What::Local(lines) => self.gateways[gateway].book.end(&lines, &actual, false),
            What::Direct(id) => {
                let settle = Command::Settle { tenant: TENANT.to_owned(), id, actual, estimated: false };
                assert!(matches!(self.apply(&settle), Outcome::Settled(_)));
            }
        }
    }

    fn give_back(&mut self, gateway: usize, back: &Return) {
        let balance = match self.apply(&back.command()) {
            Outcome::Settled(settlement) => settlement.balances.into_iter().next(),
            Outcome::Released => None,
            other => panic!("{back:?}: {other:?}"),
        };
        self.gateways[gateway].book.returned(back.account, balance.as_ref());
    }

    fn ask(&mut self, gateway: usize, ask: Ask, fate: Fate) {
        let id = self.new_id();
        let outcome = (fate != Fate::NotSent).then(|| self.apply(&ask.command(id)));
        let now = self.at(gateway);
        let Gateway { book, wants, .. } = &mut self.gateways[gateway];
        match outcome.filter(|_| fate == Fate::Answered) {
            Some(Outcome::Granted(grant)) => {
                self.seen.slices += 1;
                book.granted(ask.ticket, id, &grant, now);
            }
            Some(Outcome::Denied(denial)) => book.denied(ask.ticket, &denial, now),
            Some(other) => panic!("{other:?}"),
            None => {
                book.failed(ask.ticket, now);
                wants.push_back(Wanted::Abandon(id));
            }
        }
    }

    fn deliver(&mut self, gateway: usize, fate: Fate) {
        let actions = self.gateways[gateway].book.actions();
        self.gateways[gateway].wants.extend(actions.into_iter().map(Wanted::Action));
        for wanted in std::mem::take(&mut self.gateways[gateway].wants) {
            match (wanted, fate) {
                (Wanted::Action(Action::Ask(ask)), fate) => self.ask(gateway, ask, fate),
                // Told again, until somebody hears the answer.
                (again, Fate::NotSent) => self.gateways[gateway].wants.push_back(again),
                (Wanted::Action(Action::Return(back)), Fate::AnswerLost) => {
                    self.apply(&back.command());
                    self.gateways[gateway].wants.push_back(Wanted::Action(Action::Return(back)));
                }
                (Wanted::Action(Action::Return(back)), Fate::Answered) => self.give_back(gateway, &back),
                (Wanted::Abandon(id), _) => {
                    let outcome = self.apply(&Command::Release { tenant: TENANT.to_owned(), id });
                    let unknown = matches!(outcome, Outcome::Refused(Refusal::UnknownReservation { .. }));
                    // A denial has its id too.
                    let ended = matches!(outcome, Outcome::Refused(Refusal::AlreadyResolved { .. }));
                    assert!(unknown || ended || outcome == Outcome::Released, "{outcome:?}");
                }
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        // Nothing waits for as long as what it waits for lives.
        for gateway in (0..GATEWAYS).filter(|_| ms > 300) {
            self.deliver(gateway, Fate::Answered);
        }
        while let Some(old) = self.open.iter().position(|held| self.now + ms > held.since + HOLD_MS - 1_000) {
            self.end(old, 100);
        }
        self.now += ms;
        self.expire();
    }

    fn expire(&mut self) {
        let due = self.ledger.reservations(TENANT).filter(|open| open.deadline.0 <= self.now);
        let ids: Vec<ReservationId> = due.map(|open| open.id).collect();
        if !ids.is_empty() {
            self.apply(&Command::Expire { tenant: TENANT.to_owned(), ids });
        }
    }

    fn crash(&mut self, gateway: usize) {
        self.seen.crashes += 1;
        self.gateways[gateway].book = Book::new(settings());
        self.gateways[gateway].wants.clear();
        self.open.retain(|held| held.gateway != gateway);
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Take { gateway, budgets, amounts, waits } => {
                for amount in amounts {
                    let chosen = (0..LIMITS.len()).filter(|budget| budgets & (1 << budget) != 0);
                    let amount = Amount::from_units(amount).unwrap();
                    self.take(gateway, chosen.map(|budget| (budget, amount)).collect(), waits);
                }
            }
            Operation::End { which, percent } => self.end(which, percent),
            Operation::Deliver { gateway, fate } => self.deliver(gateway, fate),
            Operation::Tick { gateway } => {
                let now = self.at(gateway);
                assert_eq!(self.gateways[gateway].book.tick(now), 0, "no hold lasts that long");
            }
            Operation::Advance { ms } => self.advance(ms),
            Operation::Crash { gateway } => self.crash(gateway),
            Operation::Policy => self.put_policy(),
        }
    }

    /// Everybody who lives ends and returns everything; what the dead held expires.
    fn finish(&mut self) {
        while !self.open.is_empty() {
            self.end(0, 50);
        }
        for gateway in 0..GATEWAYS {
            let now = self.at(gateway);
            self.gateways[gateway].book.stop(now);
            self.deliver(gateway, Fate::Answered);
            // Releases of what was lost.
            self.deliver(gateway, Fate::Answered);
            assert!(self.gateways[gateway].book.is_settled());
        }
        if self.seen.crashes == 0 {
            assert_eq!(self.ledger.reservations(TENANT).count(), 0, "all is returned");
        }
        self.now += HOLD_MS + settings().far_age_max_ms;
        self.expire();
        assert_eq!(self.ledger.reservations(TENANT).count(), 0, "what the dead held has expired");
        let skewed = self.gateways.iter().any(|gateway| gateway.skew != 0);
        for (budget, (name, ..)) in LIMITS.into_iter().enumerate() {
            let Some(account) = self.ledger.account(TimestampMs(self.now), TENANT, name, "") else {
                continue;
            };
            let windows = account.closed_windows.iter().map(|one| (one.overdraft, one.spent, one.limit));
            let windows = windows.chain([(account.overdraft, account.spent, account.limit)]);
            let overused = self.overused.get(&budget).copied().unwrap_or_default();
            for (overdraft, spent, limit) in windows {
                assert!(overdraft.micros() <= overused, "{name}: more was given than was held");
                assert!(spent.micros() <= limit.micros() + overused, "{name}: {spent} of {limit}");
            }
            let served = self.served.iter().filter(|((of, _), _)| *of == budget);
            let (windows, total) = (served.clone().count(), served.map(|(_, micros)| *micros).sum::<u64>());
            if name == "sliding" {
                continue; // many slices: more than are kept
            }
            let present = (account.window.start.0, account.spent.micros());
            let closed = account.closed_windows.iter().map(|one| (one.window.start.0, one.spent.micros()));
            let charged: BTreeMap<u64, u64> = closed.chain([present]).collect();
            assert!(windows <= charged.len());
            let sum: u64 = charged.values().sum();
            if self.seen.crashes > 0 {
                assert!(sum >= total, "{name}: charged {sum}, served {total}");
                continue;
            }
            assert_eq!(sum, total, "{name}");
            for (start, charged) in charged.into_iter().filter(|_| !skewed) {
                let served = self.served.get(&(budget, start)).copied().unwrap_or_default();
                assert_eq!(charged, served, "{name}: each in its window");
            }
        }
    }
}

#[test]
fn no_limit_is_passed_and_what_is_charged_was_served() {
    let mut all = Seen::default();
    // So many that what is seen seldom (room that was made: once in seven) is seen often enough in every run.
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let skew = prop_oneof![Just(0_i64), -80..80_i64];
    let skews = prop_oneof![Just(vec![0; GATEWAYS]), proptest::collection::vec(skew, GATEWAYS)];
    let cases = (skews, proptest::collection::vec(operation(), 1..160));
    let sum = std::cell::RefCell::new(&mut all);
    let result = runner.run(&cases, |(skews, operations)| {
        let mut world = World::new(&skews);
        for operation in operations {
            world.run(operation);
        }
        world.finish();
        let mut sum = sum.borrow_mut();
        let Seen { local, direct, denied, slices, waited, crashes, room } = world.seen;
        sum.local += local;
        sum.direct += direct;
        sum.denied += denied;
        sum.slices += slices;
        sum.waited += waited;
        sum.crashes += crashes;
        sum.room += room;
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let Seen { local, direct, denied, slices, waited, crashes, room } = all;
    let each = [local, direct, denied, slices, waited, crashes, room];
    assert!(each.iter().all(|count| *count > 15), "something did not happen often enough: {all:?}");
}

/// Balances are shown to a book by whoever asked the cluster; those of accounts that nobody leases change nothing.
#[test]
fn balances_of_strangers_are_ignored() {
    let mut book = Book::new(settings());
    let balance = Balance {
        budget: "b".to_owned(),
        subject: String::new(),
        unit: Unit::Tokens,
        limit: Amount::MAX,
        spent: Amount::ZERO,
        reserved: Amount::ZERO,
        resets_at: None,
        amount: Amount::ZERO,
    };
    book.saw(TENANT, &[balance]);
    assert!(book.is_settled());
    assert!(book.counts().is_empty());
}
