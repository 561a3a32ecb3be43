//! One caller: sends an operation again under the same id, to one node after another, until it has an answer or its time
//! is up, as `quorate_rpc::Client` does. What it asks for is in `workload`.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_ledger::{Command, Outcome, ReservationId};
use quorate_rpc::budget::result::Kind;
use quorate_rpc::budget::{Result as WireResult, UnavailableReason};
use quorate_rpc::convert;
use tokio::time::{Duration, Instant};

use super::cluster::{Cluster, Reply, Request};
use super::history::{Operation, Told};
use super::rng::Rng;
use crate::error::Undecided;

const ATTEMPT: Duration = Duration::from_millis(2_500);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Client {
    pub number: usize,
    pub cluster: Cluster,
    pub rng: Rng,
    pub history: Arc<Mutex<Vec<Operation>>>,
    pub ids: Arc<Mutex<u64>>,
    leader: Option<usize>,
}

impl Client {
    pub fn new(number: usize, cluster: &Cluster, rng: Rng, history: &Arc<Mutex<Vec<Operation>>>) -> Self {
        Self {
            number,
            cluster: cluster.clone(),
            rng,
            history: history.clone(),
            ids: Arc::default(),
            leader: None,
        }
    }

    /// The same caller in a second task.
    pub fn twin(&mut self) -> Self {
        Self {
            number: self.number,
            cluster: self.cluster.clone(),
            rng: self.rng.fork(),
            history: self.history.clone(),
            ids: self.ids.clone(),
            leader: None,
        }
    }

    /// By the ledger's time as a watch tells it; sometimes by a clock that is wrong.
    pub fn new_id(&mut self) -> ReservationId {
        let ms = self.cluster.raft.world().ledger_time().0;
        let ms = match self.rng.below(40) {
            0 => ms - 70_000,
            1 => ms + 15_000,
            2..6 => ms + self.rng.between(0, 3_000),
            _ => ms,
        };
        self.id_at(ms)
    }

    /// By a right clock.
    pub fn new_id_now(&mut self) -> ReservationId {
        let ms = self.cluster.raft.world().ledger_time().0;
        self.id_at(ms)
    }

    fn id_at(&self, ms: u64) -> ReservationId {
        let mut ids = self.ids.lock();
        *ids += 1;
        let number = ((self.number as u128) << 32) | u128::from(*ids);
        ReservationId::from_u128((u128::from(ms) << 80) | (7 << 76) | (0b10 << 62) | number)
            .expect("version and variant are there")
    }

    /// `None`: nobody knows.
    pub async fn execute(&mut self, command: Command, wait: Duration, timeout: Duration) -> Option<Outcome> {
        let (started, invoked_ms, invoked_index) = {
            let mut world = self.cluster.raft.world();
            let number = self.number;
            world.note(|| format!("client {number} asks for {command:?}, waits {wait:?} of {timeout:?}"));
            (Instant::now(), world.elapsed_ms(), world.acknowledged)
        };
        let asked = self.request(&command, Duration::ZERO, timeout);
        let command = match asked {
            Request::Operation(operation) => Command::try_from(operation).ok()?,
            Request::Change(command) => command,
        };
        let (told, by) = self.until_answered(&command, wait, started, timeout).await;
        let mut world = self.cluster.raft.world();
        let number = self.number;
        world.note(|| format!("client {number} is told by node {}: {told:?}", by + 1));
        let (told_ms, told_index) = (world.elapsed_ms(), world.log.len());
        drop(world);
        let operation = Operation { command, invoked_ms, invoked_index, told, told_ms, told_index, by };
        let outcome = operation.outcome().cloned();
        self.history.lock().push(operation);
        outcome
    }

    fn request(&self, command: &Command, wait: Duration, timeout: Duration) -> Request {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        match convert::operation(command, ms(timeout)) {
            Some(mut operation) => {
                operation.wait_ms = ms(wait);
                Request::Operation(operation)
            }
            None => Request::Change(command.clone()),
        }
    }

    async fn until_answered(
        &mut self,
        command: &Command,
        wait: Duration,
        started: Instant,
        timeout: Duration,
    ) -> (Told, usize) {
        let deadline = started + timeout;
        let mut backoff = Duration::from_millis(10);
        let size = self.cluster.raft.world().nodes.len();
        loop {
            let left = wait.saturating_sub(started.elapsed());
            let node = self.leader.unwrap_or_else(|| self.rng.below(size));
            let budget = timeout.min(Duration::from_secs(5) + left);
            let request = self.request(command, left, budget);
            let mut replies = self.cluster.send(node, request, true);
            let until = deadline.min(Instant::now() + ATTEMPT + left);
            let mut pause = backoff;
            match tokio::time::timeout_at(until, replies.recv()).await {
                Ok(Some((Reply::Operation(result), by))) => match self.told(result, node) {
                    Ok(told) => return (told, by),
                    Err(retry_after) => pause = pause.max(retry_after),
                },
                Ok(Some((Reply::Change(Ok(decided)), by))) => {
                    let (term, index) = (decided.term, decided.index);
                    return (Told::Change { outcome: decided.outcome, term, index }, by);
                }
                Ok(Some((Reply::Change(Err(undecided)), _))) => {
                    self.leader = match undecided {
                        Undecided::NotLeader(Some(leader)) => Some(leader.id as usize - 1),
                        Undecided::Overloaded(_) => Some(node),
                        _ => None,
                    };
                }
                // The connection was refused, or nobody answered.
                Ok(None) | Err(_) => self.leader = None,
            }
            let wake = Instant::now() + pause;
            if wake >= deadline {
                return (Told::Nothing, node);
            }
            tokio::time::sleep_until(wake).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// `Err`: to be asked again, after so long.
    fn told(&mut self, result: WireResult, node: usize) -> Result<Told, Duration> {
        match result.kind.clone() {
            Some(Kind::Unavailable(unavailable)) => {
                let leaderless = matches!(
                    unavailable.reason(),
                    UnavailableReason::NoLeader | UnavailableReason::ShuttingDown
                );
                if leaderless {
                    let address = unavailable.leader_address.strip_prefix("node-");
                    self.leader =
                        address.and_then(|number| number.parse::<usize>().ok()).map(|number| number - 1);
                }
                Err(Duration::from_millis(unavailable.retry_after_ms))
            }
            Some(kind) => {
                self.leader = Some(node);
                match convert::outcome(kind) {
                    Ok(outcome) => Ok(Told::Operation { outcome, result }),
                    Err(error) => {
                        self.cluster.raft.world().fail(format!("an answer that is none: {error}"));
                        Err(Duration::ZERO)
                    }
                }
            }
            None => Err(Duration::ZERO),
        }
    }
}
