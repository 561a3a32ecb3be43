//! Reservations that wait for others to be settled: order, deadlines, a new leader, callers that leave.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::time::{Duration, Instant};

use quorate_ledger::{Amount, Charge, Command, Denial, Outcome, ReservationId};
use quorate_rpc::Client;
use quorate_testkit::Cluster;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

const POLICY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: user}\nspec:\n  subject: [{header: x-user-id}]\n  limit: {tokens: 100}\n  window: Lifetime\n";
/// Reservations that wait at the leader.
const QUEUE: &str = "quorate_node_waiting";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Nothing here takes so long, however slow the machine.
const LONG: Duration = Duration::from_secs(45);
/// Long enough for an operation to leave the queue if it could.
const A_WHILE: Duration = Duration::from_millis(400);

struct Bench {
    cluster: Cluster,
    client: Client,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with("Lifetime").await
    }

    async fn start_with(window: &str) -> Self {
        let cluster = Cluster::start(3).await;
        cluster.apply(&POLICY.replace("Lifetime", window)).await;
        let client = cluster.client();
        Self { cluster, client }
    }

    fn reserve(&self, id: ReservationId, tokens: u64) -> Command {
        let amount = Amount::from_units(tokens).unwrap();
        let charge = Charge { budget: "user".into(), subject: "alice".into(), amount, at_least: amount };
        Command::Reserve { tenant: "acme".into(), id, charges: vec![charge], ttl_ms: 60_000, wait: false }
    }

    async fn hold(&self, tokens: u64) -> ReservationId {
        let id = self.client.new_id();
        let executed = self.client.execute(self.reserve(id, tokens), TIMEOUT).await.unwrap();
        assert!(matches!(executed.outcome, Outcome::Granted(_)), "{:?}", executed.outcome);
        id
    }

    /// Waits in the background; returns once it stands in the queue, or has been answered.
    async fn wait(
        &self,
        client: &Client,
        id: ReservationId,
        tokens: u64,
        wait: Duration,
    ) -> JoinHandle<Outcome> {
        self.wait_on(&Handle::current(), client, id, tokens, wait).await
    }

    /// The same with the connections of another runtime, which are gone when that one is shut down.
    async fn wait_on(
        &self,
        runtime: &Handle,
        client: &Client,
        id: ReservationId,
        tokens: u64,
        wait: Duration,
    ) -> JoinHandle<Outcome> {
        let before = self.cluster.metric(QUEUE).await;
        let (client, command) = (client.clone(), self.reserve(id, tokens));
        let waiting = runtime
            .spawn(async move { client.execute_waiting(command, wait, TIMEOUT).await.unwrap().outcome });
        self.cluster.until_metric(QUEUE, |waiters| waiters > before || waiting.is_finished()).await;
        waiting
    }

    async fn end(&self, id: ReservationId, used: Option<u64>) {
        let tenant = "acme".to_owned();
        let command = match used {
            Some(tokens) => Command::Settle {
                tenant,
                id,
                actual: vec![Amount::from_units(tokens).unwrap()],
                estimated: false,
            },
            None => Command::Release { tenant, id },
        };
        self.client.execute(command, TIMEOUT).await.unwrap();
    }

    async fn granted_after_wait(&self) -> u64 {
        self.cluster.metric("quorate_node_granted_after_wait_total").await
    }

    async fn denied(&self, tokens: u64) -> Denial {
        match self.client.execute(self.reserve(self.client.new_id(), tokens), TIMEOUT).await.unwrap().outcome
        {
            Outcome::Denied(denial) => denial,
            other => panic!("{other:?}"),
        }
    }
}

fn granted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Granted(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_first_is_served_first_and_a_newcomer_does_not_overtake() {
    let bench = Bench::start().await;
    let (first, second) = (bench.hold(50).await, bench.hold(50).await);
    // Through different nodes: the queue is the leader's.
    let large = bench.wait(&bench.cluster.client_at(0), bench.client.new_id(), 60, LONG).await;
    let small = bench.wait(&bench.cluster.client_at(1), bench.client.new_id(), 30, LONG).await;
    bench.end(first, None).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!large.is_finished() && !small.is_finished(), "the small one fits, but it came later");
    let newcomer = bench.denied(10).await;
    assert!(newcomer.held_by_reservations && newcomer.available.is_zero(), "{newcomer:?}");
    bench.end(second, Some(10)).await;
    assert!(granted(&large.await.unwrap()) && granted(&small.await.unwrap()));
    assert!(bench.denied(1).await.held_by_reservations, "10 are spent, 90 are held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_at_its_deadline_and_what_cannot_be_waited_for_is_denied_at_once() {
    let bench = Bench::start().await;
    let held = bench.hold(90).await;
    let (id, started) = (bench.client.new_id(), Instant::now());
    let waiting = bench.wait(&bench.client, id, 50, Duration::from_millis(800)).await;
    let Outcome::Denied(denial) = waiting.await.unwrap() else { panic!("nothing was given back") };
    assert!(denial.held_by_reservations, "{denial:?}");
    let took = started.elapsed();
    assert!((Duration::from_millis(700)..LONG).contains(&took), "{took:?}");
    // It was not decided for good: the same id may ask again.
    bench.end(held, Some(60)).await;
    let again = bench.client.execute(bench.reserve(id, 40), TIMEOUT).await.unwrap();
    assert!(granted(&again.outcome), "{again:?}");
    let started = Instant::now();
    let never = bench.client.execute_waiting(bench.reserve(bench.client.new_id(), 41), LONG, TIMEOUT);
    assert!(matches!(never.await.unwrap().outcome, Outcome::Denied(denial) if !denial.held_by_reservations));
    assert!(started.elapsed() < LONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_is_taken_along_to_the_next_leader() {
    let mut bench = Bench::start().await;
    let held = bench.hold(100).await;
    let waiting = bench.wait(&bench.client, bench.client.new_id(), 70, LONG).await;
    let leader = bench.cluster.leader().await;
    bench.cluster.stop(leader).await;
    bench.end(held, Some(20)).await;
    assert!(granted(&waiting.await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_makes_room_for_the_next() {
    let bench = Bench::start().await;
    let (first, _second) = (bench.hold(50).await, bench.hold(50).await);
    // One whose connection is gone, one that says so.
    let (elsewhere, leaving) = (Runtime::new().unwrap(), bench.cluster.client());
    let gone = bench.wait_on(elsewhere.handle(), &leaving, bench.client.new_id(), 90, LONG).await;
    let id = bench.client.new_id();
    let gives_up = bench.wait(&bench.client, id, 80, LONG).await;
    let last = bench.wait(&bench.client, bench.client.new_id(), 40, LONG).await;
    bench.end(first, None).await;
    elsewhere.shutdown_background();
    assert!(gone.await.unwrap_err().is_cancelled());
    bench.cluster.until_metric(QUEUE, |waiters| waiters < 3).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!last.is_finished(), "another one is still before it");
    bench.end(id, None).await;
    assert!(matches!(gives_up.await.unwrap(), Outcome::Denied(_)));
    assert!(granted(&last.await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_rolls_over_lets_them_go_on_and_so_does_a_higher_limit() {
    let bench = Bench::start_with("Second").await;
    bench.hold(100).await;
    // Where the window ends before one has asked, it need not wait: then the next one, for what that one holds.
    for _ in 0..20 {
        let waiting = bench.wait(&bench.client, bench.client.new_id(), 100, LONG).await;
        assert!(granted(&waiting.await.unwrap()));
        if bench.granted_after_wait().await > 0 {
            break;
        }
    }
    assert!(bench.granted_after_wait().await > 0, "none had to wait");

    let bench = Bench::start().await;
    bench.hold(100).await;
    let waiting = bench.wait(&bench.client, bench.client.new_id(), 50, LONG).await;
    bench.cluster.apply(&POLICY.replace("100", "1000")).await;
    assert!(granted(&waiting.await.unwrap()));
}
