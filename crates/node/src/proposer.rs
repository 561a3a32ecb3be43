//! Collects operations into batches: a bounded queue, a bounded batch, a bounded number of batches in flight. Here
//! back-pressure starts. An operation that is in no hurry makes no batch of its own while others may come.

use std::sync::Arc;

use futures_util::poll;
use quorate_ledger::{Command, Outcome};
use quorate_replica::{BATCH_MAX_BYTES, size_bound};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

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
    due: Instant,
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
        self.submit_by(Instant::now(), command, asker);
    }

    /// The same for one that may wait until `due` for others to share its batch.
    pub fn submit_by(&self, due: Instant, command: Command, asker: Asker) {
        let (pending, undecided) = match self.queue.try_send(Pending { command, due, asker }) {
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
    async fn run(self, mut queue: mpsc::Receiver<Pending>) {
        let mut batch = Gathering::new(self.operations_max);
        loop {
            // The permit first: while all batches are in flight, the next one grows.
            let Ok(permit) = self.in_flight.clone().acquire_owned().await else { return };
            batch.gather(&mut queue).await;
            if batch.operations.is_empty() {
                return;
            }
            let (replica, metrics, operations) = (self.replica.clone(), self.metrics.clone(), batch.take());
            let mut deciding = Box::pin(async move { decide(&replica, &metrics, operations).await });
            // On its way to the log before the next one: tasks begin in any order.
            if poll!(&mut deciding).is_pending() {
                tokio::spawn(async move {
                    deciding.await;
                    drop(permit);
                });
            }
        }
    }
}

/// The next batch. It goes as soon as one of its operations is due, or it is full.
struct Gathering {
    operations_max: usize,
    operations: Vec<Pending>,
    bytes: usize,
    /// The first of them.
    due: Option<Instant>,
    /// Did not fit: it begins the batch behind.
    left_over: Option<Pending>,
}

impl Gathering {
    fn new(operations_max: usize) -> Self {
        Self { operations_max, operations: Vec::new(), bytes: 0, due: None, left_over: None }
    }

    /// Returns when the batch is to go, with nothing in it if the queue is closed.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Pending>) {
        while !self.is_full() {
            let next = match self.due {
                None => queue.recv().await,
                Some(due) if due <= Instant::now() => queue.try_recv().ok(),
                Some(due) => timeout_at(due, queue.recv()).await.unwrap_or(None),
            };
            let Some(next) = next else { return };
            self.push(next);
        }
    }

    fn is_full(&self) -> bool {
        self.left_over.is_some() || self.operations.len() >= self.operations_max
    }

    fn push(&mut self, next: Pending) {
        let size = size_bound(&next.command);
        if !self.operations.is_empty() && self.bytes + size > BATCH_MAX_BYTES {
            self.left_over = Some(next);
            return;
        }
        self.bytes += size;
        self.due = Some(self.due.map_or(next.due, |due| due.min(next.due)));
        self.operations.push(next);
    }

    fn take(&mut self) -> Vec<Pending> {
        (self.bytes, self.due) = (0, None);
        let batch = std::mem::take(&mut self.operations);
        if let Some(first) = self.left_over.take() {
            self.push(first);
        }
        batch
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quorate_ledger::{Ledger, TimestampMs};
    use quorate_replica::{Applied, ProposeError, ReadPoint, ReplicaError, Status};
    use tokio::sync::watch;

    use super::*;

    /// Notes what is proposed, in the order in which it arrives, and decides nothing.
    #[derive(Debug, Clone, Default)]
    struct Log(Arc<Mutex<Vec<Command>>>);

    impl Group for Log {
        async fn propose(&self, commands: Vec<Command>) -> Result<Applied, ProposeError> {
            self.0.lock().expect("no test panics with it").extend(commands);
            Err(ProposeError::NotLeader { leader: None })
        }

        fn read<T>(&self, _: impl FnOnce(&Ledger, ReadPoint) -> T) -> T {
            unreachable!("a proposer only proposes")
        }

        async fn linearize(&self) -> Result<(), ReplicaError> {
            unreachable!("a proposer only proposes")
        }

        fn has_lease(&self) -> bool {
            unreachable!("a proposer only proposes")
        }

        fn status(&self) -> watch::Receiver<Status> {
            unreachable!("a proposer only proposes")
        }

        fn now(&self) -> TimestampMs {
            unreachable!("a proposer only proposes")
        }
    }

    /// With one worker thread the task that was spawned last begins first.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn batches_reach_the_log_in_the_order_of_their_operations() {
        let limits = Limits { batch_operations: 1, ..Limits::default() };
        let (log, metrics) = (Log::default(), Arc::new(Metrics::new()));
        let proposer = Proposer::start(log.clone(), &limits, metrics);
        let commands: Vec<_> = (0..16)
            .map(|number| Command::Expire { tenant: format!("tenant-{number}"), ids: Vec::new() })
            .collect();

        let decisions: Vec<_> = commands
            .iter()
            .map(|command| {
                let (answer, decision) = oneshot::channel();
                proposer.submit(command.clone(), Asker { answer, place: None });
                decision
            })
            .collect();
        for decision in decisions {
            decision.await.expect("all are answered").expect_err("this log decides nothing");
        }

        assert_eq!(*log.0.lock().expect("no test panics with it"), commands);
    }
}
