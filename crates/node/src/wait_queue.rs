//! Who of one tenant waits for an account, in the order of arrival. Knows neither clock nor ledger: it is told.
//!
//! First come, first served at the account that was short: a reservation that needs an account for which another one
//! waits already stands behind it, however small it is. One that needs other accounts only goes past.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use quorate_ledger::{Amount, Charge, Command, Denial, ReservationId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::metrics::Counted;
use crate::proposer::Decision;

/// (budget, subject)
pub(crate) type Account = (String, String);

/// A reservation that was short of an account where only other reservations stand in the way.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// The order of arrival.
    pub ticket: u64,
    pub command: Command,
    pub answer: oneshot::Sender<Decision>,
    pub until: Instant,
    /// What it is told when its time is up: where it was short when it was last asked for.
    pub denial: Denial,
    /// Asked for again; the answer is on its way.
    pub in_flight: bool,
    /// In the metrics, for as long as it waits.
    pub _counted: Counted,
}

#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    /// By ticket.
    waiters: BTreeMap<u64, Waiter>,
}

impl Waiter {
    pub fn id(&self) -> Option<ReservationId> {
        match &self.command {
            Command::Reserve { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The same reservation, whether it may wait or not. With other fields under its id, the ledger is to say so.
    pub fn asks_for(&self, command: &Command) -> bool {
        let ttl = |command: &Command| match command {
            Command::Reserve { ttl_ms, .. } => Some(*ttl_ms),
            _ => None,
        };
        self.charges() == charges(command) && ttl(&self.command) == ttl(command)
    }

    fn charges(&self) -> &[Charge] {
        charges(&self.command)
    }

    fn short(&self) -> (&str, &str) {
        (&self.denial.account.budget, &self.denial.account.subject)
    }
}

impl WaitQueue {
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// The account of this reservation for which another one waits, if there is one.
    pub fn held_by_another(&self, command: &Command) -> Option<Account> {
        let waited_for: HashSet<_> =
            self.waiters.values().filter(|waiter| !waiter.in_flight).map(Waiter::short).collect();
        let shared = charges(command).iter().find(|charge| waited_for.contains(&key(charge)));
        shared.map(|charge| (charge.budget.clone(), charge.subject.clone()))
    }

    pub fn join(&mut self, waiter: Waiter) {
        self.waiters.insert(waiter.ticket, waiter);
    }

    /// A caller that asks again under the same id takes the place of its former self.
    pub fn find(&mut self, id: ReservationId) -> Option<&mut Waiter> {
        self.waiters.values_mut().find(|waiter| waiter.id() == Some(id))
    }

    pub fn find_ticket(&mut self, ticket: u64) -> Option<&mut Waiter> {
        self.waiters.get_mut(&ticket)
    }

    pub fn take(&mut self, ticket: u64) -> Option<Waiter> {
        self.waiters.remove(&ticket)
    }

    /// Those whose time is up, and those whose caller has gone. What is in flight is let come back first.
    pub fn take_over(&mut self, now: Instant) -> Vec<Waiter> {
        let over = |waiter: &&Waiter| !waiter.in_flight && (waiter.until <= now || waiter.answer.is_closed());
        let tickets: Vec<u64> = self.waiters.values().filter(over).map(|waiter| waiter.ticket).collect();
        tickets.into_iter().filter_map(|ticket| self.waiters.remove(&ticket)).collect()
    }

    pub fn take_all(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }

    /// Of those that a look would let go: what is in flight comes back by itself, also after its time.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiters.values().filter(|waiter| !waiter.in_flight).map(|waiter| waiter.until).min()
    }

    /// Those whose turn it is, in their order, with what is to be asked for; they count as in flight from now on.
    /// `would_deny` answers for a reservation as the ledger now stands.
    pub fn turns(&mut self, would_deny: impl Fn(&Command) -> Option<Denial>) -> VecDeque<(u64, Command)> {
        let mut turns = VecDeque::new();
        let mut waited_for: HashSet<Account> = HashSet::new();
        // What is on its way takes from the accounts before the ledger shows it.
        let mut claimed: HashMap<Account, Amount> = HashMap::new();
        for waiter in self.waiters.values_mut() {
            if waiter.in_flight {
                claim(&mut claimed, &waiter.command);
                continue;
            }
            let behind = waiter.charges().iter().any(|charge| {
                let (budget, subject) = key(charge);
                !waited_for.is_empty() && waited_for.contains(&(budget.to_owned(), subject.to_owned()))
            });
            let short = |waiter: &Waiter| {
                let (budget, subject) = waiter.short();
                (budget.to_owned(), subject.to_owned())
            };
            if behind {
                waited_for.insert(short(waiter));
                continue;
            }
            match would_deny(&waiter.command) {
                Some(denial) if denial.held_by_reservations => {
                    waiter.denial = denial;
                    waited_for.insert(short(waiter));
                }
                // Waiting does not help any more: the ledger is to say so.
                Some(_) => {
                    waiter.in_flight = true;
                    turns.push_back((waiter.ticket, waiter.command.clone()));
                }
                None if would_deny(&beyond(&waiter.command, &claimed)).is_some() => {
                    waited_for.insert(short(waiter));
                }
                None => {
                    waiter.in_flight = true;
                    claim(&mut claimed, &waiter.command);
                    turns.push_back((waiter.ticket, waiter.command.clone()));
                }
            }
        }
        turns
    }
}

fn charges(command: &Command) -> &[Charge] {
    match command {
        Command::Reserve { charges, .. } => charges,
        _ => &[],
    }
}

fn key(charge: &Charge) -> (&str, &str) {
    (&charge.budget, &charge.subject)
}

fn claim(claimed: &mut HashMap<Account, Amount>, command: &Command) {
    for charge in charges(command) {
        let amount = claimed.entry((charge.budget.clone(), charge.subject.clone())).or_default();
        *amount = plus(*amount, charge.amount);
    }
}

/// The same reservation as if it also asked for what others have claimed.
fn beyond(command: &Command, claimed: &HashMap<Account, Amount>) -> Command {
    let mut command = command.clone();
    if let Command::Reserve { charges, .. } = &mut command {
        for charge in charges {
            if let Some(more) = claimed.get(&(charge.budget.clone(), charge.subject.clone())) {
                charge.at_least = plus(charge.at_least, *more);
                charge.amount = plus(charge.amount, *more);
            }
        }
    }
    command
}

fn plus(left: Amount, right: Amount) -> Amount {
    left.checked_add(right).unwrap_or(Amount::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_ledger::{Balance, Unit};

    use super::*;

    /// What one account has left, and what each waiter asks for.
    struct Bench {
        queue: WaitQueue,
        answers: Vec<oneshot::Receiver<Decision>>,
        now: Instant,
    }

    fn amount(units: u64) -> Amount {
        Amount::from_units(units).unwrap()
    }

    fn reserve(number: u64, charges: &[(&str, u64)]) -> Command {
        let charge = |(budget, units): &(&str, u64)| Charge {
            budget: (*budget).to_owned(),
            subject: String::new(),
            amount: amount(*units),
            at_least: amount(*units),
        };
        let id = ReservationId::from_u128((7 << 76) | (0b10 << 62) | u128::from(number)).unwrap();
        Command::Reserve {
            tenant: "acme".to_owned(),
            id,
            charges: charges.iter().map(charge).collect(),
            ttl_ms: 1_000,
            wait: true,
        }
    }

    fn denial(budget: &str, asked: Amount, held: bool) -> Denial {
        let account = Balance {
            budget: budget.to_owned(),
            subject: String::new(),
            limit: amount(100),
            spent: Amount::ZERO,
            reserved: amount(100),
            resets_at: None,
            amount: Amount::ZERO,
            unit: Unit::Tokens,
        };
        Denial { account, asked, available: Amount::ZERO, retry_after_ms: None, held_by_reservations: held }
    }

    impl Bench {
        fn new() -> Self {
            Self { queue: WaitQueue::default(), answers: Vec::new(), now: Instant::now() }
        }

        fn wait(&mut self, ticket: u64, charges: &[(&str, u64)], within_ms: u64) {
            let (answer, answered) = oneshot::channel();
            self.answers.push(answered);
            self.queue.join(Waiter {
                ticket,
                command: reserve(ticket, charges),
                answer,
                until: self.now + Duration::from_millis(within_ms),
                denial: denial(charges[0].0, Amount::ZERO, true),
                in_flight: false,
                _counted: Counted::default(),
            });
        }

        /// Tickets whose turn it is when the accounts have so much left.
        fn turns(&mut self, left: &[(&str, u64)]) -> Vec<u64> {
            let left: HashMap<&str, u64> = left.iter().copied().collect();
            let turns = self.queue.turns(|command| {
                let short = charges(command)
                    .iter()
                    .find(|charge| amount(left[charge.budget.as_str()]) < charge.at_least)?;
                Some(denial(&short.budget, short.at_least, true))
            });
            turns.into_iter().map(|(ticket, _)| ticket).collect()
        }
    }

    #[test]
    fn those_that_fit_together_go_together_and_nobody_overtakes() {
        let mut bench = Bench::new();
        bench.wait(1, &[("a", 50)], 1_000);
        bench.wait(2, &[("a", 40)], 1_000);
        bench.wait(3, &[("a", 30)], 1_000);
        bench.wait(4, &[("b", 10)], 1_000);
        assert_eq!(
            bench.turns(&[("a", 45), ("b", 0)]),
            [0; 0],
            "the second would fit, the first is before it"
        );
        assert_eq!(bench.turns(&[("a", 90), ("b", 10)]), [1, 2, 4], "the third does not fit beside them");
        assert_eq!(bench.turns(&[("a", 90), ("b", 10)]), [0; 0], "they are in flight");
        bench.queue.take(1);
        bench.queue.take(2);
        assert_eq!(bench.turns(&[("a", 30), ("b", 0)]), [3]);
    }

    #[test]
    fn a_newcomer_is_stopped_by_the_account_that_is_waited_for_only() {
        let mut bench = Bench::new();
        bench.wait(1, &[("a", 50), ("org", 50)], 1_000);
        let held = |bench: &Bench, budget| bench.queue.held_by_another(&reserve(9, &[(budget, 1)])).is_some();
        assert!(held(&bench, "a") && !held(&bench, "org") && !held(&bench, "b"));
        assert_eq!(bench.turns(&[("a", 50), ("org", 0)]), [0; 0]);
        assert!(!held(&bench, "a") && held(&bench, "org"), "it waits for the other one now");
    }

    #[test]
    fn other_fields_under_its_id_are_another_reservation() {
        let mut bench = Bench::new();
        bench.wait(1, &[("a", 50)], 1_000);
        let mut again = reserve(1, &[("a", 50)]);
        if let Command::Reserve { wait, .. } = &mut again {
            *wait = false;
        }
        let waiter = &bench.queue.waiters[&1];
        assert!(waiter.asks_for(&again) && !waiter.asks_for(&reserve(1, &[("a", 51)])));
    }

    #[test]
    fn the_deadline_of_one_that_is_in_flight_wakes_nobody() {
        let mut bench = Bench::new();
        bench.wait(1, &[("a", 1)], 10);
        bench.wait(2, &[("b", 1)], 1_000);
        assert_eq!(bench.turns(&[("a", 1), ("b", 0)]), [1]);
        assert_eq!(bench.queue.next_deadline(), Some(bench.now + Duration::from_millis(1_000)));
        bench.queue.take(2);
        assert_eq!(bench.queue.next_deadline(), None, "a look would find nothing to do");
    }

    #[test]
    fn a_wait_ends_in_time_and_with_its_caller() {
        let mut bench = Bench::new();
        bench.wait(1, &[("a", 1)], 10);
        bench.wait(2, &[("a", 1)], 1_000);
        bench.wait(3, &[("a", 1)], 1_000);
        drop(bench.answers.remove(1));
        let over = bench.queue.take_over(bench.now + Duration::from_millis(10));
        assert_eq!(over.iter().map(|waiter| waiter.ticket).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(bench.queue.next_deadline(), Some(bench.now + Duration::from_millis(1_000)));
    }
}
