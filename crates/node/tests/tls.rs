//! Three nodes in one process that speak TLS: who may do what, what the audit log says, and certificates that change.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_ledger::{Amount, Charge, Command, Outcome};
use quorate_rpc::admin::{
    AdjustAccountRequest, ApplyPolicyRequest, ListAccountsRequest, ListAuditRequest, ListGatewaysRequest,
    ListNodesRequest, adjust_account_request::Change,
};
use quorate_rpc::raft::{IdentifyRequest, raft_client::RaftClient};
use quorate_rpc::tls::{Names, Role, Security, TlsFiles};
use quorate_rpc::{Client, ClientError};
use quorate_testkit::{Certificates, Cluster};
use tonic::Code;

const POLICY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: user}\nspec:\n  subject: [{header: x-user-id}]\n  limit: {tokens: 1000000}\n  window: Lifetime\n";
const TIMEOUT: Duration = Duration::from_secs(20);
/// Far more than what is waited for takes.
const WELL_WITHIN: Duration = Duration::from_secs(60);

async fn secured() -> (Cluster, Arc<Certificates>) {
    let certificates = Arc::new(Certificates::new());
    let cluster = Cluster::start_secured(3, certificates.clone()).await;
    cluster.apply(POLICY).await;
    (cluster, certificates)
}

async fn reserve(client: &Client) -> Result<Outcome, ClientError> {
    let amount = Amount::from_units(1).unwrap();
    let charge = Charge { budget: "user".into(), subject: "alice".into(), amount, at_least: amount };
    let id = client.new_id();
    let command =
        Command::Reserve { tenant: "acme".into(), id, charges: vec![charge], ttl_ms: 60_000, wait: false };
    Ok(client.execute(command, TIMEOUT).await?.outcome)
}

fn top_up(client: &Client) -> AdjustAccountRequest {
    AdjustAccountRequest {
        tenant: "acme".into(),
        id: client.new_id().as_u128().to_be_bytes().to_vec().into(),
        budget: "user".into(),
        subject: "alice".into(),
        change: Some(Change::TopUpMicros(1_000_000)),
    }
}

fn apply() -> ApplyPolicyRequest {
    ApplyPolicyRequest { document: POLICY.replace("1000000", "2000000"), ..Default::default() }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Rejected { code: Code::PermissionDenied, message }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_through_every_node() {
    let (cluster, certificates) = secured().await;
    let gateway = certificates.security("g1", Role::Gateway);
    let watching = cluster.client_as(gateway.clone());
    let watch = watching.watch();
    watch.synced().wait_for(|synced| *synced).await.unwrap();
    for node in 0..3 {
        let outcome = reserve(&cluster.client_at_as(node, gateway.clone())).await.unwrap();
        assert!(matches!(outcome, Outcome::Granted(_)), "{outcome:?}");
        let admin = cluster.client_at(node).admin();
        let nodes = admin.list_nodes(ListNodesRequest {}).await.unwrap().nodes;
        assert!(nodes.iter().all(|node| node.role != "unreachable"), "{nodes:?}");
        let gateways = admin.list_gateways(ListGatewaysRequest {}).await.unwrap().gateways;
        assert!(gateways[0].address.starts_with("127.0.0.1:"), "{gateways:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_own_and_no_more() {
    let (cluster, certificates) = secured().await;
    let client = |name: &str, role| cluster.client_as(certificates.security(name, role));
    let gateway = client("g1", Role::Gateway);
    assert!(matches!(reserve(&gateway).await.unwrap(), Outcome::Granted(_)));
    let said = refused(gateway.admin().apply_policy(apply()).await);
    assert!(said.starts_with("g1 (gateway) may not call quorate.admin.v1.Admin/ApplyPolicy"), "{said}");
    assert!(said.contains("O=quorate:admin"), "{said}");
    refused(gateway.admin().list_accounts(ListAccountsRequest::default()).await);

    let read = client("bob", Role::Read);
    assert_eq!(read.admin().list_accounts(ListAccountsRequest::default()).await.unwrap().accounts.len(), 1);
    refused(read.admin().adjust_account(top_up(&read)).await);

    let operate = client("carol", Role::Operate);
    operate.admin().adjust_account(top_up(&operate)).await.unwrap();
    refused(operate.admin().apply_policy(apply()).await);

    client("alice", Role::Admin).admin().apply_policy(apply()).await.unwrap();
    for (name, role) in [("g1", Role::Gateway), ("alice", Role::Admin)] {
        let channel = quorate_rpc::channel(&cluster.addresses()[0], &certificates.security(name, role));
        let request = IdentifyRequest { cluster: "testkit".into(), from_node: 2 };
        let status = RaftClient::new(channel.unwrap()).identify(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_made_a_change_is_who_the_certificate_names() {
    let (cluster, certificates) = secured().await;
    let carol = certificates.security("carol", Role::Operate);
    // One of these leads, two pass it on.
    for node in 0..3 {
        let client = cluster.client_at_as(node, carol.clone());
        client.admin().adjust_account(top_up(&client)).await.unwrap();
        client.admin().acting_as("ci job 7").adjust_account(top_up(&client)).await.unwrap();
    }
    let records = cluster.client().admin().list_audit(ListAuditRequest::default()).await.unwrap().records;
    let by: Vec<&str> =
        records.iter().filter(|one| one.action == "adjust account").map(|one| one.by.as_str()).collect();
    assert_eq!(by.len(), 6, "{records:?}");
    assert_eq!(by.iter().filter(|by| **by == "carol").count(), 3, "{by:?}");
    assert_eq!(by.iter().filter(|by| **by == "carol (as ci job 7)").count(), 3, "{by:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_plaintext_are_refused_with_a_reason() {
    let (cluster, certificates) = secured().await;
    let ask = async |security: Security| {
        cluster.client_as(security).admin().list_nodes(ListNodesRequest {}).await.unwrap_err().to_string()
    };
    let said = ask(Security::Plain).await;
    assert!(said.contains("the node speaks TLS; give --tls-ca"), "{said}");
    let stranger = Certificates::new();
    let said = ask(stranger.security("alice", Role::Admin)).await;
    assert!(said.contains("from no authority of ours"), "{said}");
    // One who believes the nodes, but whom they do not know.
    let mut files = stranger.files("alice", Role::Admin);
    files.ca_file = certificates.files("root", Role::Admin).ca_file;
    let said = ask(Security::mutual(files.named(Names::TLS)).unwrap()).await;
    assert!(said.contains("refused our certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_takes_over_while_operations_run() {
    let (cluster, certificates) = secured().await;
    let g1 = certificates.files("g1", Role::Gateway);
    let current = || Security::mutual(g1.named(Names::TLS)).unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let addresses = cluster.addresses().to_vec();
    let work = {
        let (stop, done, security) = (stop.clone(), done.clone(), current());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // Each with a connection of its own.
                let client = Client::connect(quorate_rpc::ClientConfig {
                    name: "g1".into(),
                    nodes: addresses.clone(),
                    operation_timeout_ms: 5_000,
                    security: security.clone(),
                });
                assert!(matches!(reserve(&client).await.unwrap(), Outcome::Granted(_)));
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let reached = async |count| {
        let reached = async {
            while done.load(Ordering::Relaxed) < count && !work.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WELL_WITHIN, reached).await.expect("operations go on");
    };
    let sees = |index: usize, security: Security| {
        let channel = quorate_rpc::channel(&cluster.addresses()[index], &security).unwrap();
        async move {
            let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
            client.check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok()
        }
    };
    let until = async |wanted: bool, security: &dyn Fn() -> Security| {
        for index in 0..3 {
            let taken_up = async {
                while sees(index, security()).await != wanted {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(WELL_WITHIN, taken_up).await.expect("a node that takes up new files");
        }
    };
    reached(3).await;
    certificates.add_authority();
    // A certificate of the old authority, of one who believes both.
    let kept = tempfile::tempdir().unwrap();
    let keep = |file: &Path| {
        let copy = kept.path().join(file.file_name().unwrap());
        std::fs::copy(file, &copy).unwrap();
        copy
    };
    let old =
        TlsFiles { ca_file: keep(&g1.ca_file), cert_file: keep(&g1.cert_file), key_file: keep(&g1.key_file) };
    let old = || Security::mutual(old.named(Names::TLS)).unwrap();
    until(true, &old).await;
    certificates.issue_again();
    until(true, &current).await;
    certificates.drop_old_authorities();
    until(false, &old).await;
    until(true, &current).await;
    let before = done.load(Ordering::Relaxed);
    reached(before + 5).await;
    stop.store(true, Ordering::Relaxed);
    work.await.unwrap();
}
