//! Collects operations into batches: a bounded queue, a bounded batch, a bounded number of batches in flight. Here
//! back-pressure starts.

use std::sync::Arc;
use std::time::Instant;

use quorate_ledger::{Command, Outcome};
use quorate_replica::{BATCH_MAX_BYTES, size_bound};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::Limits;
use crate::error::Undecided;
use crate::group::Group;
use crate::metrics::Metrics;
use crate::turnstile::Proposed;

/// A decision, and where it stands in the log.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub outcome: Outcome,
    pub term: u64,
    pub index: u64,
}

pub(crate) type Decision = Result<Decided, Undecided>;

/// Who waits for a decision.
#[derive(Debug)]
pub(crate) struct Asker {
    pub answer: oneshot::Sender<Decision>,
    /// The place at a tenant's turnstile that the operation holds meanwhile.
    pub place: Option<Proposed>,
}

impl Asker {
    fn tell(self, decision: Decision) {
        // First: who has the answer may ask for more at once.
        if let Some(place) = self.place {
            place.decided(&decision);
        }
        // A caller that went away will ask again under the same id.
        let _ = self.answer.send(decision);
    }
}

#[derive(Debug)]
struct Pending {
    command: Command,
    asker: Asker,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Pending>,
}

impl Proposer {
    /// Ends when the last clone is dropped and everything queued is decided.
    pub fn start(replica: impl Group, limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let (queue, pending) = mpsc::channel(limits.proposer_queue);
        let worker = Worker {
            replica,
            metrics,
            in_flight: Arc::new(Semaphore::new(limits.batches_in_flight)),
            operations_max: limits.batch_operations,
        };
        tokio::spawn(worker.run(pending));
        Self { queue }
    }

    /// Queues a command, whose asker gets the decision; at once, if the queue is full.
    pub fn submit(&self, command: Command, asker: Asker) {
        let (pending, undecided) = match self.queue.try_send(Pending { command, asker }) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(pending)) => {
                (pending, Undecided::Overloaded("the proposer's queue is full"))
            }
            Err(mpsc::error::TrySendError::Closed(pending)) => (pending, Undecided::stopping()),
        };
        pending.asker.tell(Err(undecided));
    }

    pub async fn propose(&self, command: Command) -> Decision {
        let (answer, decided) = oneshot::channel();
        self.submit(command, Asker { answer, place: None });
        decided.await.unwrap_or_else(|_| Err(Undecided::stopping()))
    }
}

struct Worker<G> {
    replica: G,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
    operations_max: usize,
}

impl<G: Group> Worker<G> {
    async fn run(self, mut pending: mpsc::Receiver<Pending>) {
        let mut left_over = None;
        loop {
            // The permit first: while all batches are in flight, the next one grows.
            let Ok(permit) = self.in_flight.clone().acquire_owned().await else { return };
            let first = match left_over.take() {
                Some(first) => first,
                None => match pending.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut bytes = size_bound(&first.command);
            let mut batch = vec![first];
            while batch.len() < self.operations_max {
                let Ok(next) = pending.try_recv() else { break };
                let size = size_bound(&next.command);
                if bytes + size > BATCH_MAX_BYTES {
                    left_over = Some(next);
                    break;
                }
                bytes += size;
                batch.push(next);
            }
            let (replica, metrics) = (self.replica.clone(), self.metrics.clone());
            tokio::spawn(async move {
                decide(&replica, &metrics, batch).await;
                drop(permit);
            });
        }
    }
}

async fn decide(replica: &impl Group, metrics: &Metrics, batch: Vec<Pending>) {
    let started = Instant::now();
    let (commands, askers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|pending| (pending.command, pending.asker)).unzip();
    let operations = commands.len();
    let applied = replica.propose(commands).await;
    metrics.batch_operations.observe(operations as f64);
    metrics.propose_seconds.observe(started.elapsed().as_secs_f64());
    match applied {
        Ok(applied) => {
            for (asker, outcome) in askers.into_iter().zip(applied.outcomes) {
                asker.tell(Ok(Decided { outcome, term: applied.term, index: applied.index }));
            }
        }
        Err(error) => {
            let undecided = Undecided::from(error);
            for asker in askers {
                asker.tell(Err(undecided.clone()));
            }
        }
    }
}
