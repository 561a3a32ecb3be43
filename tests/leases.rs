//! Budgets with `enforcement: Lease`, on three node processes and two gateway processes, one of which is killed with slices in
//! its hands.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use quorate_rpc::admin::{Account, ListReservationsRequest};
use serde_json::Value;
use support::{Deployment, policy, request_of_100};

const MICROS: u64 = 1_000_000;
/// Slices live for 12 s and the 5 s that they may give.
const SHORT: &str = "timeouts: {total_ms: 10000, settle_ms: 2000}\n";
const CLIENTS: usize = 4;

fn leased(tokens: u64) -> String {
    policy(tokens, "Lifetime") + "  enforcement: Lease\n"
}

async fn start(tokens: u64) -> Deployment {
    let mut deployment = Deployment::without_gateways(&leased(tokens)).await;
    for _ in 0..2 {
        let mock = [("mock", deployment.provider_address.clone())];
        deployment.start_gateway_with(&mock, SHORT).await;
    }
    deployment
}

/// Whether some gateway holds more of the account than one request needs.
async fn has_slices(deployment: &Deployment, subject: &str) -> bool {
    let request = ListReservationsRequest { tenant: "default".to_owned(), ..Default::default() };
    let open = deployment.admin().list_reservations(request).await.unwrap().reservations;
    let mut charges = open.iter().flat_map(|one| &one.charges);
    charges.any(|charge| charge.subject == subject && charge.amount_micros > 200 * MICROS)
}

/// Clients of one gateway until `enough`; how many requests were served.
async fn drive(deployment: &Deployment, gateway: usize, user: &str, enough: &AtomicBool) -> u64 {
    let body = request_of_100(false);
    let client = async || {
        let mut served = 0;
        while !enough.load(Ordering::SeqCst) {
            // A gateway that was killed answers nobody.
            let Some(answer) = deployment.chat(gateway, user, &body).await else { break };
            assert_eq!(answer.status, 200, "{answer:?}");
            served += 1;
        }
        served
    };
    join_all((0..CLIENTS).map(|_| client())).await.into_iter().sum()
}

async fn until_slices(deployment: &Deployment, user: &str, enough: &AtomicBool) {
    deployment.until(async || has_slices(deployment, user).await).await;
    enough.store(true, Ordering::SeqCst);
}

async fn returned(deployment: &Deployment, user: &str) -> Account {
    let account = deployment.until_account("user", user, |account| account.reserved_micros == 0).await;
    assert_eq!((account.leased_micros, account.overdraft_micros), (0, 0));
    let violations = deployment.admin().check_invariants(Default::default()).await.unwrap().violations;
    assert_eq!(violations, Vec::<String>::new());
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn near_the_limit_a_leased_budget_is_exact() {
    let deployment = start(250).await;
    let body: Value = request_of_100(false);
    let asked = (0..20).map(|number| deployment.chat(number % 2, "alice", &body));
    let mut statuses: Vec<u16> =
        join_all(asked).await.into_iter().map(|answer| answer.unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 2], vec![429; 18]].concat());
    assert_eq!(returned(&deployment, "alice").await.spent_micros, 200 * MICROS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_returns_its_slices_and_one_that_is_killed_is_charged_for_them() {
    // Not so much that slices live for a minute: what is held of them by the dead is waited for.
    let mut deployment = start(200_000).await;

    // Stopped in the midst of it.
    let enough = AtomicBool::new(false);
    let (served, ()) =
        tokio::join!(drive(&deployment, 1, "alice", &enough), until_slices(&deployment, "alice", &enough),);
    let shown = deployment.quorate(&["get", "accounts"]).unwrap();
    assert!(shown.contains("LEASED"), "{shown}");
    let gateway = deployment.gateways.remove(1);
    gateway.signal("-TERM");
    let (code, output) = gateway.wait();
    assert_eq!(code, Some(0), "{output}");
    let account = returned(&deployment, "alice").await;
    assert_eq!((account.spent_micros, account.estimated_micros), (served * 100 * MICROS, 0));
    assert_eq!(deployment.served().await, served * 100);

    // Killed in the midst of it.
    let enough = AtomicBool::new(false);
    tokio::join!(drive(&deployment, 0, "bob", &enough), async {
        deployment.until(async || has_slices(&deployment, "bob").await).await;
        // Nobody has told it to end: it is killed with whatever it holds.
        let pid = deployment.gateways[0].child.id();
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    });
    let account = returned(&deployment, "bob").await;
    let served_bob = (deployment.served().await - served * 100) * MICROS;
    assert!(account.spent_micros >= served_bob, "{account:?}, {served_bob} served");
    assert!(account.estimated_micros > 200 * MICROS, "a slice was charged whole: {account:?}");
}
