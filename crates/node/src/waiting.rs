//! How a tenant's actor lets reservations wait: who joins the queue, whose turn comes, what one is told when its time is
//! up. The queue itself is in `wait_queue`.

use std::time::Duration;

use quorate_ledger::{
    Amount, Balance, Command, Denial, Outcome, RETENTION_MS, ReservationId, TimestampMs, Unit,
};
use ractor::ActorRef;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::Undecided;
use crate::group::Group;
use crate::metrics::Counted;
use crate::proposer::{Asker, Decided, Decision};
use crate::tenant_actor::{Execute, Message, State};
use crate::wait_queue::{Account, WaitQueue, Waiter};

/// Looks at least this often while somebody waits: for a window that rolls over, a new limit, a caller that left.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// An id is good for [`RETENTION_MS`]; what waits is decided well before.
const BEFORE_STALE_MS: u64 = 5_000;

/// What the actor keeps of those that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queue: WaitQueue,
    tickets: u64,
    timer: Option<(Instant, JoinHandle<()>)>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The order of arrival.
    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// This node leads no more, or stops: the caller asks the next leader.
    pub fn stop(&mut self) {
        for waiter in self.queue.take_all() {
            let _ = waiter.answer.send(Err(Undecided::NotLeader(None)));
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
    }
}

impl<G: Group> State<G> {
    /// Deals with what concerns those that wait; gives back what is to be proposed now.
    pub(crate) fn pass_the_queue(&mut self, myself: &ActorRef<Message>, execute: Execute) -> Option<Execute> {
        if self.waiting.is_empty() {
            return Some(execute);
        }
        match &execute.command {
            Command::Release { id, .. } => {
                self.give_up(*id);
                Some(execute)
            }
            Command::Reserve { id, .. } => {
                let id = *id;
                match self.waiting.queue.find(id).filter(|waiter| waiter.asks_for(&execute.command)) {
                    Some(waiter) => {
                        // The same caller again: it keeps its place. Its former self has nobody to tell.
                        waiter.answer = execute.answer;
                        let until = execute.wait_until.unwrap_or_else(Instant::now);
                        waiter.until = until.min(good_until(&execute.command, self.arguments.replica.now()));
                        self.look_soon(myself);
                        None
                    }
                    None => self.stand_behind(myself, id, execute),
                }
            }
            _ => Some(execute),
        }
    }

    fn stand_behind(
        &mut self,
        myself: &ActorRef<Message>,
        id: ReservationId,
        execute: Execute,
    ) -> Option<Execute> {
        let Some(account) = self.waiting.queue.held_by_another(&execute.command) else {
            return Some(execute);
        };
        // Somebody else may lead by now: then neither this queue nor what is applied here says anything. The log will.
        if !self.arguments.replica.has_lease() {
            return Some(execute);
        }
        let (tenant, time) = (&self.arguments.tenant, self.arguments.replica.now());
        let (known, denial) = self
            .arguments
            .replica
            .read(|ledger, _| (ledger.knows(tenant, id), ledger.would_deny(time, &execute.command)));
        let denial = match denial {
            // A replay of what was decided, or what no wait would help: the ledger says so.
            _ if known => return Some(execute),
            Some(denial) if !denial.held_by_reservations => return Some(execute),
            Some(denial) => denial,
            None => self.taken_by_another(&execute.command, account),
        };
        self.wait_or_deny(myself, execute, denial);
        None
    }

    /// It has been found short: waits if it may, else is denied.
    pub(crate) fn wait_or_deny(&mut self, myself: &ActorRef<Message>, execute: Execute, denial: Denial) {
        let Execute { command, answer, place, wait_until, ticket } = execute;
        let until = wait_until.filter(|until| denial.held_by_reservations && *until > Instant::now());
        match until {
            Some(_) if self.is_decided(&command) => {
                let place = place.map(|place| place.propose(myself.clone()));
                self.arguments.proposer.submit(command, Asker { answer, place });
            }
            Some(until) if self.waiting.queue.len() < self.arguments.waiting_max => {
                // Those that wait take no place from those that settle, for which they wait.
                drop(place);
                let until = until.min(good_until(&command, self.arguments.replica.now()));
                let _counted = Counted::new(&self.arguments.metrics.waiting);
                let waiter = Waiter { ticket, command, answer, until, denial, in_flight: false, _counted };
                self.waiting.queue.join(waiter);
                self.arguments.turnstile.someone_waits(true);
                // What was decided before that was said.
                self.look_soon(myself);
            }
            _ => drop(answer.send(Ok(from_state(denial)))),
        }
    }

    /// What was asked for again has been decided.
    pub(crate) fn retried(&mut self, myself: &ActorRef<Message>, ticket: u64, decision: Decision) {
        let Some(mut waiter) = self.waiting.queue.take(ticket) else { return };
        match decision {
            Ok(Decided { outcome: Outcome::Denied(denial), .. }) if denial.held_by_reservations => {
                if self.is_decided(&waiter.command) {
                    let asker = Asker { answer: waiter.answer, place: None };
                    return self.arguments.proposer.submit(waiter.command, asker);
                }
                waiter.denial = denial;
                waiter.in_flight = false;
                self.waiting.queue.join(waiter);
            }
            // Nothing happened, and asking again at once would not help: the timer looks.
            Err(Undecided::Overloaded(_)) => {
                waiter.in_flight = false;
                self.waiting.queue.join(waiter);
                return self.set_timer(myself);
            }
            decision => {
                if matches!(&decision, Ok(Decided { outcome: Outcome::Granted(_), .. })) {
                    self.arguments.metrics.granted_after_wait.inc();
                }
                let _ = waiter.answer.send(decision);
            }
        }
        self.look_soon(myself);
    }

    /// The ledger knows its id, because it was asked for without a wait, too: whatever was decided then is final, and in
    /// the log. To wait for another decision would be to ask for this one over and over.
    fn is_decided(&self, command: &Command) -> bool {
        let Command::Reserve { tenant, id, .. } = command else { return false };
        self.arguments.replica.read(|ledger, _| ledger.knows(tenant, *id))
    }

    /// Something was decided that may have made room.
    pub(crate) fn look_soon(&mut self, myself: &ActorRef<Message>) {
        self.arguments.turnstile.tell_to_look(myself);
    }

    /// Lets go whose time is up and asks again for those whose turn it is.
    pub(crate) fn look(&mut self, myself: &ActorRef<Message>) {
        self.arguments.turnstile.looks_now();
        for waiter in self.waiting.queue.take_over(Instant::now()) {
            self.let_go(waiter);
        }
        let (replica, queue) = (&self.arguments.replica, &mut self.waiting.queue);
        let time = replica.now();
        let turns = replica.read(|ledger, _| queue.turns(|command| ledger.would_deny(time, command)));
        for (ticket, command) in turns {
            self.ask_again(myself, ticket, command);
        }
        self.arguments.turnstile.someone_waits(!self.waiting.is_empty());
        self.set_timer(myself);
    }

    fn let_go(&self, waiter: Waiter) {
        // A leader that may have been replaced does not know what is left.
        let decision = match self.arguments.replica.has_lease() {
            true => Ok(from_state(waiter.denial)),
            false => Err(Undecided::NotLeader(None)),
        };
        let _ = waiter.answer.send(decision);
    }

    fn ask_again(&mut self, myself: &ActorRef<Message>, ticket: u64, command: Command) {
        let Some(place) = self.arguments.turnstile.enter() else {
            // The next look asks again.
            if let Some(waiter) = self.waiting.queue.find_ticket(ticket) {
                waiter.in_flight = false;
            }
            return;
        };
        let (answer, decided) = oneshot::channel();
        let place = Some(place.propose(myself.clone()));
        self.arguments.proposer.submit(command, Asker { answer, place });
        let myself = myself.clone();
        tokio::spawn(async move {
            let decision = decided.await.unwrap_or_else(|_| Err(Undecided::stopping()));
            let _ = myself.cast(Message::Retried { ticket, decision: Box::new(decision) });
        });
    }

    /// Proposes a reservation that may wait: a denial comes back here if waiting helps.
    pub(crate) fn propose_waiting(&mut self, myself: &ActorRef<Message>, execute: Execute) {
        let Execute { command, answer, place, wait_until, ticket } = execute;
        let (first_answer, decided) = oneshot::channel();
        let place = place.map(|place| place.propose(myself.clone()));
        self.arguments.proposer.submit(command.clone(), Asker { answer: first_answer, place });
        let myself = myself.clone();
        tokio::spawn(async move {
            let decision = decided.await.unwrap_or_else(|_| Err(Undecided::stopping()));
            match decision {
                Ok(Decided { outcome: Outcome::Denied(denial), .. }) if denial.held_by_reservations => {
                    let execute = Execute { command, answer, place: None, wait_until, ticket };
                    let (execute, denial) = (Box::new(execute), Box::new(denial));
                    let _ = myself.cast(Message::Short { execute, denial });
                }
                decision => drop(answer.send(decision)),
            }
        });
    }

    /// A caller that gave up says so by releasing what it waits for.
    fn give_up(&mut self, id: ReservationId) {
        let ticket =
            self.waiting.queue.find(id).filter(|waiter| !waiter.in_flight).map(|waiter| waiter.ticket);
        if let Some(waiter) = ticket.and_then(|ticket| self.waiting.queue.take(ticket)) {
            self.let_go(waiter);
        }
    }

    /// The denial of one that would fit, but another one waits for the same account.
    fn taken_by_another(&self, command: &Command, (budget, subject): Account) -> Denial {
        let (tenant, time) = (&self.arguments.tenant, self.arguments.replica.now());
        let account =
            self.arguments.replica.read(|ledger, _| ledger.account(time, tenant, &budget, &subject));
        let charges = match command {
            Command::Reserve { charges, .. } => charges.as_slice(),
            _ => &[],
        };
        let asked = charges.iter().find(|charge| charge.budget == budget && charge.subject == subject);
        Denial {
            account: Balance {
                unit: account.as_ref().map_or(Unit::Tokens, |account| account.unit),
                limit: account.as_ref().map_or(Amount::ZERO, |account| account.limit),
                spent: account.as_ref().map_or(Amount::ZERO, |account| account.spent),
                reserved: account.as_ref().map_or(Amount::ZERO, |account| account.reserved),
                resets_at: account.as_ref().and_then(|account| account.window.end),
                amount: Amount::ZERO,
                budget,
                subject,
            },
            asked: asked.map_or(Amount::ZERO, |charge| charge.at_least),
            available: Amount::ZERO,
            retry_after_ms: Some(u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(0)),
            held_by_reservations: true,
        }
    }

    fn set_timer(&mut self, myself: &ActorRef<Message>) {
        // Where all are in flight, the decision on the first of them leads to the next look.
        let Some(deadline) = self.waiting.queue.next_deadline() else { return };
        let now = Instant::now();
        let at = deadline.min(now + LOOK_EVERY);
        // One that is due may have sent its look already, which may be this one.
        let set = |(known, _): &(Instant, JoinHandle<()>)| now < *known && *known <= at;
        if self.waiting.timer.as_ref().is_some_and(set) {
            return;
        }
        let myself = myself.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let _ = myself.cast(Message::Look);
        });
        if let Some((_, old)) = self.waiting.timer.replace((at, timer)) {
            old.abort();
        }
    }
}

/// It changed nothing and stands nowhere in the log.
fn from_state(denial: Denial) -> Decided {
    Decided { outcome: Outcome::Denied(denial), term: 0, index: 0 }
}

fn good_until(command: &Command, time: TimestampMs) -> Instant {
    let id = match command {
        Command::Reserve { id, .. } => *id,
        _ => return Instant::now(),
    };
    let stale = id.timestamp().saturating_add(RETENTION_MS - BEFORE_STALE_MS);
    Instant::now() + Duration::from_millis(stale.since(time))
}

/// What is left for the answer to get back.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// When a reservation that may wait so long, of a caller that waits for an answer so long, is to be decided at the latest.
pub(crate) fn wait_until(wait: Duration, timeout: Duration) -> Option<Instant> {
    let wait = wait.min(timeout.saturating_sub(ANSWER_WITHIN.min(timeout / 4)));
    (!wait.is_zero()).then(|| Instant::now() + wait)
}
