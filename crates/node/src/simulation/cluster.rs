//! The nodes' processes: on each the real proposer, tenants, actors and decisions, over the simulated group. And the network
//! between them and the clients, which delays, loses, repeats and reorders.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_ledger::Command;
use quorate_replica::Role;
use quorate_rpc::budget::result::Kind;
use quorate_rpc::budget::{Operation, Result as WireResult, UnavailableReason};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Duration, Instant};

use super::group::SimulatedGroup;
use super::raft::Raft;
use super::rng::Rng;
use crate::config::Limits;
use crate::decisions::Decisions;
use crate::error::Undecided;
use crate::group::Group as _;
use crate::metrics::Metrics;
use crate::proposer::{Decision, Proposer};
use crate::tenants::Tenants;

const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// What scheduling may add to a deadline.
const SLACK: Duration = Duration::from_millis(5);
const HANGS: Duration = Duration::from_millis(400);

/// How bad the network between clients and nodes is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub delay_ms: (u64, u64),
    pub lost_percent: u64,
    pub repeated_percent: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    Operation(Operation),
    /// What comes through the admin service.
    Change(Command),
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    Operation(WireResult),
    Change(Decision),
}

#[derive(Debug)]
struct Process {
    group: SimulatedGroup,
    decisions: Decisions<SimulatedGroup>,
    metrics: Arc<Metrics>,
    follows: JoinHandle<()>,
    serving: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub raft: Raft,
    limits: Limits,
    processes: Arc<Mutex<Vec<Option<Arc<Process>>>>>,
    weather: Arc<Mutex<(Weather, Rng)>>,
}

impl Cluster {
    pub fn start(raft: Raft, limits: Limits, rng: Rng) -> Self {
        let size = raft.world().nodes.len();
        let weather = Arc::new(Mutex::new((Weather::default(), rng)));
        let processes = Arc::new(Mutex::new(vec![None; size]));
        let cluster = Self { raft, limits, processes, weather };
        (0..size).for_each(|node| cluster.run(node));
        cluster
    }

    pub fn set_weather(&self, weather: Weather) {
        self.weather.lock().0 = weather;
    }

    fn run(&self, node: usize) {
        let group = SimulatedGroup::of(&self.raft, node);
        let metrics = Arc::new(Metrics::new());
        let proposer = Proposer::start(group.clone(), &self.limits, metrics.clone());
        let tenants = Tenants::new(group.clone(), proposer, metrics.clone(), &self.limits);
        let follows = tokio::spawn(tenants.clone().follow_leadership());
        let default_timeout = Duration::from_millis(self.limits.operation_timeout_ms);
        let decisions = Decisions { tenants, metrics: metrics.clone(), default_timeout };
        let process = Process { group, decisions, metrics, follows, serving: Mutex::default() };
        self.processes.lock()[node] = Some(Arc::new(process));
    }

    pub fn crash(&self, node: usize) {
        let Some(process) = self.processes.lock()[node].take() else { return };
        self.tally(&process);
        self.raft.crash(node);
        process.follows.abort();
        process.serving.lock().drain(..).for_each(|task| task.abort());
        process.decisions.tenants.stop_all();
    }

    pub fn restart(&self, node: usize) {
        if self.processes.lock()[node].is_none() {
            self.raft.restart(node);
            self.run(node);
        }
    }

    /// What a process has counted by its end.
    fn tally(&self, process: &Process) {
        let mut world = self.raft.world();
        for (what, count) in [
            ("denied from state", process.metrics.denials_from_state.get()),
            ("granted after a wait", process.metrics.granted_after_wait.get()),
        ] {
            *world.seen.entry(what).or_default() += count;
        }
    }

    pub fn tally_all(&self) {
        let processes: Vec<_> = self.processes.lock().iter().flatten().cloned().collect();
        processes.iter().for_each(|process| self.tally(process));
    }

    /// How many wait in queues, on all nodes that run.
    pub fn waiting(&self) -> i64 {
        let processes = self.processes.lock();
        processes.iter().flatten().map(|process| process.metrics.waiting.get()).sum()
    }

    /// Replies come with the node that gave them: none if something is lost, two if something is repeated.
    pub fn send(
        &self,
        node: usize,
        request: Request,
        may_forward: bool,
    ) -> mpsc::UnboundedReceiver<(Reply, usize)> {
        let (reply, replies) = mpsc::unbounded_channel();
        let copies = {
            let (weather, rng) = &mut *self.weather.lock();
            if rng.percent(weather.lost_percent) {
                0
            } else {
                1 + usize::from(rng.percent(weather.repeated_percent))
            }
        };
        for _ in 0..copies {
            let (cluster, request, reply) = (self.clone(), request.clone(), reply.clone());
            tokio::spawn(async move { cluster.deliver(node, request, may_forward, reply).await });
        }
        if copies == 0 {
            // To lose a message is not to say so.
            tokio::spawn(async move { reply.closed().await });
        }
        replies
    }

    async fn deliver(
        self,
        node: usize,
        request: Request,
        may_forward: bool,
        reply: mpsc::UnboundedSender<(Reply, usize)>,
    ) {
        self.travel().await;
        let Some(process) = self.processes.lock()[node].clone() else { return };
        let serving = tokio::spawn(self.clone().serve(node, process.clone(), request, may_forward));
        process.serving.lock().push(serving.abort_handle());
        // A process that crashed answers nobody.
        let Ok(answer) = serving.await else { return reply.closed().await };
        let lost = {
            let (weather, rng) = &mut *self.weather.lock();
            rng.percent(weather.lost_percent)
        };
        if lost {
            return reply.closed().await;
        }
        self.travel().await;
        let _ = reply.send(answer);
    }

    async fn travel(&self) {
        let delay = {
            let (weather, rng) = &mut *self.weather.lock();
            rng.delay(weather.delay_ms.0, weather.delay_ms.1)
        };
        tokio::time::sleep(delay).await;
    }

    /// No call may run into its deadline while nothing is under way that could answer it.
    fn hangs(&self, node: usize, result: &WireResult) {
        let Some(Kind::Unavailable(unavailable)) = &result.kind else { return };
        let mut world = self.raft.world();
        match unavailable.reason() {
            UnavailableReason::Timeout => {
                world.saw("timed out at a node");
                let this = &world.nodes[node];
                if this.answers.is_empty() && this.idle_since.elapsed() > HANGS {
                    world.fail(format!("node {} lets a call hang: {unavailable:?}", node + 1));
                }
            }
            UnavailableReason::Overloaded => world.saw("overloaded"),
            _ => {}
        }
    }

    /// As the services do: the leader decides, others pass it on, once.
    async fn serve(
        self,
        node: usize,
        process: Arc<Process>,
        request: Request,
        may_forward: bool,
    ) -> (Reply, usize) {
        let (leads, leader) = {
            let status = process.group.status();
            let status = status.borrow();
            (status.role == Role::Leader, status.leader.clone())
        };
        match request {
            Request::Operation(operation) => {
                let patience = process.decisions.patience(&operation);
                if leads {
                    let began = Instant::now();
                    let result = process.decisions.decide(operation, patience).await;
                    if began.elapsed() > patience.timeout + SLACK {
                        let (took, had) = (began.elapsed(), patience.timeout);
                        self.raft.world().fail(format!("node {} took {took:?}, of {had:?}", node + 1));
                    }
                    self.hangs(node, &result);
                    return (Reply::Operation(result), node);
                }
                let elsewhere = leader.as_ref().map(|leader| leader.id as usize - 1);
                let Some(to) = elsewhere.filter(|to| may_forward && *to != node) else {
                    return (Reply::Operation(Undecided::NotLeader(leader).into()), node);
                };
                let mut replies = self.send(to, Request::Operation(operation), false);
                let ms = u64::try_from(patience.timeout.as_millis()).unwrap_or(u64::MAX);
                match tokio::time::timeout(patience.timeout, replies.recv()).await {
                    Ok(Some(reply)) => reply,
                    Ok(None) => (Reply::Operation(Undecided::NotLeader(leader).into()), node),
                    Err(_) => (Reply::Operation(Undecided::TimedOut(ms).into()), node),
                }
            }
            Request::Change(command) if leads => {
                (Reply::Change(process.decisions.tenants.execute(command, CHANGE_TIMEOUT).await), node)
            }
            Request::Change(_) => (Reply::Change(Err(Undecided::NotLeader(leader))), node),
        }
    }
}
