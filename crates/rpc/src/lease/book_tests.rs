//! One book by itself: when it asks, gives, retires and returns.

use quorate_ledger::{
    Amount, Balance, BudgetRule, Enforcement, Grant, ReservationId, TimestampMs, Unit, Window,
};

use super::book::Book;
use super::types::{Action, Ask, LeaseSettings, Line, Now, Return, Taken, Want};

const HOUR: u64 = 3_600_000;
const TENANT: &str = "acme";

fn tokens(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

fn rule(name: &str) -> BudgetRule {
    BudgetRule {
        enforcement: Enforcement::Lease,
        ..BudgetRule::new(name, Unit::Tokens, tokens(100_000), Window::Hour)
    }
}

/// Ten seconds into an hour, and `ms` later.
fn at(ms: u64) -> Now {
    Now { local_ms: ms, ledger: TimestampMs(500_000 * HOUR + 10_000 + ms) }
}

fn id(number: u64) -> ReservationId {
    ReservationId::from_u128((7 << 76) | (0b10 << 62) | u128::from(number)).unwrap()
}

fn held(taken: Taken) -> Option<Vec<Line>> {
    match taken {
        Taken::Held(lines) => Some(lines),
        Taken::Direct => None,
        Taken::Wait(asks) => panic!("nobody can wait: {asks:?}"),
    }
}

struct Desk {
    book: Book,
    rule: BudgetRule,
    ids: u64,
}

impl Desk {
    fn new() -> Self {
        Self { book: Book::new(LeaseSettings::new(30_000)), rule: rule("hot"), ids: 0 }
    }

    fn take(&mut self, units: u64, now: Now) -> Option<Vec<Line>> {
        self.take_under(1, units, now)
    }

    fn take_under(&mut self, version: u64, units: u64, now: Now) -> Option<Vec<Line>> {
        let want = Want { rule: &self.rule, subject: "", amount: tokens(units) };
        held(self.book.take(version, TENANT, &[want], false, now))
    }

    /// As somebody who can wait.
    fn take_or_wait(&mut self, units: u64, now: Now) -> Taken {
        let want = Want { rule: &self.rule, subject: "", amount: tokens(units) };
        self.book.take(1, TENANT, &[want], true, now)
    }

    fn take_after(&mut self, units: u64, now: Now) -> Option<Vec<Line>> {
        let want = Want { rule: &self.rule, subject: "", amount: tokens(units) };
        self.book.take_after(1, TENANT, &[want], now)
    }

    /// The one slice that a request of so much waits for.
    fn first(&mut self, units: u64, now: Now) -> Ask {
        let Taken::Wait(mut asks) = self.take_or_wait(units, now) else { panic!("it did not wait") };
        assert_eq!(asks.len(), 1, "{asks:?}");
        asks.remove(0)
    }

    fn balance(&self, spent: u64, reserved: u64, amount: u64) -> Balance {
        Balance {
            budget: self.rule.name.clone(),
            subject: String::new(),
            unit: Unit::Tokens,
            limit: self.rule.limit,
            spent: tokens(spent),
            reserved: tokens(reserved),
            resets_at: Some(TimestampMs(500_001 * HOUR)),
            amount: tokens(amount),
        }
    }

    /// Ten requests of 100 within 100 ms, which all go the exact way; then one more, which asks for a slice.
    fn asked(&mut self, now: Now) -> Ask {
        let seen = self.balance(0, 0, 0);
        for _ in 0..10 {
            assert_eq!(self.take(100, now), None);
        }
        self.book.saw(TENANT, &[seen]);
        assert_eq!(self.book.actions(), [], "nothing is known of the pace yet");
        let later = Now { local_ms: now.local_ms + 100, ledger: now.ledger.saturating_add(100) };
        assert_eq!(self.take(100, later), None);
        let mut actions = self.book.actions();
        assert_eq!(actions.len(), 1, "{actions:?}");
        let Some(Action::Ask(ask)) = actions.pop() else { panic!("no slice was asked for") };
        ask
    }

    fn grant(&mut self, ask: &Ask, granted: u64, now: Now) -> ReservationId {
        self.ids += 1;
        let deadline = now.ledger.saturating_add(ask.ttl_ms);
        let grant = Grant { deadline, balances: vec![self.balance(0, granted, granted)] };
        self.book.granted(ask.ticket, id(self.ids), &grant, now);
        id(self.ids)
    }

    /// A book with a slice of 1,000 since 100 ms.
    fn leased() -> (Self, ReservationId) {
        let mut desk = Self::new();
        let ask = desk.asked(at(0));
        let id = desk.grant(&ask, 1_000, at(100));
        assert_eq!(desk.book.actions(), []);
        (desk, id)
    }

    /// What goes back. Slices that are asked for besides are not granted.
    fn returns(&mut self) -> Vec<Return> {
        let mut returns = Vec::new();
        for action in self.book.actions() {
            match action {
                Action::Return(back) => returns.push(back),
                Action::Ask(ask) => self.book.failed(ask.ticket, at(0)),
            }
        }
        returns
    }
}

#[test]
fn a_slice_is_asked_for_once_it_is_worth_it() {
    let mut desk = Desk::new();
    let ask = desk.asked(at(0));
    assert_eq!((ask.tenant.as_str(), ask.budget.as_str(), ask.subject.as_str()), (TENANT, "hot", ""));
    // About ten requests of 100 a second: more than a second's worth, and a 64th of what is left.
    assert_eq!(ask.amount.units_floor(), 1_562);
    assert_eq!(ask.at_least, tokens(200));
    assert_eq!(ask.ttl_ms, 35_000);
    // One at a time.
    assert_eq!(desk.take(100, at(150)), None);
    assert_eq!(desk.book.actions(), []);
}

#[test]
fn what_is_not_known_or_nearly_used_up_is_not_leased() {
    for seen in [None, Some((99_300, 0)), Some((0, 99_300)), Some((100_000, 0))] {
        let mut desk = Desk::new();
        for number in 0..40 {
            assert_eq!(desk.take(100, at(number * 25)), None);
        }
        if let Some((spent, reserved)) = seen {
            let balance = desk.balance(spent, reserved, 0);
            desk.book.saw(TENANT, &[balance]);
        }
        assert_eq!(desk.take(100, at(1_000)), None);
        assert_eq!(desk.book.actions(), [], "{seen:?}");
    }
}

#[test]
fn a_slice_gives_as_long_as_it_has_room_and_what_was_not_used_is_given_again() {
    let (mut desk, slice) = Desk::leased();
    let mut holds: Vec<Vec<Line>> = (0..10).map(|_| desk.take(100, at(200)).unwrap()).collect();
    assert_eq!(desk.take(100, at(200)), None, "all of it is held");
    let hold = holds.pop().unwrap();
    desk.book.end(&hold, &[tokens(30)], false);
    assert_eq!(desk.take(100, at(200)), None, "70 are free");
    let hold = holds.pop().unwrap();
    desk.book.end(&hold, &[], false);
    let again = desk.take(100, at(200)).unwrap();
    assert!(desk.take(71, at(200)).is_none());
    holds.push(again);
    // One uses more than it held: it is charged, and what is free is less by it.
    let hold = holds.pop().unwrap();
    desk.book.end(&hold, &[tokens(150)], true);
    for hold in &holds {
        desk.book.end(hold, &[tokens(1)], false);
    }
    desk.book.actions();
    desk.book.tick(at(3_300));
    let returns = desk.returns();
    let expected = (slice, tokens(1_000), tokens(30 + 150 + 8), true);
    let seen: Vec<_> =
        returns.iter().map(|back| (back.id, back.amount, back.spent, back.estimated)).collect();
    assert_eq!(seen, [expected], "idle for three seconds");
}

#[test]
fn standing_is_what_the_cluster_said_with_what_happened_here() {
    let (mut desk, _) = Desk::leased();
    let standing = |desk: &mut Desk| {
        let line = desk.take(100, at(200)).unwrap()[0];
        (line.standing.spent.units_floor(), line.standing.reserved.units_floor(), line)
    };
    let (spent, reserved, first) = standing(&mut desk);
    assert_eq!((spent, reserved), (0, 100), "what is free of a slice is not reserved by anybody");
    desk.book.end(&[first], &[tokens(40)], false);
    let (spent, reserved, _) = standing(&mut desk);
    assert_eq!((spent, reserved), (40, 100));
}

#[test]
fn slices_end_by_age_window_policy_room_and_stop() {
    let hour_end = 3_590_000;
    let late = Now { local_ms: 300, ledger: TimestampMs(500_001 * HOUR) };
    type End = fn(&mut Desk);
    let ends: [(&str, u64, End); 6] = [
        ("age", 5_000, |desk| assert!(desk.take(100, at(5_100)).is_none())),
        ("window", 0, |_| ()),
        ("policy", 300, |desk| assert!(desk.take_under(2, 100, at(300)).is_none())),
        ("a policy that nobody asks under", 300, |desk| desk.book.under(2)),
        ("room", 300, |desk| {
            // Something is held of it: nobody needs to wait for that.
            assert_eq!(desk.book.make_room(TENANT, "hot", "", at(300)), None);
        }),
        ("stop", 300, |desk| desk.book.stop(at(300))),
    ];
    assert!(at(hour_end).ledger == late.ledger);
    for (why, ms, end) in ends {
        let (mut desk, slice) = Desk::leased();
        let mut hold = desk.take(100, at(200)).unwrap();
        if why == "age" {
            // Not idle.
            for step in 1..=9 {
                desk.book.end(&hold, &[], false);
                hold = desk.take(100, at(200 + step * 500)).unwrap();
            }
        }
        assert_eq!(desk.returns(), []);
        end(&mut desk);
        let now = if why == "window" { late } else { at(ms + 100) };
        assert!(desk.take_under(2, 100, now).is_none(), "{why}");
        desk.book.tick(now);
        assert_eq!(desk.returns(), [], "{why}: something is held of it");
        desk.book.end(&hold, &[tokens(60)], false);
        let returns = desk.returns();
        assert_eq!(
            returns.iter().map(|back| (back.id, back.spent)).collect::<Vec<_>>(),
            [(slice, tokens(60))],
            "{why}"
        );
        assert!(!desk.book.is_settled());
        let balance = desk.balance(60, 0, 60);
        desk.book.returned(returns[0].account, Some(&balance));
        assert!(desk.book.is_settled(), "{why}");
    }
}

#[test]
fn a_slice_that_was_made_in_another_window_or_for_another_unit_goes_back() {
    let mut desk = Desk::new();
    let ask = desk.asked(at(0));
    // This clock is ahead of the ledger's.
    let other_hour = Now { local_ms: 100, ledger: TimestampMs(500_000 * HOUR - 5) };
    let slice = desk.grant(&ask, 1_000, other_hour);
    assert_eq!(
        desk.returns().iter().map(|back| (back.id, back.spent)).collect::<Vec<_>>(),
        [(slice, Amount::ZERO)]
    );

    let mut desk = Desk::new();
    let ask = desk.asked(at(0));
    let mut balance = desk.balance(0, 1_000, 1_000);
    balance.unit = Unit::Dollars;
    let deadline = at(100).ledger.saturating_add(ask.ttl_ms);
    desk.book.granted(ask.ticket, id(9), &Grant { deadline, balances: vec![balance] }, at(100));
    assert_eq!(desk.returns().len(), 1);
    assert!(desk.take(100, at(150)).is_none());
}

#[test]
fn all_or_nothing() {
    let (mut desk, _) = Desk::leased();
    let cold = rule("cold");
    for _ in 0..20 {
        let hot = Want { rule: &desk.rule, subject: "", amount: tokens(100) };
        let cold = Want { rule: &cold, subject: "", amount: tokens(1) };
        assert_eq!(held(desk.book.take(1, TENANT, &[hot, cold], false, at(200))), None);
    }
    // Nothing is left held, by twenty requests of 100 at a slice of 1,000.
    assert!(desk.take(1_000, at(200)).is_some());
}

#[test]
fn what_was_not_granted_is_not_asked_for_again_at_once() {
    let mut desk = Desk::new();
    let ask = desk.asked(at(0));
    desk.book.failed(ask.ticket, at(120));
    assert!(desk.take(100, at(200)).is_none());
    assert_eq!(desk.book.actions(), []);
    for step in 0..4 {
        assert!(desk.take(100, at(650 + step)).is_none());
    }
    assert_eq!(desk.book.actions().len(), 1);
}

#[test]
fn accounts_are_bounded_and_forgotten() {
    let settings = LeaseSettings { accounts_max: 2, ..LeaseSettings::new(30_000) };
    let mut book = Book::new(settings);
    let rule = rule("hot");
    for subject in ["a", "b", "c"] {
        let want = Want { rule: &rule, subject, amount: tokens(1) };
        assert_eq!(held(book.take(1, TENANT, &[want], false, at(0))), None);
    }
    let direct = |book: &mut Book| book.counts().get("hot").map_or(0, |counts| counts.direct);
    assert_eq!(direct(&mut book), 2, "the third is not looked at");
    book.tick(at(10_000));
    let want = Want { rule: &rule, subject: "c", amount: tokens(1) };
    assert_eq!(held(book.take(1, TENANT, &[want], false, at(10_000))), None);
    assert_eq!(direct(&mut book), 3, "there is room again");
}

#[test]
fn a_hold_that_never_ends_is_given_up_after_the_ledger_can_be_corrected_no_more() {
    let (mut desk, _) = Desk::leased();
    let hold = desk.take(100, at(200)).unwrap();
    assert_eq!(desk.book.tick(at(35_000 + 49_000)), 0);
    assert!(!desk.book.is_settled());
    assert_eq!(desk.book.tick(at(35_100 + 50_000)), 1);
    assert!(desk.book.is_settled());
    // It ends all the same, when another account has the number.
    desk.book.tick(at(200_000));
    assert!(desk.take(1, at(200_000)).is_none());
    desk.book.end(&hold, &[tokens(5)], false);
    assert_eq!(desk.book.actions(), []);
}

#[test]
fn the_first_request_of_an_account_far_from_its_limit_waits_for_a_slice_with_room_for_more() {
    let mut desk = Desk::new();
    let ask = desk.first(10, at(0));
    // Eight requests, and no more than a 1,024th of 100,000.
    assert_eq!((ask.amount, ask.at_least), (tokens(80), tokens(10)));
    assert!(ask.ttl_ms > 30_000 + 30_000 && ask.ttl_ms <= 30_000 + 60_000, "{}", ask.ttl_ms);
    // Who comes meanwhile does not wait for what others asked for.
    assert_eq!(desk.take_or_wait(10, at(1)), Taken::Direct);
    desk.grant(&ask, 80, at(2));
    let waited = desk.take_after(10, at(2)).unwrap();
    let others: Vec<Vec<Line>> = (0..7).map(|_| desk.take(10, at(3)).unwrap()).collect();
    assert_eq!(desk.take(10, at(3)), None);
    let counts = desk.book.counts()["hot"];
    assert_eq!((counts.local, counts.waited, counts.direct, counts.granted), (8, 1, 2, 1));
    for hold in others.iter().chain([&waited]).skip(1) {
        desk.book.end(hold, &[tokens(5)], false);
    }
    desk.book.end(&others[0], &[], false);
    desk.book.tick(at(29_000));
    assert_eq!(desk.returns(), [], "it is kept for slow users");
    desk.book.tick(at(31_000));
    let returns = desk.returns();
    assert_eq!(returns.iter().map(|back| back.spent).collect::<Vec<_>>(), [tokens(35)]);
}

#[test]
fn nobody_waits_for_a_slice_that_would_be_missed() {
    // Room for two requests is not a 1,024th of it.
    let mut desk = Desk::new();
    assert_eq!(desk.take_or_wait(60, at(0)), Taken::Direct);
    assert_ne!(desk.take_or_wait(40, at(0)), Taken::Direct);
    // It is known that little is left, or nothing.
    for (spent, reserved) in [(99_000, 0), (0, 99_000), (100_000, 0)] {
        let mut desk = Desk::new();
        assert_eq!(desk.take(1, at(0)), None);
        let balance = desk.balance(spent, reserved, 0);
        desk.book.saw(TENANT, &[balance]);
        assert_eq!(desk.take_or_wait(1, at(1)), Taken::Direct, "{spent} {reserved}");
    }
    // Nothing, and what is about to end.
    assert_eq!(Desk::new().take_or_wait(0, at(0)), Taken::Direct);
    assert_eq!(Desk::new().take_or_wait(10, at(3_589_960)), Taken::Direct);
}

#[test]
fn who_waits_for_several_waits_for_all_that_are_missing_or_for_none() {
    let mut desk = Desk::new();
    let (cold, tight) = (rule("cold"), BudgetRule { limit: tokens(100), ..rule("tight") });
    let want = |rule| Want { rule, subject: "", amount: tokens(10) };
    let rule = desk.rule.clone();
    let taken = desk.book.take(1, TENANT, &[want(&rule), want(&tight)], true, at(0));
    assert_eq!((taken, desk.book.actions()), (Taken::Direct, vec![]), "one would not be worth it");
    let Taken::Wait(asks) = desk.book.take(1, TENANT, &[want(&rule), want(&cold)], true, at(0)) else {
        panic!("both are worth it");
    };
    assert_eq!(asks.iter().map(|ask| ask.budget.as_str()).collect::<Vec<_>>(), ["hot", "cold"]);
    // One of them is denied: the other has given nothing when the request goes the exact way.
    desk.grant(&asks[0], 80, at(1));
    desk.book.failed(asks[1].ticket, at(1));
    assert_eq!(desk.book.take_after(1, TENANT, &[want(&rule), want(&cold)], at(1)), None);
    assert!(desk.take(80, at(2)).is_some());
}

#[test]
fn a_slice_of_an_account_that_turns_out_to_be_near_its_limit_lives_shortly() {
    let mut desk = Desk::new();
    let ask = desk.first(10, at(0));
    let deadline = at(0).ledger.saturating_add(ask.ttl_ms);
    let grant = Grant { deadline, balances: vec![desk.balance(99_000, 80, 80)] };
    desk.book.granted(ask.ticket, id(1), &grant, at(0));
    let hold = desk.take_after(10, at(0)).unwrap();
    desk.book.end(&hold, &[tokens(10)], false);
    desk.book.tick(at(2_900));
    assert_eq!(desk.returns(), []);
    desk.book.tick(at(3_000));
    assert_eq!(desk.returns().iter().map(|back| back.spent).collect::<Vec<_>>(), [tokens(10)]);
}

#[test]
fn slices_that_were_taken_together_do_not_end_together() {
    let mut desk = Desk::new();
    let subjects: Vec<String> = (0..64).map(|number| format!("user-{number}")).collect();
    let rule = desk.rule.clone();
    let mut ttls: Vec<u64> = Vec::new();
    for subject in &subjects {
        let want = Want { rule: &rule, subject, amount: tokens(1) };
        let Taken::Wait(asks) = desk.book.take(1, TENANT, &[want], true, at(0)) else { panic!("{subject}") };
        ttls.extend(asks.iter().map(|ask| ask.ttl_ms - 30_000));
    }
    ttls.sort_unstable();
    assert!(ttls[0] >= 30_000 && ttls[63] <= 60_000, "{ttls:?}");
    // In each eighth of the time some, and in none many.
    for eighth in 0..8 {
        let span = 30_000_u64 + eighth * 3_750..30_000 + (eighth + 1) * 3_750;
        let count = ttls.iter().filter(|ttl| span.contains(ttl)).count();
        assert!((4..=13).contains(&count), "{count} in {span:?}: {ttls:?}");
    }
}

#[test]
fn of_many_accounts_each_is_looked_at_in_turn() {
    let mut desk = Desk::new();
    let rule = desk.rule.clone();
    let subjects: Vec<String> = (0..5_000).map(|number| format!("user-{number}")).collect();
    for (number, subject) in subjects.iter().enumerate() {
        let want = Want { rule: &rule, subject, amount: tokens(1) };
        let Taken::Wait(asks) = desk.book.take(1, TENANT, &[want], true, at(0)) else { panic!("{subject}") };
        let deadline = at(0).ledger.saturating_add(asks[0].ttl_ms);
        let balance = Balance { subject: subject.clone(), ..desk.balance(0, 8, 8) };
        desk.book.granted(
            asks[0].ticket,
            id(number as u64),
            &Grant { deadline, balances: vec![balance] },
            at(0),
        );
    }
    let mut returned = std::collections::HashSet::new();
    let mut ticks = 0;
    while returned.len() < subjects.len() {
        desk.book.tick(at(40_000));
        let returns = desk.returns();
        assert!(returns.len() <= 700, "{} at once", returns.len());
        returned.extend(returns.into_iter().map(|back| back.id));
        ticks += 1;
    }
    assert_eq!(ticks, 8);
}
