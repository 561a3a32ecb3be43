//! Three nodes in one process: forwarding, expiry, watches, a graceful stop.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_ledger::{
    Amount, CIRCUITS_MAX, Charge, Command, Outcome, ProbeRefusal, ProviderReport, ProviderSignal,
    ProviderState, Refusal,
};
use quorate_rpc::admin::{
    DrainBackendRequest, DrainBackendResponse, ListAccountsRequest, ListAuditRequest, ListNodesRequest,
    UndrainBackendRequest,
};
use quorate_rpc::budget::result::Kind;
use quorate_rpc::budget::{Operation, UnavailableReason};
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, Providers, Session, channel, circuit, convert};
use quorate_testkit::Cluster;

const POLICY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: user}\nspec:\n  subject: [{header: x-user-id}]\n  limit: {tokens: 250}\n  window: Lifetime\n";
const TIMEOUT: Duration = Duration::from_secs(20);

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.apply(POLICY).await;
    cluster
}

fn reserve(client: &Client, tokens: u64, ttl_ms: u64) -> Command {
    let amount = Amount::from_units(tokens).unwrap();
    let charge = Charge { budget: "user".into(), subject: "alice".into(), amount, at_least: amount };
    Command::Reserve {
        tenant: "acme".into(),
        id: client.new_id(),
        charges: vec![charge],
        ttl_ms,
        wait: false,
    }
}

async fn account(client: &Client) -> (u64, u64) {
    let accounts = client.admin().list_accounts(ListAccountsRequest::default()).await.unwrap().accounts;
    (accounts[0].spent_micros / 1_000_000, accounts[0].reserved_micros / 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_reservations_through_every_node_are_exact() {
    let cluster = cluster().await;
    let clients: Vec<Client> = (0..3).map(|node| cluster.client_at(node)).collect();
    let operations = (0..20).map(|number| {
        let client = &clients[number % 3];
        client.execute(reserve(client, 100, 60_000), TIMEOUT)
    });
    let outcomes: Vec<Outcome> =
        join_all(operations).await.into_iter().map(|executed| executed.unwrap().outcome).collect();
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Granted(_))).count(), 2);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Denied(_))).count(), 18);
    for client in &clients {
        assert_eq!(account(client).await, (0, 200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_comes_back_as_itself_and_at_once() {
    let cluster = Cluster::start(3).await;
    cluster.apply(&POLICY.replace("  limit", "  accountsMax: 1\n  limit")).await;
    // Also through a node that does not lead.
    for client in (0..3).map(|node| cluster.client_at(node)) {
        client.execute(reserve(&client, 1, 60_000), TIMEOUT).await.unwrap();
        let refused = |mut command: Command, change: &dyn Fn(&mut Vec<Charge>)| {
            if let Command::Reserve { charges, .. } = &mut command {
                change(charges);
            }
            let client = client.clone();
            async move {
                match client.execute(command, TIMEOUT).await.unwrap().outcome {
                    Outcome::Refused(refusal) => refusal,
                    other => panic!("{other:?}"),
                }
            }
        };
        let other = |charges: &mut Vec<Charge>| charges[0].subject = "bob".into();
        let expected = Refusal::TooManyAccounts { tenant: "acme".into(), budget: "user".into(), max: 1 };
        assert_eq!(refused(reserve(&client, 1, 60_000), &other).await, expected);
        // More than the log takes in one piece: wrong, and no reason to look for another node.
        let long = |charges: &mut Vec<Charge>| charges[0].subject = "x".repeat(200_000);
        let refusal = refused(reserve(&client, 1, 60_000), &long).await;
        assert!(matches!(&refusal, Refusal::Invalid(why) if why.contains("at most")), "{refusal}");
        assert_eq!(client.stats().retries.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_nobody_settles_expires_as_charged() {
    let cluster = cluster().await;
    let client = cluster.client();
    let executed = client.execute(reserve(&client, 100, 50), TIMEOUT).await.unwrap();
    assert!(matches!(executed.outcome, Outcome::Granted(_)));
    let expired = async {
        while account(&client).await != (100, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, expired).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_leader_granted_expires_in_time() {
    let mut cluster = cluster().await;
    let client = cluster.client();
    client.execute(reserve(&client, 100, 3_000), TIMEOUT).await.unwrap();
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    // An operation that comes early, and whose own deadline is far away.
    client.execute(reserve(&client, 50, 600_000), TIMEOUT).await.unwrap();
    let expired = async {
        while account(&client).await != (100, 50) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, expired).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_the_policy_and_the_health_of_providers() {
    let cluster = cluster().await;
    let client = cluster.client();
    let watch = client.watch();
    let mut policy = watch.policy();
    let seen = tokio::time::timeout(TIMEOUT, policy.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone()
        .unwrap();
    assert_eq!(seen.version, 1);
    assert!(seen.document.contains("name: user") && seen.document.contains("250"), "{}", seen.document);
    let report = ProviderReport {
        backend: "openai".into(),
        model: "gpt-4o".into(),
        reporter: "test".into(),
        signal: Some(ProviderSignal::Limited { retry_after_ms: 5_000 }),
        reason: "429".into(),
        ..ProviderReport::default()
    };
    let reported = client.execute(Command::ReportProvider(report), TIMEOUT).await.unwrap();
    assert_eq!(reported.outcome, Outcome::ProviderReported { revision: 1 });
    let mut providers = watch.providers();
    let open = |known: &Providers| {
        circuit(known, "openai", "gpt-4o").is_some_and(|view| view.state == ProviderState::Open)
    };
    tokio::time::timeout(TIMEOUT, providers.wait_for(open)).await.unwrap().unwrap();
    let claim = Command::ClaimProbe {
        backend: "openai".into(),
        model: "gpt-4o".into(),
        holder: "test".into(),
        probe: 1,
        lease_ms: 1_000,
    };
    let refused = client.execute(claim, TIMEOUT).await.unwrap().outcome;
    assert!(matches!(refused, Outcome::ProbeRefused(ProbeRefusal::Resting { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_drains_a_backend_by_the_name_that_it_has() {
    let cluster = cluster().await;
    let client = cluster.client();
    let admin = client.admin().acting_as("ops");
    let report = ProviderReport {
        backend: "default/openai".into(),
        reporter: "g1".into(),
        successes: 1,
        ..ProviderReport::default()
    };
    client.execute(Command::ReportProvider(report), TIMEOUT).await.unwrap();
    let drain = |name: &str| DrainBackendRequest { backend: name.into() };
    let drained = admin.drain_backend(drain("openai")).await.unwrap();
    let expected = |changed| DrainBackendResponse { backend: "default/openai".into(), changed, known: true };
    assert_eq!(drained, expected(true));
    assert_eq!(admin.drain_backend(drain("openai")).await.unwrap(), expected(false));
    assert!(!admin.drain_backend(drain("elsewhere")).await.unwrap().known);
    let watch = client.watch();
    let mut providers = watch.providers();
    let is_drained = |known: &Providers| {
        circuit(known, "default/openai", "").is_some_and(|view| view.drained_since.is_some())
    };
    tokio::time::timeout(TIMEOUT, providers.wait_for(is_drained)).await.unwrap().unwrap();
    let undrain = UndrainBackendRequest { backend: "default/openai".into() };
    assert!(admin.undrain_backend(undrain).await.unwrap().changed);
    tokio::time::timeout(TIMEOUT, providers.wait_for(|known| !is_drained(known))).await.unwrap().unwrap();
    let audit = admin.list_audit(ListAuditRequest::default()).await.unwrap().records;
    let shown: Vec<_> = audit
        .iter()
        .map(|record| (record.by.as_str(), record.action.as_str(), record.subject.as_str()))
        .collect();
    assert!(shown.contains(&("ops", "drain backend", "backend default/openai")), "{shown:?}");
    assert!(shown.contains(&("ops", "undrain backend", "backend default/openai")), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_forget_circuits_with_the_ledger_and_newcomers_get_all_of_them() {
    let cluster = cluster().await;
    let client = cluster.client();
    let watch = client.watch();
    let report = |model: usize| {
        let report = ProviderReport {
            backend: "openai".into(),
            model: format!("m{model}"),
            reporter: "g1".into(),
            successes: 1,
            ..ProviderReport::default()
        };
        client.execute(Command::ReportProvider(report), TIMEOUT)
    };
    let full = |known: &Providers| known.get("openai").is_some_and(|models| models.len() == CIRCUITS_MAX);
    for reported in join_all((0..CIRCUITS_MAX).map(report)).await {
        reported.unwrap();
    }
    let mut providers = watch.providers();
    tokio::time::timeout(TIMEOUT, providers.wait_for(full)).await.unwrap().unwrap();
    report(CIRCUITS_MAX).await.unwrap();
    let new = format!("m{CIRCUITS_MAX}");
    let in_place = |known: &Providers| full(known) && circuit(known, "openai", &new).is_some();
    tokio::time::timeout(TIMEOUT, providers.wait_for(in_place)).await.unwrap().unwrap();
    let newcomer = client.watch();
    tokio::time::timeout(TIMEOUT, newcomer.providers().wait_for(in_place)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_and_comes_back() {
    let mut cluster = cluster().await;
    let client = cluster.client();
    client.execute(reserve(&client, 100, 60_000), TIMEOUT).await.unwrap();
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    client.execute(reserve(&client, 100, 60_000), TIMEOUT).await.unwrap();
    cluster.restart(leader).await;
    assert_eq!(account(&cluster.client_at(leader)).await, (0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_go_on_waits_for_nobody() {
    let mut cluster = Cluster::start_with(1, |config| config.limits.drain_ms = 600_000).await;
    let silent = tokio::net::TcpStream::connect(&cluster.addresses()[0]).await.unwrap();
    tokio::time::timeout(TIMEOUT, cluster.give_up(0)).await.unwrap();
    drop(silent);
}

/// Neither for a client's session, nor for the streams of its peers: only for what is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_waits_for_no_stream_that_is_idle() {
    let mut cluster = Cluster::start_with(3, |config| config.limits.drain_ms = 600_000).await;
    cluster.apply(POLICY).await;
    let leader = cluster.leader().await;
    for node in [(leader + 1) % 3, leader] {
        let (client, other) = (cluster.client_at(node), cluster.client());
        let held = reserve(&client, 100, 60_000);
        client.execute(held, TIMEOUT).await.unwrap();
        tokio::time::timeout(TIMEOUT, cluster.stop(node)).await.unwrap();
        other.execute(reserve(&other, 1, 60_000), TIMEOUT).await.unwrap();
        cluster.restart(node).await;
    }
}

/// What it has taken it answers, also what it has passed on; who asks meanwhile is sent away.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_what_it_has_taken() {
    let mut cluster = Cluster::start_with(3, |config| config.limits.drain_ms = 600_000).await;
    cluster.apply(POLICY).await;
    let leader = cluster.leader().await;
    let (follower, client) = ((leader + 1) % 3, cluster.client_at(leader));
    let held = reserve(&client, 100, 60_000);
    client.execute(held.clone(), TIMEOUT).await.unwrap();
    let address = cluster.addresses()[follower].clone();
    let channel = channel(&address, &Security::Plain).unwrap();
    let session = Arc::new(Session::open(channel, address, false).await.unwrap());
    let call = |command: &Command, wait_ms: u32| {
        let session = Arc::clone(&session);
        let operation = convert::operation(command, 60_000).unwrap();
        async move { session.call(Operation { wait_ms, ..operation }).await.unwrap().kind.unwrap() }
    };
    let unknown = Command::Release { tenant: "acme".into(), id: client.new_id() };
    let waits = tokio::spawn(call(&reserve(&client, 200, 60_000), 60_000));
    // Behind it on the same stream.
    assert!(matches!(call(&unknown, 0).await, Kind::Refused(_)));

    let meanwhile = async {
        let said = loop {
            match call(&unknown, 0).await {
                Kind::Unavailable(said) => break said,
                Kind::Refused(_) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said.reason(), UnavailableReason::ShuttingDown);
        assert!(!waits.is_finished());
        let Command::Reserve { tenant, id, .. } = held else { unreachable!("it reserves") };
        client.execute(Command::Release { tenant, id }, TIMEOUT).await.unwrap();
        assert!(matches!(waits.await.unwrap(), Kind::Granted(_)));
    };
    tokio::time::timeout(TIMEOUT, async { tokio::join!(cluster.stop(follower), meanwhile) }).await.unwrap();
}

/// Both budgets change together: no decision may see one of the old policy and one of the new.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_changes_under_load_loses_no_request_and_judges_none_by_half_a_policy() {
    const SUBJECTS: usize = 50;
    let policy = |tokens: u64| {
        let budget =
            |name| POLICY.replace("name: user", &format!("name: {name}")).replace("250", &tokens.to_string());
        format!("{}---\n{}", budget("first"), budget("second"))
    };
    let (old, new) = (Amount::from_units(100).unwrap(), Amount::from_units(310).unwrap());
    let cluster = Cluster::start(3).await;
    cluster.apply(&policy(100)).await;
    let clients: Vec<Client> = (0..3).map(|node| cluster.client_at(node)).collect();
    let amount = Amount::from_units(60).unwrap();
    let reserve = |number: usize| {
        let charge = |budget: &str| Charge {
            budget: budget.to_owned(),
            subject: format!("user-{}", number % SUBJECTS),
            amount,
            at_least: amount,
        };
        let client = &clients[number % 3];
        let (tenant, id) = ("acme".to_owned(), client.new_id());
        let charges = vec![charge("first"), charge("second")];
        let command = Command::Reserve { tenant, id, charges, ttl_ms: 60_000, wait: false };
        client.execute(command, TIMEOUT)
    };
    // A thousand in flight all the time: before, while and after the policy is applied.
    let mut outcomes = join_all((0..1_000).map(reserve)).await;
    let raised = policy(310);
    let (during, applied) = tokio::join!(join_all((0..1_000).map(reserve)), cluster.apply(&raised));
    assert_eq!(applied.version, 2);
    outcomes.extend(during);
    outcomes.extend(join_all((0..1_000).map(reserve)).await);
    let (mut granted, mut seen) = (0, [0; 2]);
    for outcome in outcomes {
        let limit = match outcome.unwrap().outcome {
            Outcome::Granted(grant) => {
                granted += 1;
                assert_eq!(grant.balances[0].limit, grant.balances[1].limit, "half a policy: {grant:?}");
                grant.balances[0].limit
            }
            Outcome::Denied(denial) => {
                let held = denial.account.reserved.checked_add(amount).unwrap();
                assert!(held > denial.account.limit, "there was room: {denial:?}");
                denial.account.limit
            }
            other => panic!("{other:?}"),
        };
        assert!(limit == old || limit == new, "a limit of no version: {limit}");
        seen[usize::from(limit == new)] += 1;
    }
    assert!(seen.iter().sum::<usize>() == 3_000 && seen.iter().all(|count| *count >= 1_000), "{seen:?}");
    // Five fit into each account in the end.
    assert_eq!(granted, 5 * SUBJECTS);
    let reserved: u64 = cluster
        .client()
        .admin()
        .list_accounts(ListAccountsRequest::default())
        .await
        .unwrap()
        .accounts
        .iter()
        .map(|account| account.reserved_micros / 1_000_000)
        .sum();
    assert_eq!(reserved, 2 * 60 * u64::try_from(granted).unwrap());
    let violations = clients[0]
        .admin()
        .check_invariants(quorate_rpc::admin::CheckInvariantsRequest {})
        .await
        .unwrap()
        .violations;
    assert_eq!(violations, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_compare_their_clocks() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client().admin();
    let compared = async {
        loop {
            let nodes = admin.list_nodes(ListNodesRequest {}).await.unwrap().nodes;
            // One machine, one clock.
            if nodes.len() == 3 && nodes.iter().all(|node| node.clock_offset_ms == Some(0) && !node.clock_off)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, compared).await.expect("all clocks are compared");
}
