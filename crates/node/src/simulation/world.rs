//! What is true in a run, whatever a node believes: the log that was committed, the ledger that follows from it, who
//! really leads, which nodes live and are connected. Changes of it are in `raft`.

use std::collections::{BTreeMap, VecDeque};

use quorate_ledger::{Command, Ledger, Outcome, Refusal, TimestampMs, invariant};
use quorate_replica::{Applied, Member, Peer, ProposeError, Role, Status};
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant};

use super::naive::Naive;
use super::rng::Rng;

/// A leader whose quorum was silent for longer may have been replaced, a moment later. The real one gives up its lease
/// much earlier; here it holds as long as the promise allows.
pub(super) const LEASE: Duration = Duration::from_millis(790);
pub(super) const ELECTION_MIN: Duration = Duration::from_millis(800);
pub(super) const LOST_QUORUM: Duration = Duration::from_millis(3_200);
/// A boundary of minutes.
const MINUTE_MS: u64 = 1_790_000_040_000;

/// What a quorum has on disk. Its index is its place plus one.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: u64,
    pub term: u64,
    pub at: TimestampMs,
    pub commands: Vec<Command>,
    pub outcomes: Vec<Outcome>,
}

/// On its way to a quorum.
#[derive(Debug)]
pub(super) struct Underway {
    pub id: u64,
    pub term: u64,
    pub at: TimestampMs,
    pub commands: Vec<Command>,
    /// Left the leader: others may have it.
    pub sent: bool,
    /// A quorum has had the time to write it.
    pub due: bool,
}

pub(super) type Answer = oneshot::Sender<Result<Applied, ProposeError>>;

#[derive(Debug)]
pub(super) struct Node {
    pub up: bool,
    pub linked: bool,
    pub incarnation: u64,
    pub skew_ms: i64,
    /// What it believes.
    pub role: Role,
    pub term: u64,
    pub leader: Option<usize>,
    pub status: watch::Sender<Status>,
    pub ledger: Ledger,
    pub applied: usize,
    pub snapshot: (Ledger, usize),
    pub snapshot_every: usize,
    pub answers: BTreeMap<u64, Answer>,
    /// Since when nothing of it has been under way.
    pub idle_since: Instant,
    pub last_ack: Instant,
    pub handing_over: Option<u64>,
    /// A task will apply what is committed.
    pub apply_planned: bool,
    /// When it looked at its clock, and what it saw.
    pub clock_reads: Vec<(u64, TimestampMs)>,
}

#[derive(Debug)]
pub(super) struct World {
    pub rng: Rng,
    pub began: Instant,
    /// The right time then: a minute ends while there is trouble.
    pub begin_ms: u64,
    pub nodes: Vec<Node>,
    pub log: Vec<Entry>,
    pub underway: VecDeque<Underway>,
    pub term: u64,
    /// Who really leads.
    pub leader: Option<usize>,
    pub leaderless_since: Instant,
    pub entries_made: u64,
    /// The highest index that was answered for.
    pub acknowledged: usize,
    /// After each index; the first one is empty.
    pub states: Vec<Ledger>,
    naive: Naive,
    digests: BTreeMap<usize, u64>,
    pub failures: Vec<String>,
    /// What happened how often: shows that a run reaches what it is for.
    pub seen: BTreeMap<&'static str, u64>,
    pub trace: Option<Vec<String>>,
    /// Milliseconds a write takes at most: usually, rarely.
    pub write_ms: (u64, u64),
}

impl World {
    pub fn new(seed: u64, size: usize, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let began = Instant::now();
        let nodes = (0..size)
            .map(|_| Node {
                up: true,
                linked: true,
                incarnation: 0,
                skew_ms: i64::try_from(rng.between(0, 2_000)).unwrap_or(0) - 1_000,
                role: Role::Follower,
                term: 0,
                leader: None,
                status: watch::Sender::new(status(Role::Follower, None, 0, 0)),
                ledger: Ledger::default(),
                applied: 0,
                snapshot: (Ledger::default(), 0),
                snapshot_every: rng.below(40) + 5,
                answers: BTreeMap::new(),
                idle_since: began,
                last_ack: began,
                handing_over: None,
                apply_planned: false,
                clock_reads: Vec::new(),
            })
            .collect();
        let begin_ms = MINUTE_MS - rng.between(1_000, 25_000);
        let write_ms = (rng.between(2, 30), rng.between(30, 900));
        Self {
            rng,
            began,
            begin_ms,
            nodes,
            log: Vec::new(),
            underway: VecDeque::new(),
            term: 0,
            leader: None,
            leaderless_since: began,
            entries_made: 0,
            acknowledged: 0,
            states: vec![Ledger::default()],
            naive: Naive::default(),
            digests: BTreeMap::new(),
            failures: Vec::new(),
            seen: BTreeMap::new(),
            trace: traced.then(Vec::new),
            write_ms,
        }
    }

    /// Since the run began.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.elapsed_ms();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>7} {}", line()));
        }
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub fn fail(&mut self, what: String) {
        self.note(|| format!("FAILURE {what}"));
        // The first ones say most.
        if self.failures.len() < 5 {
            self.failures.push(format!("{} ms: {what}", self.elapsed_ms()));
        }
    }

    /// As a watch of the leader shows it.
    pub fn ledger_time(&self) -> TimestampMs {
        let shown = self.leader.map_or(TimestampMs(0), |leader| self.clock(leader));
        self.truth().time().max(shown)
    }

    pub fn true_time(&self) -> TimestampMs {
        TimestampMs(self.begin_ms + self.elapsed_ms())
    }

    pub fn clock(&self, node: usize) -> TimestampMs {
        TimestampMs(self.true_time().0.saturating_add_signed(self.nodes[node].skew_ms))
    }

    /// What the log says by now.
    pub fn truth(&self) -> &Ledger {
        &self.states[self.log.len()]
    }

    pub fn connected(&self, node: usize) -> bool {
        self.nodes[node].up && self.nodes[node].linked
    }

    pub fn has_quorum(&self) -> bool {
        let connected = (0..self.nodes.len()).filter(|node| self.connected(*node)).count();
        connected > self.nodes.len() / 2
    }

    /// The leader by right, and it can have something committed.
    pub fn can_commit(&self, node: usize) -> bool {
        self.leader == Some(node) && self.connected(node) && self.has_quorum()
    }

    /// For how long a leader, or one that believes to be, has not heard from a quorum.
    pub fn quiet(&self, node: usize) -> Duration {
        match self.can_commit(node) {
            true => Duration::from_millis(5),
            false => self.nodes[node].last_ack.elapsed(),
        }
    }

    pub fn believes_to_lead(&self, node: usize) -> bool {
        self.nodes[node].up && self.nodes[node].role == Role::Leader
    }

    pub fn has_lease(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        let applied_term = this.applied.checked_sub(1).map_or(0, |last| self.log[last].term);
        self.believes_to_lead(node)
            && this.handing_over != Some(this.term)
            && self.quiet(node) < LEASE
            && applied_term == this.term
    }

    pub fn announce(&mut self, node: usize) {
        let size = self.nodes.len();
        let this = &self.nodes[node];
        let next = status(this.role, this.leader, this.term, size);
        self.note(|| format!("node {} is {:?} in term {}", node + 1, next.role, next.term));
        self.nodes[node].status.send_replace(next);
    }

    /// A quorum has it on disk: from now on it is true. The ledger and the model must agree, and every property hold.
    pub fn commit(&mut self, entry: Underway) {
        let Underway { id, term, at, commands, .. } = entry;
        let mut ledger = self.truth().clone();
        let index = self.log.len() + 1;
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in &commands {
            let outcome = ledger.apply(at, command);
            self.note(|| format!("log {index} (term {term}): {command:?} -> {outcome:?}"));
            let modelled = self.modelled(at, command, &outcome);
            if modelled != outcome {
                self.fail(format!("log {index}: {command:?}: {outcome:?}, but the model says {modelled:?}"));
            }
            self.saw(name(&outcome));
            outcomes.push(outcome);
        }
        if !commands.is_empty() {
            let violations = invariant::check(&ledger);
            if !violations.is_empty() {
                self.fail(format!("log {index}: {commands:?}: {violations:?}"));
            }
        }
        self.log.push(Entry { id, term, at, commands, outcomes });
        self.states.push(ledger);
    }

    fn modelled(&mut self, at: TimestampMs, command: &Command, outcome: &Outcome) -> Outcome {
        let gone =
            matches!(outcome, Outcome::Refused(Refusal::StaleId { .. } | Refusal::UnknownReservation { .. }));
        self.naive.facts.now = self.naive.facts.now.max(at.0);
        let may = |(tenant, id)| self.naive.may_be_forgotten(tenant, id);
        let forgotten = gone && record_of(command).is_some_and(may);
        self.naive.apply(at.0, command, forgotten)
    }

    /// One entry more at one node.
    pub fn apply_next(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let entry = &self.log[this.applied];
        let same = entry
            .commands
            .iter()
            .zip(&entry.outcomes)
            .all(|(command, outcome)| this.ledger.apply(entry.at, command) == *outcome);
        this.applied += 1;
        let (index, term, at) = (this.applied, entry.term, entry.at);
        let answer = this.answers.remove(&entry.id);
        if index.is_multiple_of(this.snapshot_every) {
            this.snapshot = (this.ledger.clone(), index);
        }
        if let Some(answer) = answer {
            let outcomes = entry.outcomes.clone();
            self.acknowledged = self.acknowledged.max(index);
            let _ = answer.send(Ok(Applied { term, index: index as u64, at, outcomes }));
            if self.nodes[node].role != Role::Leader {
                self.saw("answered after its leadership");
            }
            self.note_idle(node);
        }
        if !same {
            self.fail(format!("node {} has other outcomes at index {index}", node + 1));
        }
        if index.is_multiple_of(32) {
            self.compare_digest(node);
        }
    }

    pub fn note_idle(&mut self, node: usize) {
        if self.nodes[node].answers.is_empty() {
            self.nodes[node].idle_since = Instant::now();
        }
    }

    /// All that applied so much have the same.
    pub fn compare_digest(&mut self, node: usize) {
        let (index, digest) = (self.nodes[node].applied, self.nodes[node].ledger.digest());
        let expected = *self.digests.entry(index).or_insert_with(|| self.states[index].digest());
        if digest != expected {
            self.fail(format!("node {} has another ledger at index {index}", node + 1));
        }
    }
}

pub(super) fn record_of(command: &Command) -> Option<(&str, quorate_ledger::ReservationId)> {
    match command {
        Command::Reserve { tenant, id, .. }
        | Command::Extend { tenant, id, .. }
        | Command::Settle { tenant, id, .. }
        | Command::Release { tenant, id }
        | Command::AdjustAccount { tenant, id, .. } => Some((tenant, *id)),
        _ => None,
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Granted(_) => "granted",
        Outcome::Denied(denial) if denial.held_by_reservations => "denied, held",
        Outcome::Denied(_) => "denied",
        Outcome::Settled(settlement) if settlement.overdraft.iter().any(|over| !over.is_zero()) => {
            "overdraft"
        }
        Outcome::Settled(_) => "settled",
        Outcome::Released => "released",
        Outcome::Extended { .. } => "extended",
        Outcome::Expired { ids } if ids.is_empty() => "none due",
        Outcome::Expired { .. } => "expired",
        Outcome::Adjusted(_) => "adjusted",
        Outcome::PolicyPut { .. } => "policy put",
        Outcome::Refused(Refusal::IdReused { .. }) => "id reused",
        Outcome::Refused(Refusal::StaleId { .. }) => "stale id",
        Outcome::Refused(Refusal::FutureId { .. }) => "future id",
        Outcome::Refused(Refusal::UnknownReservation { .. }) => "unknown reservation",
        Outcome::Refused(Refusal::AlreadyResolved { .. }) => "already resolved",
        _ => "another outcome",
    }
}

pub(super) fn peer(node: usize) -> Peer {
    Peer { id: node as u64 + 1, address: format!("node-{}", node + 1) }
}

fn status(role: Role, leader: Option<usize>, term: u64, size: usize) -> Status {
    Status {
        role,
        leader: leader.map(peer),
        term,
        last_log_index: 0,
        applied_index: 0,
        snapshot_index: 0,
        members: (0..size).map(|node| Member { peer: peer(node), voter: true }).collect(),
        fatal: None,
    }
}
