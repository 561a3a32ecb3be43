//! One actor for each active tenant on the leader: it stands behind the tenant's turnstile and keeps its operations in
//! their order. It holds soft state only (the next deadline, who waits); everything else is in the ledger, from which it
//! is made again on whichever node leads.

use std::marker::PhantomData;
use std::time::Duration;

use quorate_ledger::{Command, Denial, TimestampMs};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::group::Group;
use crate::metrics::Metrics;
use crate::proposer::{Asker, Decision, Proposer};
use crate::turnstile::{Place, Turnstile};
use crate::waiting::Waiting;

/// Reservations that expire with one command.
const EXPIRE_MAX: usize = 256;
/// An actor with nothing to do and nothing to wait for stops after so long.
const IDLE: Duration = Duration::from_secs(30);
/// Between two looks when the clock has reached a deadline but the ledger has not expired it yet.
const EXPIRE_AGAIN: Duration = Duration::from_millis(20);
const END_OF_TIME: TimestampMs = TimestampMs(u64::MAX);

#[derive(Debug)]
pub(crate) enum Message {
    Execute(Box<Execute>),
    /// A reservation was made whose deadline is earlier than all that was known.
    Deadline(TimestampMs),
    Wake,
    /// May wait, and was found short.
    Short {
        execute: Box<Execute>,
        denial: Box<Denial>,
    },
    /// One that waits was asked for again.
    Retried {
        ticket: u64,
        decision: Box<Decision>,
    },
    /// Time to look after those that wait.
    Look,
}

#[derive(Debug)]
pub(crate) struct Execute {
    pub command: Command,
    pub answer: oneshot::Sender<Decision>,
    /// Given back with the answer; not while it waits.
    pub place: Option<Place>,
    /// How long a reservation may wait while only others stand in the way, and anything else for others to share its batch.
    pub wait_until: Option<Instant>,
    /// The order of arrival; given by the actor.
    pub ticket: u64,
}

pub(crate) struct TenantActor<G>(PhantomData<fn() -> G>);

impl<G> Default for TenantActor<G> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

pub(crate) struct Arguments<G> {
    pub tenant: String,
    pub replica: G,
    pub proposer: Proposer,
    pub metrics: std::sync::Arc<Metrics>,
    /// Reservations that may wait at the same time.
    pub waiting_max: usize,
    pub turnstile: std::sync::Arc<Turnstile>,
    /// Called once, when the actor wants to stop; answers whether it may (nothing was sent meanwhile).
    pub retire: Box<dyn Fn() -> bool + Send + Sync>,
}

pub(crate) struct State<G> {
    pub(crate) arguments: Arguments<G>,
    pub(crate) waiting: Waiting,
    alarm: Option<(TimestampMs, JoinHandle<()>)>,
}

impl<G: Group> Actor for TenantActor<G> {
    type Msg = Message;
    type State = State<G>;
    type Arguments = Arguments<G>;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments<G>,
    ) -> Result<State<G>, ActorProcessingErr> {
        arguments.metrics.tenants_active.inc();
        let deadline = arguments.replica.read(|ledger, _| ledger.next_deadline(&arguments.tenant));
        let mut state = State { arguments, waiting: Waiting::default(), alarm: None };
        state.set_alarm(&myself, deadline);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State<G>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Execute(execute) => state.execute(&myself, *execute),
            Message::Deadline(deadline) => {
                if state.alarm.as_ref().is_none_or(|(at, _)| deadline < *at) {
                    state.set_alarm(&myself, Some(deadline));
                }
            }
            Message::Wake => {
                state.wake(&myself);
                state.look_soon(&myself);
            }
            Message::Short { execute, denial } => state.wait_or_deny(&myself, *execute, *denial),
            Message::Retried { ticket, decision } => state.retried(&myself, ticket, *decision),
            Message::Look => state.look(&myself),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Message>,
        state: &mut State<G>,
    ) -> Result<(), ActorProcessingErr> {
        state.arguments.metrics.tenants_active.dec();
        state.waiting.stop();
        if let Some((_, alarm)) = state.alarm.take() {
            alarm.abort();
        }
        Ok(())
    }
}

impl<G: Group> State<G> {
    fn execute(&mut self, myself: &ActorRef<Message>, mut execute: Execute) {
        execute.ticket = self.waiting.ticket();
        let Some(execute) = self.pass_the_queue(myself, execute) else { return };
        if let Some(denial) = self.certain_denial(&execute.command) {
            return self.wait_or_deny(myself, execute, denial);
        }
        if execute.wait_until.is_some() && matches!(execute.command, Command::Reserve { .. }) {
            return self.propose_waiting(myself, execute);
        }
        let Execute { command, answer, place, wait_until, .. } = execute;
        // Somebody may be waiting for just what this gives back.
        let due = wait_until.filter(|_| self.waiting.is_empty()).unwrap_or_else(Instant::now);
        // Decided or not, the asker is told by the proposer: nothing comes back through this mailbox.
        let place = place.map(|place| place.propose(myself.clone()));
        self.arguments.proposer.submit_by(due, command, Asker { answer, place });
    }

    /// A denial that needs no log entry: nothing of the tenant is in flight that could change it, and no other node can
    /// lead. It changes nothing, so it may be answered from what is applied.
    fn certain_denial(&self, command: &Command) -> Option<Denial> {
        if self.arguments.turnstile.has_undecided()
            || !matches!(command, Command::Reserve { .. })
            || !self.arguments.replica.has_lease()
        {
            return None;
        }
        let time = self.arguments.replica.now();
        let denial = self.arguments.replica.read(|ledger, _| ledger.would_deny(time, command))?;
        self.arguments.metrics.denials_from_state.inc();
        Some(denial)
    }

    /// Expires what is due, then sleeps until the next deadline, or retires.
    fn wake(&mut self, myself: &ActorRef<Message>) {
        self.arguments.turnstile.looks_at(END_OF_TIME);
        let (tenant, time) = (&self.arguments.tenant, self.arguments.replica.now());
        let (due, next) = self
            .arguments
            .replica
            .read(|ledger, _| (ledger.due(tenant, time, EXPIRE_MAX), ledger.next_deadline(tenant)));
        if due.is_empty() {
            if next.is_none() && self.waiting.is_empty() && (self.arguments.retire)() {
                myself.stop(None);
                return;
            }
            self.set_alarm(myself, next);
            return;
        }
        let command = Command::Expire { tenant: tenant.clone(), ids: due };
        let (proposer, myself) = (self.arguments.proposer.clone(), myself.clone());
        let alarm = tokio::spawn(async move {
            if let Err(error) = proposer.propose(command).await {
                tracing::debug!(%error, "expiry was not decided; the next leader will see to it");
            }
            tokio::time::sleep(EXPIRE_AGAIN).await;
            let _ = myself.cast(Message::Wake);
        });
        self.looks_at(TimestampMs(0), alarm);
    }

    fn set_alarm(&mut self, myself: &ActorRef<Message>, deadline: Option<TimestampMs>) {
        let time = self.arguments.replica.now();
        let sleep = deadline.map_or(IDLE, |deadline| Duration::from_millis(deadline.since(time) + 1));
        let myself = myself.clone();
        let alarm = tokio::spawn(async move {
            tokio::time::sleep(sleep).await;
            let _ = myself.cast(Message::Wake);
        });
        self.looks_at(deadline.unwrap_or(END_OF_TIME), alarm);
    }

    /// In place of the one that was set, whichever woke: there is only ever one.
    fn looks_at(&mut self, at: TimestampMs, alarm: JoinHandle<()>) {
        if let Some((_, old)) = self.alarm.replace((at, alarm)) {
            old.abort();
        }
        self.arguments.turnstile.looks_at(at);
    }
}
