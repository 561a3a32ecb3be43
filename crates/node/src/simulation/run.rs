//! One run of one seed, from an empty cluster through the trouble to the quiet after it, with all checks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use quorate_ledger::{Amount, Command, Outcome};
use quorate_rpc::budget::{Result as WireResult, result::Kind};
use quorate_rpc::convert;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::check;
use super::client::Client;
use super::cluster::{Cluster, Reply, Request};
use super::faults::{heal, trouble};
use super::history::Operation;
use super::plan::{Plan, policy, tenant};
use super::raft::Raft;
use super::rng::Rng;
use super::workload::{PATIENCE, gateway, operator, whole};
use super::world::World;

/// Every reservation is over by then, every window has rolled over, and every clock has caught up.
const QUIET: Duration = Duration::from_secs(130);
/// Where only others stood in the way, and they are gone.
const SOON: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Report {
    pub failures: Vec<String>,
    pub trace: Vec<String>,
    pub operations: usize,
    pub entries: usize,
    pub terms: u64,
    pub unknown: usize,
    pub seen: BTreeMap<&'static str, u64>,
}

thread_local! {
    /// A panic in a task is nobody's result.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

/// On this thread, in simulated time.
pub(super) fn run(seed: u64, traced: bool) -> Report {
    note_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO");
    let mut report = runtime.block_on(scenario(seed, traced));
    drop(runtime);
    report.failures.extend(PANICS.with_borrow_mut(std::mem::take));
    report
}

async fn scenario(seed: u64, traced: bool) -> Report {
    let mut rng = Rng::new(seed);
    let plan = Plan::of(&mut rng);
    let raft = Raft::new(World::new(rng.next(), plan.nodes, traced));
    raft.world().note(|| format!("{plan:?}"));
    tokio::spawn(raft.clone().keep_a_leader());
    let cluster = Cluster::start(raft.clone(), plan.limits.clone(), rng.fork());
    let history = Arc::new(Mutex::new(Vec::new()));
    let mut first = Client::new(0, &cluster, rng.fork(), &history);
    first.execute(policy(&mut rng), Duration::ZERO, PATIENCE).await;
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let mut callers: Vec<JoinHandle<()>> = (1..=plan.clients)
        .map(|number| {
            let client = Client::new(number, &cluster, rng.fork(), &history);
            tokio::spawn(gateway(client, plan.clone(), until))
        })
        .collect();
    let operating = Client::new(plan.clients + 1, &cluster, rng.fork(), &history);
    callers.push(tokio::spawn(operator(operating, plan.clone(), until)));
    trouble(cluster.clone(), rng.fork(), until).await;
    raft.world().note(|| "the trouble is over".to_owned());
    heal(&cluster);
    let all = async {
        for caller in callers {
            let _ = caller.await;
        }
    };
    if tokio::time::timeout(4 * PATIENCE, all).await.is_err() {
        raft.world().fail("a client waits for ever".to_owned());
    }
    tokio::time::sleep(QUIET / 2).await;
    // What was still planned when the trouble ended.
    heal(&cluster);
    tokio::time::sleep(QUIET / 2).await;
    drained(&cluster, &plan);
    let asker = Client::new(plan.clients + 2, &cluster, rng.fork(), &history);
    probe(&cluster, asker, &plan).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    finish(&cluster, &history.lock())
}

/// Nothing is left of the trouble.
fn drained(cluster: &Cluster, plan: &Plan) {
    let mut world = cluster.raft.world();
    let open: Vec<_> = (0..plan.tenants)
        .flat_map(|number| world.truth().reservations(&tenant(number)).collect::<Vec<_>>())
        .collect();
    if !open.is_empty() {
        world.fail(format!("{} reservations never ended: {open:?}", open.len()));
    }
    drop(world);
    let waiting = cluster.waiting();
    if waiting != 0 {
        cluster.raft.world().fail(format!("{waiting} wait for ever"));
    }
}

/// No place is lost, no amount, and who waits is woken.
async fn probe(cluster: &Cluster, mut asker: Client, plan: &Plan) {
    for number in 0..plan.tenants {
        let tenant = tenant(number);
        places(cluster, &tenant, plan.limits.tenant_in_flight, &mut asker).await;
        let Some((limit, node)) = free(cluster, &tenant) else {
            cluster.raft.world().fail("nobody leads after the trouble".to_owned());
            continue;
        };
        let id = asker.new_id_now();
        let granted = asker.execute(whole(&tenant, id, "user", limit), Duration::ZERO, PATIENCE).await;
        if !matches!(granted, Some(Outcome::Granted(_))) {
            cluster
                .raft
                .world()
                .fail(format!("{tenant} cannot have all of {limit} (at {node}): {granted:?}"));
            continue;
        }
        let (mut other, mut asks) = (asker.twin(), asker.twin());
        let (waits, one) = (asks.new_id_now(), Amount::from_micros(1).unwrap_or(Amount::ZERO));
        let reserve = whole(&tenant, waits, "user", one);
        let waiting = tokio::spawn(async move {
            let outcome = asks.execute(reserve, Duration::from_secs(10), PATIENCE).await;
            (outcome, Instant::now())
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        let nothing =
            Command::Settle { tenant: tenant.clone(), id, actual: vec![Amount::ZERO], estimated: false };
        other.execute(nothing, Duration::ZERO, PATIENCE).await;
        let settled = Instant::now();
        match waiting.await {
            Ok((Some(Outcome::Granted(_)), at)) if at <= settled + SOON + write_time(cluster) => {}
            other => cluster.raft.world().fail(format!("{tenant}: who waits is not woken: {other:?}")),
        }
        other.execute(Command::Release { tenant, id: waits }, Duration::ZERO, PATIENCE).await;
    }
}

fn write_time(cluster: &Cluster) -> Duration {
    Duration::from_millis(4 * cluster.raft.world().write_ms.1)
}

/// What the tenant has for one subject in a new window, by the leader's clock, and who leads.
fn free(cluster: &Cluster, tenant: &str) -> Option<(Amount, usize)> {
    let world = cluster.raft.world();
    let leader = world.leader?;
    let time = world.clock(leader);
    let limit = match world.truth().account(time, tenant, "user", "alice") {
        Some(account) => account.limit,
        None => world.truth().policy().rules.iter().find(|rule| rule.name == "user")?.limit,
    };
    Some((limit, leader))
}

/// As many operations at once as there are places.
async fn places(cluster: &Cluster, tenant: &str, places: usize, asker: &mut Client) {
    let Some(leader) = cluster.raft.world().leader else { return };
    let mut replies = Vec::new();
    for _ in 0..places {
        let release = Command::Release { tenant: tenant.to_owned(), id: asker.new_id_now() };
        if let Some(operation) = convert::operation(&release, 5_000) {
            replies.push(cluster.send(leader, Request::Operation(operation), false));
        }
    }
    for mut reply in replies {
        if let Some((Reply::Operation(WireResult { kind: Some(Kind::Unavailable(told)), .. }), _)) =
            reply.recv().await
            && told.message.contains("the tenant has too many")
        {
            cluster.raft.world().fail(format!("{tenant} has lost a place: {}", told.message));
        }
    }
}

fn finish(cluster: &Cluster, history: &[Operation]) -> Report {
    cluster.tally_all();
    let mut world = cluster.raft.world();
    for node in 0..world.nodes.len() {
        let (applied, all) = (world.nodes[node].applied, world.log.len());
        if applied != all {
            world.fail(format!("node {} has applied {applied} of {all} after the trouble", node + 1));
        }
        world.compare_digest(node);
    }
    check::history(&mut world, history);
    Report {
        failures: std::mem::take(&mut world.failures),
        trace: world.trace.take().unwrap_or_default(),
        operations: history.len(),
        entries: world.log.len(),
        terms: world.term,
        seen: std::mem::take(&mut world.seen),
        unknown: history.iter().filter(|operation| operation.outcome().is_none()).count(),
    }
}
