//! The promise, on three node processes and two gateway processes: a budget cannot be overspent.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use quorate_rpc::admin::Consistency;
use serde_json::Value;
use support::{Deployment, READY_WITHIN, policy, request_of_100};

const MICROS: u64 = 1_000_000;
/// Operations that are acknowledged in each round before the cluster is killed.
const KILLED_AFTER: u64 = 100;

async fn spent(deployment: &Deployment, subject: &str) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    for node in 0..3 {
        let account = deployment.account(node, "user", subject, Consistency::Linearizable).await.unwrap();
        seen.push((account.spent_micros / MICROS, account.reserved_micros / MICROS));
    }
    seen
}

async fn statuses(deployment: &Deployment, user: &str, count: usize, body: &Value) -> Vec<u16> {
    let requests = (0..count).map(|number| deployment.chat(number % 2, user, body));
    let mut statuses: Vec<u16> =
        join_all(requests).await.into_iter().map(|answer| answer.unwrap().status).collect();
    statuses.sort_unstable();
    statuses
}

fn two_of_20() -> Vec<u16> {
    [vec![200; 2], vec![429; 18]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_250_admits_two_of_20_parallel_requests_of_100() {
    let deployment = Deployment::start(&policy(250, "Lifetime")).await;
    assert_eq!(statuses(&deployment, "alice", 20, &request_of_100(false)).await, two_of_20());
    assert_eq!(spent(&deployment, "alice").await, [(200, 0); 3]);
    assert_eq!(statuses(&deployment, "bob", 20, &request_of_100(true)).await, two_of_20());
    assert_eq!(spent(&deployment, "bob").await, [(200, 0); 3]);
    assert_eq!(deployment.served().await, 400);

    let denied = deployment.chat(0, "alice", &request_of_100(false)).await.unwrap();
    assert_eq!(denied.headers["x-should-retry"], "false");
    assert_eq!(denied.headers["x-ratelimit-remaining"], "50");
    let body: Value = serde_json::from_slice(&denied.body).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("budget user") && message.contains("50 of 250"), "{message}");

    let violations = deployment.admin().check_invariants(Default::default()).await.unwrap().violations;
    assert_eq!(violations, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_on_50_subjects_get_two_each() {
    let deployment = Deployment::start(&policy(250, "Lifetime")).await;
    let body = request_of_100(false);
    let requests =
        (0..500).map(|number| {
            let (deployment, body) = (&deployment, &body);
            async move {
                deployment.chat(number % 2, &format!("user-{}", number % 50), body).await.unwrap().status
            }
        });
    let answers = join_all(requests).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 100);
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 400);
    for subject in 0..50 {
        assert_eq!(spent(&deployment, &format!("user-{subject}")).await, [(200, 0); 3]);
    }
}

/// Clients retry what was not answered, as SDKs do; the leader is killed and comes back meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_while_the_leader_is_killed() {
    let mut deployment = Deployment::start(&policy(1_050, "Lifetime")).await;
    let body = request_of_100(false);
    let leader = deployment.leader().await;
    deployment.nodes[leader].kill_9();
    let answers = {
        let deployment = &deployment;
        let body = &body;
        let client = |number: usize| async move {
            let deadline = Instant::now() + READY_WITHIN;
            while Instant::now() < deadline {
                match deployment.chat(number % 2, "alice", body).await {
                    Some(answer) if answer.status == 200 || answer.status == 429 => return answer.status,
                    _ => tokio::time::sleep(Duration::from_millis(250)).await,
                }
            }
            0
        };
        join_all((0..40).map(client)).await
    };
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 10, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 30, "{answers:?}");
    deployment.nodes[leader] = deployment.spawn_node(leader + 1);
    deployment.wait_ready(&deployment.node_http[leader].clone()).await;
    assert_eq!(spent(&deployment, "alice").await, [(1_000, 0); 3]);
    assert_eq!(deployment.served().await, 1_000);
}

/// What comes next through the same gateway is decided after what was answered, and in parallel no more get in than ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_where_answers_do_not_wait_for_their_settlements() {
    let mut deployment = Deployment::without_gateways(&policy(250, "Lifetime")).await;
    for _ in 0..2 {
        let mock = [("mock", deployment.provider_address.clone())];
        deployment.start_gateway_with(&mock, "timeouts: {settle_wait_ms: 0}\n").await;
    }
    let mut short = request_of_100(false);
    short["metadata"]["mock_tokens"] = "20".into();
    let mut left = Vec::new();
    for _ in 0..5 {
        let answer = deployment.chat(0, "alice", &short).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        left.push(answer.headers["x-ratelimit-remaining"].to_str().unwrap().to_owned());
    }
    assert_eq!(left, ["220", "190", "160", "130", "100"]);
    assert_eq!(deployment.chat(0, "alice", &short).await.unwrap().status, 429, "it may need 101");
    assert_eq!(statuses(&deployment, "bob", 20, &request_of_100(false)).await, two_of_20());
    for (user, tokens) in [("alice", 150), ("bob", 200)] {
        let account = deployment.until_account("user", user, |account| account.reserved_micros == 0).await;
        assert_eq!(account.spent_micros / MICROS, tokens, "{user}");
    }
    assert_eq!(deployment.served().await, 350);
}

/// The gateway is killed while the provider works: the money may be gone, so what was reserved is charged, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_had_reserved_expires_as_charged() {
    let mut deployment = Deployment::start(&policy(250, "Lifetime")).await;
    let short = ["--set", "timeouts.total_ms=1500", "--set", "timeouts.settle_ms=500"];
    deployment.start_gateway(&short).await;
    let mut body = request_of_100(false);
    body["metadata"]["mock_latency_ms"] = "60000".into();
    let killed = deployment.gateways.len() - 1;
    // Its first request waits for the tokenizer, on a busy machine for longer than this gateway gives to a request.
    deployment.chat(killed, "bob", &request_of_100(false)).await;
    let mut gateway = deployment.gateways.pop().unwrap();
    let held = {
        let request = deployment.chat(killed, "alice", &body);
        let kill = async {
            let held = deployment.until_account("user", "alice", |account| account.reserved_micros > 0).await;
            gateway.kill_9();
            held.reserved_micros
        };
        let (answer, held) = tokio::join!(request, kill);
        assert!(answer.is_none(), "the connection broke");
        held
    };
    let after = deployment.until_account("user", "alice", |account| account.reserved_micros == 0).await;
    assert_eq!(after.spent_micros, held);
    let violations = deployment.admin().check_invariants(Default::default()).await.unwrap().violations;
    assert_eq!(violations, Vec::<String>::new());
}

/// Nothing that was acknowledged is lost when every process of the cluster is killed at once, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_whole_cluster_loses_nothing() {
    let rounds: u64 =
        std::env::var("QUORATE_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut deployment = Deployment::start(&policy(1_000_000_000, "Lifetime")).await;
    let client = deployment.client();
    let amount = quorate_ledger::Amount::from_units(1).unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    for _ in 0..rounds {
        let killed = Arc::new(AtomicBool::new(false));
        let load = |worker: usize| {
            let (client, acknowledged, killed) = (client.clone(), acknowledged.clone(), killed.clone());
            async move {
                while !killed.load(Ordering::Relaxed) {
                    let id = client.new_id();
                    let charge = quorate_ledger::Charge {
                        budget: "user".into(),
                        subject: format!("w{worker}"),
                        amount,
                        at_least: amount,
                    };
                    let reserve = quorate_ledger::Command::Reserve {
                        tenant: "load".into(),
                        id,
                        charges: vec![charge],
                        ttl_ms: 3_600_000,
                        wait: false,
                    };
                    if client.execute(reserve, Duration::from_millis(500)).await.is_ok() {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        let enough = acknowledged.load(Ordering::Relaxed) + KILLED_AFTER;
        let workers: Vec<_> = (0..16).map(|worker| tokio::spawn(load(worker))).collect();
        deployment.until(async || acknowledged.load(Ordering::Relaxed) >= enough).await;
        for node in &mut deployment.nodes {
            node.kill_9();
        }
        killed.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.unwrap();
        }
        for id in 1..=3 {
            deployment.nodes[id - 1] = deployment.spawn_node(id);
        }
        for http in deployment.node_http.clone() {
            deployment.wait_ready(&http).await;
        }
        let tenants = deployment.admin().list_tenants(Default::default()).await.unwrap().tenants;
        let granted =
            tenants.iter().find(|tenant| tenant.name == "load").map_or(0, |tenant| tenant.granted_total);
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        assert!(granted >= acknowledged, "{acknowledged} acknowledged, {granted} found");
        let violations = deployment.admin().check_invariants(Default::default()).await.unwrap().violations;
        assert_eq!(violations, Vec::<String>::new());
    }
}
