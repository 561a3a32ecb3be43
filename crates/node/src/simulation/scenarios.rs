//! What seeds have found, as the shortest story that shows it.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_ledger::{Amount, Command, Outcome};
use quorate_rpc::budget::result::Kind;
use quorate_rpc::convert;
use tokio::time::{Duration, Instant};

use super::client::Client;
use super::cluster::{Cluster, Reply, Request};
use super::plan::{policy, tokens};
use super::raft::Raft;
use super::rng::Rng;
use super::workload::whole;
use super::world::World;
use crate::config::Limits;

const LONG: Duration = Duration::from_secs(20);

/// Three nodes in good order, with a policy.
async fn begin() -> (Cluster, Client) {
    let mut rng = Rng::new(7);
    let mut world = World::new(7, 3, false);
    // No window ends meanwhile.
    world.begin_ms += 30_000;
    let raft = Raft::new(world);
    tokio::spawn(raft.clone().keep_a_leader());
    let cluster = Cluster::start(raft, Limits::default(), rng.fork());
    let history = Arc::new(Mutex::new(Vec::new()));
    let mut client = Client::new(1, &cluster, rng.fork(), &history);
    client.execute(policy(&mut rng), Duration::ZERO, LONG).await.unwrap();
    (cluster, client)
}

fn limit(cluster: &Cluster) -> Amount {
    let policy = cluster.raft.world().truth().policy();
    policy.rules.iter().find(|rule| rule.name == "user").unwrap().limit
}

fn leader(cluster: &Cluster) -> usize {
    cluster.raft.world().leader.unwrap()
}

/// Asks that node only.
async fn ask(cluster: &Cluster, node: usize, command: &Command) -> Kind {
    let operation = convert::operation(command, 1_000).unwrap();
    match cluster.send(node, Request::Operation(operation), false).recv().await.unwrap().0 {
        Reply::Operation(result) => result.kind.unwrap(),
        Reply::Change(decision) => panic!("{decision:?}"),
    }
}

/// Holds everything, and lets another one wait for it.
async fn hold_and_wait(cluster: &Cluster, client: &mut Client) -> Command {
    let all = whole("acme", client.new_id_now(), "user", limit(cluster));
    assert!(matches!(client.execute(all.clone(), Duration::ZERO, LONG).await, Some(Outcome::Granted(_))));
    let mut waits = client.twin();
    let one = whole("acme", client.new_id_now(), "user", tokens(1));
    tokio::spawn(async move { waits.execute(one, LONG / 2, LONG).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.waiting(), 1);
    all
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_denies_nothing_to_those_behind_its_queue() {
    let (cluster, mut client) = begin().await;
    let all = hold_and_wait(&cluster, &mut client).await;
    let (Command::Reserve { id, .. }, old) = (all, leader(&cluster)) else { panic!("a reservation") };
    cluster.raft.link(old, false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(leader(&cluster), old);
    let release = Command::Release { tenant: "acme".to_owned(), id };
    assert!(matches!(ask(&cluster, leader(&cluster), &release).await, Kind::Released(_)));
    let one = whole("acme", client.new_id_now(), "user", tokens(1));
    let told = ask(&cluster, old, &one).await;
    assert!(matches!(told, Kind::Unavailable(_)), "there is room, and it cannot know: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_does_not_know_what_one_that_gives_up_would_have_got() {
    let (cluster, mut client) = begin().await;
    hold_and_wait(&cluster, &mut client).await;
    let old = leader(&cluster);
    let waits = whole("acme", client.new_id_now(), "user", tokens(1));
    let Command::Reserve { id, .. } = waits else { panic!("a reservation") };
    let mut operation = convert::operation(&waits, 20_000).unwrap();
    operation.wait_ms = 15_000;
    let mut told = cluster.send(old, Request::Operation(operation), false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.raft.link(old, false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    ask(&cluster, old, &Command::Release { tenant: "acme".to_owned(), id }).await;
    match told.recv().await.unwrap().0 {
        Reply::Operation(result) => assert!(matches!(result.kind, Some(Kind::Unavailable(_))), "{result:?}"),
        Reply::Change(decision) => panic!("{decision:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_denied_for_good_does_not_fill_the_log_while_it_waits() {
    let (cluster, mut client) = begin().await;
    let all = whole("acme", client.new_id_now(), "user", limit(&cluster));
    client.execute(all, Duration::ZERO, LONG).await.unwrap();
    // Not alone: nothing is certain, so the denial goes through the log and is remembered.
    let other = whole("acme", client.new_id_now(), "org", tokens(1));
    let mut twin = client.twin();
    let beside = tokio::spawn(async move { twin.execute(other, Duration::ZERO, LONG).await });
    tokio::task::yield_now().await;
    let one = whole("acme", client.new_id_now(), "user", tokens(1));
    let first = client.execute(one.clone(), Duration::ZERO, LONG).await;
    beside.await.unwrap().unwrap();
    let known = cluster.raft.world().log.iter().any(|entry| entry.commands.contains(&one));
    assert!(matches!(first, Some(Outcome::Denied(_))) && known, "{first:?}");
    let before = cluster.raft.world().log.len();
    let again = client.execute(one, LONG / 2, LONG).await;
    assert_eq!(again, first, "the first decision");
    let more = cluster.raft.world().log.len() - before;
    assert!(more <= 3, "{more} entries for one reservation");
}

const IN_NO_HURRY: Duration = Duration::from_millis(90);

async fn hold(client: &mut Client) -> Command {
    let one = whole("acme", client.new_id_now(), "user", tokens(1));
    assert!(matches!(client.execute(one.clone(), Duration::ZERO, LONG).await, Some(Outcome::Granted(_))));
    let Command::Reserve { tenant, id, .. } = one else { panic!("a reservation") };
    Command::Settle { tenant, id, actual: vec![tokens(1)], estimated: false }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_in_no_hurry_stands_in_the_entry_of_what_comes_next_and_before_it() {
    let (cluster, mut client) = begin().await;
    let settle = hold(&mut client).await;
    let before = cluster.raft.world().log.len();
    let (mut twin, settling) = (client.twin(), settle.clone());
    let settled = tokio::spawn(async move { twin.execute(settling, IN_NO_HURRY, LONG).await });
    tokio::time::sleep(IN_NO_HURRY / 2).await;
    assert_eq!(cluster.raft.world().log.len(), before, "it waits");
    let next = whole("acme", client.new_id_now(), "user", tokens(1));
    assert!(matches!(client.execute(next.clone(), Duration::ZERO, LONG).await, Some(Outcome::Granted(_))));
    assert!(matches!(settled.await.unwrap(), Some(Outcome::Settled(_))));
    let entries: Vec<_> =
        cluster.raft.world().log[before..].iter().map(|entry| entry.commands.clone()).collect();
    assert_eq!(entries, [[settle, next]]);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_in_no_hurry_goes_alone_when_its_time_is_over() {
    let (_cluster, mut client) = begin().await;
    let settle = hold(&mut client).await;
    let began = Instant::now();
    assert!(matches!(client.execute(settle, IN_NO_HURRY, LONG).await, Some(Outcome::Settled(_))));
    assert!((IN_NO_HURRY..IN_NO_HURRY * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_kept_waiting_by_a_release_in_no_hurry() {
    let (cluster, mut client) = begin().await;
    let Command::Reserve { tenant, id, .. } = hold_and_wait(&cluster, &mut client).await else { panic!() };
    let began = Instant::now();
    client.execute(Command::Release { tenant, id }, IN_NO_HURRY, LONG).await.unwrap();
    assert!(began.elapsed() < IN_NO_HURRY, "{:?}", began.elapsed());
}
