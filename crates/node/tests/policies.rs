//! Policies, keys and what is known of gateways, through the admin service of three nodes.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fmt::Write as _;
use std::time::Duration;

use quorate_ledger::{Amount, Charge, Command, Outcome};
use quorate_rpc::admin::{
    AdjustAccountRequest, ApplyMode, ApplyPolicyRequest, ApplyPolicyResponse, CreateKeyRequest,
    ExplainRequestRequest, Header, ListAuditRequest, ListBudgetsRequest, ListGatewaysRequest,
    ListKeysRequest, ListObjectsRequest, ListPolicyVersionsRequest, ManifestFile, RevokeKeyRequest,
    RollbackPolicyRequest, adjust_account_request::Change,
};
use quorate_rpc::{Client, ClientError};
use quorate_testkit::Cluster;

const TIMEOUT: Duration = Duration::from_secs(20);

fn budget(name: &str, tokens: u64) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  subject: [{{header: x-user-id}}]\n  limit: {{tokens: {tokens}}}\n  window: Lifetime\n"
    )
}

async fn apply(client: &Client, request: ApplyPolicyRequest) -> Result<ApplyPolicyResponse, ClientError> {
    client.admin().acting_as("olga").apply_policy(request).await
}

fn files(texts: &[(&str, &str)]) -> ApplyPolicyRequest {
    let file =
        |(name, text): &(&str, &str)| ManifestFile { name: (*name).to_owned(), text: (*text).to_owned() };
    ApplyPolicyRequest { files: texts.iter().map(file).collect(), ..Default::default() }
}

fn actions(response: &ApplyPolicyResponse) -> Vec<(&str, &str)> {
    response.objects.iter().map(|object| (object.name.as_str(), object.action.as_str())).collect()
}

async fn limit_of(client: &Client, name: &str) -> Option<u64> {
    let listed = client.admin().list_budgets(ListBudgetsRequest::default()).await.unwrap();
    listed.budgets.iter().find(|budget| budget.name == name).map(|budget| budget.limit_micros / 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_merged_replaced_deleted_and_rolled_back_and_nothing_is_done_by_halves() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client_at(0);
    let both = files(&[("one.yaml", &budget("a", 100)), ("two.yaml", &budget("b", 200))]);
    let dry = apply(&client, ApplyPolicyRequest { dry_run: true, ..both.clone() }).await.unwrap();
    assert!(dry.changed && dry.version == 0 && limit_of(&client, "a").await.is_none());
    let first = apply(&client, both.clone()).await.unwrap();
    assert_eq!((first.version, actions(&first)), (1, vec![("a", "created"), ("b", "created")]));
    let again = apply(&cluster.client_at(1), both).await.unwrap();
    assert_eq!((again.version, again.changed), (1, false));
    // One wrong file of two: neither is taken, and both mistakes are told.
    let wrong =
        files(&[("good.yaml", &budget("a", 1)), ("bad.yaml", &budget("c", 1).replace("limit", "limt"))]);
    let error = apply(&client, wrong).await.unwrap_err();
    assert!(matches!(&error, ClientError::Rejected { code: tonic::Code::InvalidArgument, .. }), "{error:?}");
    assert!(error.to_string().contains("bad.yaml") && error.to_string().contains("limt"), "{error}");
    assert_eq!(limit_of(&client, "a").await, Some(100));
    // Merge, with the difference.
    let merged = ApplyPolicyRequest {
        diff: true,
        comment: "more for a".to_owned(),
        ..files(&[("a.yaml", &budget("a", 150))])
    };
    let merged = apply(&client, merged).await.unwrap();
    assert_eq!((merged.version, actions(&merged)), (2, vec![("a", "configured")]));
    assert!(merged.diff.contains("-") && merged.diff.contains("150"), "{}", merged.diff);
    let stale = ApplyPolicyRequest { expected_version: Some(1), ..files(&[("a.yaml", &budget("a", 1))]) };
    let error = apply(&client, stale).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { code: tonic::Code::Aborted, .. }), "{error:?}");
    // Replace and delete. An empty file is a mistake more often than the wish to be rid of every limit.
    let nothing =
        ApplyPolicyRequest { mode: ApplyMode::Replace.into(), ..files(&[("empty.yaml", "# nothing\n")]) };
    let error = apply(&client, nothing).await.unwrap_err().to_string();
    assert!(error.contains("would delete the whole policy"), "{error}");
    let replaced =
        ApplyPolicyRequest { mode: ApplyMode::Replace.into(), ..files(&[("c.yaml", &budget("c", 300))]) };
    let replaced = apply(&client, replaced).await.unwrap();
    assert_eq!(actions(&replaced), [("c", "created"), ("a", "deleted"), ("b", "deleted")]);
    let deleted = files(&[("c.yaml", &budget("c", 1)), ("x.yaml", &budget("x", 1))]);
    let deleted =
        apply(&client, ApplyPolicyRequest { mode: ApplyMode::Delete.into(), ..deleted }).await.unwrap();
    assert_eq!(actions(&deleted), [("c", "deleted"), ("x", "not found")]);
    let rolled = RollbackPolicyRequest { version: 2, ..Default::default() };
    let rolled = client.admin().acting_as("otto").rollback_policy(rolled).await.unwrap();
    assert_eq!((rolled.version, limit_of(&client, "a").await), (5, Some(150)));
    let history =
        client.admin().list_policy_versions(ListPolicyVersionsRequest::default()).await.unwrap().versions;
    let told: Vec<_> = history.iter().map(|version| (version.version, version.by.as_str())).collect();
    assert_eq!(told, [(5, "otto"), (4, "olga"), (3, "olga"), (2, "olga"), (1, "olga")]);
    assert_eq!(
        (history[3].comment.as_str(), history[0].comment.as_str()),
        ("more for a", "back to version 2")
    );
    let gone = RollbackPolicyRequest { version: 77, ..Default::default() };
    let error = client.admin().rollback_policy(gone).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { code: tonic::Code::NotFound, .. }), "{error:?}");
    let named = ListObjectsRequest { name: "a".to_owned(), ..Default::default() };
    let objects = client.admin().list_objects(named).await.unwrap().objects;
    assert!(
        objects.len() == 1 && objects[0].kind == "Budget" && objects[0].yaml.contains("150"),
        "{objects:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_larger_than_a_log_entry_goes_in_parts_and_survives_a_restart() {
    let mut cluster = Cluster::start(3).await;
    let mut text = String::new();
    for number in 0..1_500 {
        write!(text, "---\n{}", budget(&format!("budget-{number}"), 100 + number)).unwrap();
    }
    let applied = cluster.apply(&text).await;
    assert_eq!((applied.version, applied.objects.len()), (1, 1_500));
    let client = cluster.client();
    for node in 0..3 {
        cluster.restart(node).await;
    }
    assert_eq!(limit_of(&client, "budget-1499").await, Some(1_599));
    let changed = cluster.apply(&budget("budget-7", 1)).await;
    assert_eq!((changed.version, limit_of(&client, "budget-8").await), (2, Some(108)));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_those_who_watch_and_so_does_their_revocation() {
    let cluster = Cluster::start(3).await;
    let watcher = cluster.client();
    let watch = watcher.watch();
    let mut keys = watch.keys();
    let (key, text) = cluster.create_key("acme", "alice").await;
    assert!(key.hash.is_empty() && text.starts_with(&format!("qk_{}_", key.id)), "{key:?}");
    let known =
        tokio::time::timeout(TIMEOUT, keys.wait_for(|keys| !keys.is_empty())).await.unwrap().unwrap().clone();
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let record = &known[&key.id];
    assert_eq!((record.hash.as_slice(), record.user.as_str()), (hash.as_ref(), "alice"));
    let admin = watcher.admin().acting_as("olga");
    let revoked = admin.revoke_key(RevokeKeyRequest { id: key.id.clone() }).await.unwrap().key.unwrap();
    assert!(revoked.revoked_at_ms > 0);
    let within = Duration::from_secs(1);
    tokio::time::timeout(within, keys.wait_for(|keys| keys[&key.id].revoked_at.is_some()))
        .await
        .unwrap()
        .unwrap();
    let listed = admin.list_keys(ListKeysRequest::default()).await.unwrap().keys;
    assert!(listed.len() == 1 && listed[0].hash.is_empty() && listed[0].revoked_at_ms > 0, "{listed:?}");
    let unknown = admin.revoke_key(RevokeKeyRequest { id: "nobody".to_owned() }).await.unwrap_err();
    assert!(matches!(unknown, ClientError::Rejected { code: tonic::Code::NotFound, .. }), "{unknown:?}");
    let nameless = admin.create_key(CreateKeyRequest::default()).await.unwrap_err();
    assert!(matches!(nameless, ClientError::Rejected { code: tonic::Code::InvalidArgument, .. }));
    // One who comes later gets all of them at once.
    let late = cluster.client().watch();
    let mut keys = late.keys();
    tokio::time::timeout(TIMEOUT, keys.wait_for(|keys| keys.contains_key(&key.id))).await.unwrap().unwrap();
    // No key and no hash is in what operators read.
    let audit = admin.list_audit(ListAuditRequest::default()).await.unwrap().records;
    let told: Vec<_> = audit.iter().map(|record| record.by.as_str()).collect();
    assert_eq!(told, ["olga", "testkit"], "{audit:?}");
    assert!(!format!("{audit:?} {listed:?}").contains(&text[16..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn adjustments_stand_in_the_audit_log_with_who_made_them() {
    let cluster = Cluster::start(3).await;
    cluster.apply(&budget("a", 100)).await;
    // Through every node: who asked goes along to the leader.
    for node in 0..3 {
        let client = cluster.client_at(node);
        let request = AdjustAccountRequest {
            id: client.new_id().to_bytes().to_vec().into(),
            tenant: "acme".to_owned(),
            budget: "a".to_owned(),
            subject: "alice".to_owned(),
            change: Some(Change::TopUpMicros(5_000_000)),
        };
        let admin = client.admin().acting_as(&format!("node {node}"));
        assert_eq!(admin.adjust_account(request).await.unwrap().account.unwrap().budget, "a");
    }
    let audit = cluster.client().admin().list_audit(ListAuditRequest::default()).await.unwrap().records;
    let told: Vec<_> = audit.iter().map(|record| record.by.as_str()).collect();
    assert_eq!(told, ["node 2", "node 1", "node 0", "testkit"], "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_say_which_version_they_run() {
    let cluster = Cluster::start(3).await;
    cluster.apply(&budget("a", 100)).await;
    let watches: Vec<_> = (0..3).map(|node| cluster.client_at(node).watch()).collect();
    watches[0].report(1, "");
    watches[1].report(0, "line 3: too new");
    let seen = async {
        loop {
            let listed = cluster.client_at(2).admin().list_gateways(ListGatewaysRequest {}).await.unwrap();
            let told = |gateway: &quorate_rpc::admin::Gateway| {
                (gateway.node_id, gateway.policy_version, gateway.policy_error.clone())
            };
            let mut gateways: Vec<_> = listed.gateways.iter().map(told).collect();
            gateways.sort();
            let wanted = [(1, 1, String::new()), (2, 0, "line 3: too new".to_owned()), (3, 0, String::new())];
            if listed.policy_version == 1 && gateways == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained_by_what_is_in_force_and_what_is_spent() {
    let cluster = Cluster::start(3).await;
    cluster.apply(&budget("a", 2_000)).await;
    let client = cluster.client();
    let amount = Amount::from_units(900).unwrap();
    let charge = Charge { budget: "a".into(), subject: "alice".into(), amount, at_least: amount };
    let (tenant, id) = ("default".to_owned(), client.new_id());
    let reserve = Command::Reserve { tenant, id, charges: vec![charge], ttl_ms: 60_000, wait: false };
    assert!(matches!(client.execute(reserve, TIMEOUT).await.unwrap().outcome, Outcome::Granted(_)));
    let asked = |input_tokens, max_tokens| ExplainRequestRequest {
        model: "gpt-4o".to_owned(),
        headers: vec![Header { name: "X-User-Id".to_owned(), value: "alice".to_owned() }],
        input_tokens,
        max_tokens: Some(max_tokens),
        ..Default::default()
    };
    let fits = client.admin().explain_request(asked(1_000, 100)).await.unwrap();
    let told = |response: &quorate_rpc::admin::ExplainRequestResponse| {
        let budget = &response.budgets[0];
        (budget.subject.clone(), budget.would_reserve_micros / 1_000_000, budget.verdict.clone())
    };
    assert_eq!(told(&fits), ("alice".to_owned(), 1_100, "granted".to_owned()), "{fits:?}");
    assert_eq!((fits.tenant.as_str(), fits.budgets[0].reserved_micros), ("default", 900_000_000));
    let waits = client.admin().explain_request(asked(1_000, 500)).await.unwrap();
    assert_eq!(told(&waits).2, "denied (others hold what is left)");
    let never = client.admin().explain_request(asked(2_000, 500)).await.unwrap();
    assert_eq!(told(&never).2, "denied");
}

/// One number of output tokens goes upstream, so every budget is asked for the same: the smallest default of all.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_no_output_is_explained_as_a_gateway_decides_it() {
    let cluster = Cluster::start(1).await;
    let small = budget("small", 5_000).replace("window:", "output: {default: 100, floor: 50}\n  window:");
    cluster.apply(&format!("{}---\n{small}", budget("large", 9_000))).await;
    let asked = ExplainRequestRequest {
        model: "gpt-4o".to_owned(),
        headers: vec![Header { name: "x-user-id".to_owned(), value: "alice".to_owned() }],
        input_tokens: 1_000,
        ..Default::default()
    };
    let told = cluster.client().admin().explain_request(asked).await.unwrap();
    let reserved: Vec<u64> =
        told.budgets.iter().map(|budget| budget.would_reserve_micros / 1_000_000).collect();
    assert_eq!(reserved, [1_100, 1_100], "{told:?}");
    assert_eq!(told.user, "alice");
}

/// Which backend is tried when, and why: by its price here, and by a quota of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_backends_is_explained_with_its_reasons() {
    let cluster = Cluster::start(1).await;
    let route = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - routing: {strategy: Cheapest, sticky: {header: x-conversation-id}}
      backendRefs:
        - {name: house, modelNameOverride: house-1}
        - {name: large}
        - {name: twin}
        - {name: small, modelNameOverride: gpt-4o-mini}
        - {name: spare, priority: 1}
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: small-account}
spec:
  selector: {backends: [small]}
  limit: {tokens: 1000}
  window: {sliding: 60s}
";
    cluster.apply(&format!("{route}---\n{}", budget("a", 9_000))).await;
    let explain = async |max_tokens, conversation: &str| {
        let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
        let mut headers = vec![header("x-user-id", "alice")];
        if !conversation.is_empty() {
            headers.push(header("x-conversation-id", conversation));
        }
        let (model, max_tokens) = ("gpt-4o".to_owned(), Some(max_tokens));
        let asked =
            ExplainRequestRequest { model, headers, input_tokens: 900, max_tokens, ..Default::default() };
        cluster.client().admin().explain_request(asked).await.unwrap()
    };
    let order = |told: &quorate_rpc::admin::ExplainRequestResponse| {
        let line =
            |one: &quorate_rpc::admin::ExplainedBackend| format!("{} {} {}", one.rank, one.name, one.reason);
        told.backends.iter().map(line).collect::<Vec<_>>()
    };
    let told = explain(100, "").await;
    assert_eq!(told.routing, "Cheapest, sticky by header x-conversation-id");
    assert!(told.notes.iter().any(|note| note.starts_with("without header x-conversation-id")), "{told:?}");
    assert_eq!(
        order(&told),
        [
            "1 default/small costs up to $0.000195",
            "2 default/large costs up to $0.00325",
            "2 default/twin costs up to $0.00325",
            "3 default/house no known price: comes last",
            "4 default/spare costs up to $0.00325",
        ]
    );
    // More than the account has left of its thousand.
    let short = explain(101, "").await;
    assert_eq!(
        order(&short)[0],
        "1 default/small costs up to $0.000196; passed over: its budget small-account is short"
    );
    assert!(order(&short)[1..].iter().all(|line| !line.contains("short")), "{short:?}");
    let report = quorate_ledger::ProviderReport {
        backend: "default/large".to_owned(),
        model: "gpt-4o".to_owned(),
        reporter: "g1".to_owned(),
        reason: "status 429".to_owned(),
        signal: Some(quorate_ledger::ProviderSignal::Limited { retry_after_ms: 3_600_000 }),
        ..Default::default()
    };
    cluster.client().execute(Command::ReportProvider(report), TIMEOUT).await.unwrap();
    let rests = order(&explain(100, "").await);
    let why =
        |line: &String| line.contains("passed over: rests for 3") && line.contains("(limited: status 429)");
    assert!(rests.iter().all(|line| why(line) == line.contains("default/large")), "{rests:?}");
    // With the header, the draw is known: the same each time, and not the same for all.
    let mut seconds = Vec::new();
    for conversation in 0..24 {
        let told = explain(100, &conversation.to_string()).await;
        seconds.push(told.backends[1].name.clone());
    }
    assert!(
        seconds.iter().any(|name| name.ends_with("large"))
            && seconds.iter().any(|name| name.ends_with("twin"))
    );
}

/// Whoever it is, the subjects are those that a gateway would charge.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained_as_who_a_gateway_would_take_it_for() {
    let cluster = Cluster::start(3).await;
    let subject = |name: &str, parts: &str| budget(name, 1_000).replace("[{header: x-user-id}]", parts);
    let policy = [
        subject("a-header", "[{header: x-user-id}]"),
        subject("b-user", "[user, team]"),
        subject("c-tenant", "[{header: x-tenant-id}]"),
        subject("d-key", "[key]"),
    ];
    cluster.apply(&policy.join("---\n")).await;
    let client = cluster.client();
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
    let request = CreateKeyRequest {
        tenant: "acme".to_owned(),
        user: "alice".to_owned(),
        models: vec!["gpt-4o".to_owned()],
        ..Default::default()
    };
    let id = client.admin().create_key(request).await.unwrap().key.unwrap().id;
    for (request, subjects) in [
        (ExplainRequestRequest::default(), ["", " + ", "default", ""]),
        (
            ExplainRequestRequest { user: "alice".to_owned(), ..Default::default() },
            ["alice", "alice + ", "default", ""],
        ),
        (
            ExplainRequestRequest {
                headers: vec![
                    header("X-User-Id", "bob"),
                    header("x-team-id", "red"),
                    header("x-tenant-id", "t"),
                ],
                ..Default::default()
            },
            ["bob", "bob + red", "t", ""],
        ),
        (
            ExplainRequestRequest { key: id.clone(), ..Default::default() },
            ["alice", "alice + ", "acme", id.as_str()],
        ),
    ] {
        let request = ExplainRequestRequest { model: "gpt-4o".to_owned(), ..request };
        let explained = client.admin().explain_request(request).await.unwrap();
        let told: Vec<&str> = explained.budgets.iter().map(|budget| budget.subject.as_str()).collect();
        assert_eq!(told, subjects);
    }
    let with_key = |key: &str| ExplainRequestRequest {
        model: "o3".to_owned(),
        key: key.to_owned(),
        ..Default::default()
    };
    let notes = client.admin().explain_request(with_key(&id)).await.unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("may not ask for o3")), "{notes:?}");
    let error = client.admin().explain_request(with_key("nobody")).await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}
