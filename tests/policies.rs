//! The manifests people already have, applied to a running cluster with the command line, and what they promise seen
//! over HTTP. Only their windows are longer than they say: none ends while it is looked at.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

#[path = "support/shared.rs"]
mod shared;
mod support;

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::shared;
use support::{Answer, Deployment};

/// A policy that limits nothing: what is tested is applied on top.
const EMPTY: &str = "apiVersion: quorate.dev/v1alpha1
kind: ModelPrice
metadata: {name: house-model}
spec: {models: [house-1], input: 1, output: 2}
";

/// What is reserved is a little more than 100: while all are under way, a few less than 400 fit into 40,000.
const SLACK: u64 = 5;

fn given(name: &str) -> Option<PathBuf> {
    shared(&format!("manifests/{name}"))
}

fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// A request whose usage the simulated provider is told.
fn request(model: &str, max_tokens: u64, input: u64, output: u64) -> Value {
    json!({
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Hi"}],
        "metadata": {"mock_input_tokens": input.to_string(), "mock_tokens": output.to_string()},
    })
}

impl Deployment {
    async fn without_limits() -> Self {
        Self::start(EMPTY).await
    }

    /// A copy of manifests whose windows end with the year. An hour or a day may be over at any time.
    fn for_a_year(&self, file: &Path) -> String {
        let mut text = std::fs::read_to_string(file).unwrap();
        for short in ["unit: Hour", "unit: Day", "window: Hour", "window: Day"] {
            let (key, _) = short.split_once(' ').unwrap();
            text = text.replace(short, &format!("{key} Year"));
        }
        let copy = self.folder.path().join(file.file_name().unwrap());
        std::fs::write(&copy, text).unwrap();
        copy.to_str().unwrap().to_owned()
    }

    async fn with_manifests(names: &[&str]) -> Option<Self> {
        let paths: Vec<PathBuf> = names.iter().map(|name| given(name)).collect::<Option<_>>()?;
        let deployment = Self::without_limits().await;
        for path in paths {
            let output = deployment.quorate(&["apply", "-f", &deployment.for_a_year(&path)]).unwrap();
            assert!(output.contains(" created") || output.contains(" configured"), "{output}");
        }
        deployment.all_gateways_run_the_policy_in_force().await;
        Some(deployment)
    }

    async fn asks(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.chat_with(0, headers, body).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_for_each_user() {
    let Some(deployment) = Deployment::with_manifests(&["01-request-cost.yaml", "02-per-user.yaml"]).await
    else {
        return;
    };
    let body = request("gpt-4o", 60_000, 10, 59_990);
    assert_eq!(deployment.asks(&[("x-user-id", "alice")], &body).await.status, 200);
    let denied = deployment.asks(&[("x-user-id", "alice")], &body).await;
    assert_eq!(denied.status, 429);
    assert_eq!(denied.headers["x-ratelimit-remaining"], "40000");
    assert!(denied.headers["x-ratelimit-limit"].to_str().unwrap().starts_with("100000, 100000;w=31536000"));
    assert_eq!(deployment.asks(&[("x-user-id", "bob")], &body).await.status, 200);
    // Whoever leaves the header out shares one account with all others who do.
    assert_eq!(deployment.asks(&[], &body).await.status, 200);
    assert_eq!(deployment.asks(&[], &body).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_two_models_side_by_side() {
    let Some(deployment) = Deployment::with_manifests(&["03-per-model.yaml"]).await else { return };
    let alice = [("x-user-id", "alice")];
    for (model, tokens) in [("gpt-4o", 30_000), ("gpt-4o-mini", 300_000)] {
        let body = request(model, tokens, 10, tokens - 10);
        assert_eq!(deployment.asks(&alice, &body).await.status, 200, "{model}");
        assert_eq!(deployment.asks(&alice, &body).await.status, 429, "{model}");
    }
    // A model without a limit.
    let free = request("o3-mini", 900_000, 10, 10);
    assert_eq!(deployment.asks(&alice, &free).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_teams() {
    let Some(deployment) = Deployment::with_manifests(&["06-team-budgets.yaml"]).await else { return };
    // The provider says it used more than anybody asked for: charged all the same.
    let large = request("gpt-4o", 100, 2_000_000, 10);
    let small = request("gpt-4o", 100, 10, 10);
    assert_eq!(deployment.asks(&[("x-team-id", "marketing")], &large).await.status, 200);
    assert_eq!(deployment.asks(&[("x-team-id", "marketing")], &small).await.status, 429);
    assert_eq!(deployment.asks(&[("x-team-id", "engineering")], &large).await.status, 200);
    assert_eq!(deployment.asks(&[("x-team-id", "engineering")], &small).await.status, 200);
    assert_eq!(deployment.asks(&[("x-team-id", "research")], &small).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_backend_serves_when_the_first_fails() {
    let names = ["04-fallback-route.yaml", "05-backends.yaml"];
    let Some(mut deployment) = Deployment::with_manifests(&names).await else { return };
    let failing = deployment.start_provider(&["--error-percent", "100"]).await;
    let backends = [("openai-backend", failing), ("anthropic-backend", deployment.provider_address.clone())];
    deployment.start_gateway_to(&backends).await;
    let gateway = deployment.gateways.len() - 1;
    let answer = deployment.chat_with(gateway, &[], &request("gpt-4o", 90, 10, 90)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-ai-provider"], "anthropic-backend");
    assert_eq!(answer.headers["x-quorate-attempts"], "2");
    // The route knows one model only.
    let other = deployment.chat_with(gateway, &[], &request("gpt-9", 90, 10, 90)).await.unwrap();
    assert_eq!(other.status, 404);
}

/// The same promises in the official dialect, in one file.
#[tokio::test(flavor = "multi_thread")]
async fn the_official_dialect_promises_the_same() {
    let mut deployment = Deployment::without_limits().await;
    let file = deployment.for_a_year(&ours("crates/policy/tests/official/tutorial-equivalent.yaml"));
    deployment.quorate(&["apply", "-f", &file]).unwrap();
    let served = deployment.provider_address.clone();
    let failing = deployment.start_provider(&["--limited-percent", "100"]).await;
    deployment.start_gateway_to(&[("openai", served.clone()), ("anthropic", served.clone())]).await;
    deployment.start_gateway_to(&[("openai", failing), ("anthropic", served)]).await;
    deployment.all_gateways_run_the_policy_in_force().await;
    let ask = async |gateway: usize, headers: &[(&str, &str)], body: &Value| {
        deployment.chat_with(gateway, headers, body).await.unwrap()
    };
    let [works, falls_back] = [2, 3];

    // For each user, and on gpt-4o half of it.
    let alice = [("x-user-id", "alice")];
    let large = request("gpt-4o", 40_000, 10, 39_990);
    assert_eq!(ask(works, &alice, &large).await.status, 200);
    let denied = ask(works, &alice, &large).await;
    let message = String::from_utf8_lossy(&denied.body).into_owned();
    assert!(
        denied.status == 429 && message.contains("/gpt-4o") && message.contains("10000 of 50000"),
        "{message}"
    );
    let mini = request("gpt-4o-mini", 40_000, 10, 39_990);
    assert_eq!(ask(works, &alice, &mini).await.status, 200);
    assert_eq!(ask(works, &alice, &mini).await.status, 429, "80,000 of 100,000 are spent");

    let marketing = [("x-user-id", "mike"), ("x-team-id", "marketing")];
    assert_eq!(ask(works, &marketing, &request("gpt-4o-mini", 100, 2_000_000, 10)).await.status, 200);
    let another = [("x-user-id", "nina"), ("x-team-id", "marketing")];
    assert_eq!(ask(works, &another, &request("gpt-4o-mini", 100, 10, 10)).await.status, 429);

    // 429 of the first backend moves a request on, where the route has a second.
    let small = request("gpt-4o", 100, 10, 10);
    let answer = ask(falls_back, &[("x-user-id", "bob")], &small).await;
    assert_eq!((answer.status, answer.headers["x-ai-provider"].to_str().unwrap()), (200, "anthropic"));
    let only = ask(falls_back, &[("x-user-id", "bob")], &request("gpt-4o-mini", 100, 10, 10)).await;
    assert_eq!(only.status, 429);
    assert_eq!(ask(works, &alice, &request("gpt-9", 100, 10, 10)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_in_cel() {
    let Some(costs) = given("01-request-cost.yaml") else { return };
    let deployment = Deployment::without_limits().await;
    let policy = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: cents, namespace: ai-services}
spec:
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
          limit: {requests: 1000, unit: Year}
          cost:
            request: {from: Number, number: 0}
            response: {from: Metadata, metadata: {namespace: io.envoy.ai_gateway, key: llm_cost_cents}}
";
    let file = deployment.folder.path().join("cents.yaml");
    std::fs::write(&file, policy).unwrap();
    let files = ["apply", "-f", costs.to_str().unwrap(), "-f", file.to_str().unwrap()];
    deployment.quorate(&files).unwrap();
    deployment.all_gateways_run_the_policy_in_force().await;
    // 1,000 × 0.25 + 500 × 1.0
    let body = request("gpt-4o", 500, 1_000, 500);
    assert_eq!(deployment.asks(&[("x-user-id", "alice")], &body).await.status, 200);
    let accounts: Value =
        serde_json::from_str(&deployment.quorate(&["get", "accounts", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(accounts["accounts"][0]["spent_micros"], 750_000_000);
    let denied = deployment.asks(&[("x-user-id", "alice")], &body).await;
    assert_eq!(denied.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_come_and_go_as_a_whole() {
    let deployment = Deployment::without_limits().await;
    let folder = deployment.folder.path();
    let budget = |name: &str, tokens: u64| {
        format!(
            "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  subject: [{{header: x-user-id}}]\n  limit: {{tokens: {tokens}}}\n  window: Lifetime\n"
        )
    };
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [a, b] = [write("a.yaml", &budget("a", 250)), write("b.yaml", &budget("b", 1_000))];
    let created = deployment.quorate(&["apply", "-f", &a, "-f", &b, "--comment", "first"]).unwrap();
    assert!(created.contains("a created") && created.contains("b created"), "{created}");
    let again = deployment.quorate(&["apply", "-f", &a]).unwrap();
    assert!(again.contains("a unchanged") && again.contains("nothing changed"), "{again}");

    // One mistake in one document: nothing of it is taken.
    let broken = write(
        "broken.yaml",
        &format!("{}---\n{}", budget("a", 300), budget("c", 5).replace("limit", "limt")),
    );
    let refused = deployment.quorate(&["apply", "-f", &broken]).unwrap_err();
    for word in ["broken.yaml", "line ", "limt", "limit"] {
        assert!(refused.contains(word), "{word:?} is missing in {refused}");
    }
    let budgets = deployment.quorate(&["get", "budgets"]).unwrap();
    assert!(budgets.contains("250") && !budgets.contains("300"), "{budgets}");

    // Nor one that only shows where objects meet, which the cluster finds: it has its file and line all the same.
    let key = "llm_totl_token";
    let unknown_key = format!(
        "# one line\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {{name: limits}}\nspec: {{rateLimit: {{global: {{rules: [{{limit: {{requests: 9, unit: Day}}, cost: {{response: {{from: Metadata, metadata: {{namespace: io.envoy.ai_gateway, key: {key}}}}}}}}}]}}}}}}\n"
    );
    let unknown_key = write("unknown-key.yaml", &unknown_key);
    for command in ["apply", "diff"] {
        let refused = deployment.quorate(&[command, "-f", &b, "-f", &unknown_key]).unwrap_err();
        for word in ["unknown-key.yaml, from line 2", "rules[0].cost.response.metadata.key", key] {
            assert!(refused.contains(word), "{word:?} is missing in {refused}");
        }
    }

    // Nor does an empty file wipe out the policy.
    let empty = write("empty.yaml", "# nothing\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n");
    let refused = deployment.quorate(&["apply", "--replace", "-f", &empty]).unwrap_err();
    assert!(refused.contains("no object") && refused.contains("Service s is passed over"), "{refused}");

    let more = write("more.yaml", &budget("a", 300));
    let diff = deployment.quorate(&["diff", "-f", &more]).unwrap();
    assert!(diff.contains("-") && diff.contains("250") && diff.contains("300"), "{diff}");
    deployment.quorate(&["apply", "-f", &more, "--dry-run"]).unwrap();
    deployment.quorate(&["apply", "-f", &more, "--comment", "more for a"]).unwrap();
    let history = deployment.quorate(&["history", "policies"]).unwrap();
    assert!(history.contains("more for a") && history.contains("first"), "{history}");
    let deleted = deployment.quorate(&["delete", "-f", &b]).unwrap();
    assert!(deleted.contains("b deleted"), "{deleted}");
    assert!(!deployment.quorate(&["get", "policies"]).unwrap().contains(" b "));

    let versions: Value =
        serde_json::from_str(&deployment.quorate(&["history", "policies", "-o", "json"]).unwrap()).unwrap();
    let first = versions["versions"].as_array().unwrap().iter().find(|v| v["comment"] == "first").unwrap();
    deployment.quorate(&["rollback", &first["version"].to_string()]).unwrap();
    let budgets = deployment.quorate(&["get", "budgets"]).unwrap();
    assert!(budgets.contains("250") && budgets.contains("1,000"), "{budgets}");
    let audit = deployment.quorate(&["history", "audit"]).unwrap();
    assert!(audit.contains("policy"), "{audit}");
}

/// What was spent stays spent, whatever becomes of the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_keeps_what_was_spent() {
    let deployment = Deployment::start(&support::policy(250, "Lifetime")).await;
    let body = support::request_of_100(false);
    let status = async || deployment.chat(0, "alice", &body).await.unwrap().status;
    assert_eq!((status().await, status().await, status().await), (200, 200, 429));
    let set_limit = async |tokens: u64| {
        let path = deployment.folder.path().join("limit.yaml");
        std::fs::write(&path, support::policy(tokens, "Lifetime")).unwrap();
        deployment.quorate(&["apply", "-f", path.to_str().unwrap()]).unwrap();
        deployment.all_gateways_run_the_policy_in_force().await;
    };
    set_limit(350).await;
    assert_eq!((status().await, status().await), (200, 429));
    set_limit(100).await;
    assert_eq!(status().await, 429);
    let account = deployment.account(0, "user", "alice", Default::default()).await.unwrap();
    assert_eq!((account.limit_micros, account.spent_micros), (100_000_000, 300_000_000));
}

/// A thousand requests are under way while the limit is raised: each is answered, and by one of the two limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_changes_under_a_thousand_requests() {
    let deployment = Deployment::start(&support::policy(40_000, "Lifetime")).await;
    let mut body = support::request_of_100(false);
    body["metadata"]["mock_latency_ms"] = "1000".into();
    let asks =
        async |number: usize| deployment.chat(number % 2, "alice", &body).await.map(|answer| answer.status);
    let requests = join_all((0..1_000).map(asks));
    let raise = async {
        let some = async || deployment.account(0, "user", "alice", Default::default()).await.is_some();
        deployment.until(some).await;
        let path = deployment.folder.path().join("raised.yaml");
        std::fs::write(&path, support::policy(70_000, "Lifetime")).unwrap();
        let arguments = ["apply", "-f", path.to_str().unwrap()];
        tokio::task::block_in_place(|| deployment.quorate(&arguments)).unwrap();
    };
    let (answers, ()) = tokio::join!(requests, raise);
    let count = |status: u16| answers.iter().filter(|answer| **answer == Some(status)).count() as u64;
    let (served, denied) = (count(200), count(429));
    assert_eq!(served + denied, 1_000, "{answers:?}");
    assert!((400 - SLACK..=700).contains(&served), "{served} were served");
    let account = deployment.account(0, "user", "alice", Default::default()).await.unwrap();
    assert_eq!((account.spent_micros, account.reserved_micros), (served * 100_000_000, 0));
    assert_eq!(deployment.served().await, served * 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_its_user_until_it_is_revoked() {
    let deployment = Deployment::start(&support::policy(250, "Lifetime")).await;
    let made = deployment.quorate(&["keys", "create", "--tenant", "acme", "--user", "alice"]).unwrap();
    let key = made.lines().find(|line| line.starts_with("qk_")).unwrap().trim().to_owned();
    let bearer = format!("Bearer {key}");
    let body = support::request_of_100(false);
    let with_key = async |more: &[(&str, &str)]| {
        let headers = [&[("authorization", bearer.as_str())], more].concat();
        deployment.chat_with(0, &headers, &body).await.unwrap().status
    };
    deployment.until(async || with_key(&[]).await == 200).await;
    assert_eq!(with_key(&[("x-user-id", "alice")]).await, 200);
    assert_eq!(with_key(&[]).await, 429, "the key's user has one account, however it is named");
    assert_eq!(with_key(&[("x-user-id", "bob")]).await, 403, "somebody else's name");
    deployment.quorate(&["keys", "revoke", &key]).unwrap();
    deployment.until(async || with_key(&[]).await == 401).await;
    let listed = deployment.quorate(&["keys", "list"]).unwrap();
    assert!(listed.contains("alice") && !listed.contains(&key), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_request_would_meet() {
    let names = ["03-per-model.yaml", "04-fallback-route.yaml", "05-backends.yaml"];
    let Some(deployment) = Deployment::with_manifests(&names).await else { return };
    let asked =
        ["explain", "request", "--model", "gpt-4o", "--header", "x-user-id=alice", "--max-tokens", "500"];
    let text = deployment.quorate(&asked).unwrap();
    for word in [
        "ai-services/llm-with-fallback",
        "openai-backend",
        "anthropic-backend",
        "alice",
        "50,000",
        "1,500",
        "granted",
    ] {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
    assert!(text.find("openai-backend").unwrap() < text.find("anthropic-backend").unwrap());
    assert!(text.lines().any(|line| line.split_whitespace().eq(["user", "alice"])), "{text}");
}

/// The example that docs/examples.md explains.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_priorities() {
    let mut deployment = Deployment::without_limits().await;
    let folder = std::fs::read_dir(ours("deploy/examples/priority-routing")).unwrap();
    let files: Vec<String> = folder.map(|file| deployment.for_a_year(&file.unwrap().path())).collect();
    let flags = files.iter().flat_map(|file| ["-f", file]);
    deployment.quorate(&["apply"].into_iter().chain(flags).collect::<Vec<_>>()).unwrap();
    let served = deployment.provider_address.clone();
    let failing = deployment.start_provider(&["--error-percent", "100"]).await;
    deployment.start_gateway_to(&[("openai", served.clone()), ("anthropic", served.clone())]).await;
    deployment.start_gateway_to(&[("openai", failing), ("anthropic", served)]).await;
    deployment.all_gateways_run_the_policy_in_force().await;
    let [works, falls_back] = [2, 3];
    let ask = async |gateway: usize, headers: &[(&str, &str)], input: u64, output: u64| {
        // Whatever model the client names: the route decides.
        let body = request("auto", output, input, output);
        let answer = deployment.chat_with(gateway, headers, &body).await.unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body)
    };
    let alice_high = [("x-user-id", "alice"), ("priority", "high")];
    let alice = [("x-user-id", "alice")];

    let (status, body) = ask(works, &alice_high, 1_000, 59_000).await;
    assert_eq!((status, &body["model"]), (200, &json!("gpt-4o")));
    let (status, body) = ask(works, &alice_high, 1_000, 59_000).await;
    assert_eq!(status, 429);
    assert!(body["error"]["message"].as_str().unwrap().contains("llm/gpt-4o-per-user"), "{body}");

    let (status, body) = ask(works, &alice, 1_000, 299_000).await;
    assert_eq!((status, &body["model"]), (200, &json!("gpt-4o-mini")));
    let (status, body) = ask(works, &alice, 1_000, 299_000).await;
    assert_eq!(status, 429);
    assert!(body["error"]["message"].as_str().unwrap().contains("llm/gpt-4o-mini-per-user"), "{body}");

    // 1,000 × $2.50 + 59,000 × $10 and 1,000 × $0.15 + 299,000 × $0.60, each per million tokens.
    let everyone = deployment.account(0, "llm/all-users", "", Default::default()).await.unwrap();
    assert_eq!(everyone.spent_micros, 2_500 + 590_000 + 150 + 179_400);

    let bob_high = [("x-user-id", "bob"), ("priority", "high")];
    let (status, body) = ask(falls_back, &bob_high, 10, 100).await;
    assert_eq!((status, &body["model"]), (200, &json!("claude-sonnet-4-5")));
    let (status, body) = ask(falls_back, &[("x-user-id", "bob")], 10, 100).await;
    assert_eq!((status, &body["model"]), (200, &json!("claude-haiku-4-5")));

    // The provider says it read 50,000,000 tokens: $125. After that nobody is served.
    assert_eq!(ask(works, &[("x-user-id", "carol"), ("priority", "high")], 50_000_000, 10).await.0, 200);
    let (status, body) = ask(works, &[("x-user-id", "dan")], 10, 100).await;
    assert_eq!(status, 429);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("llm/all-users") && message.contains("$100"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_manifests_name_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("typo.yaml");
    std::fs::write(&file, "apiVersion: quorate.dev/v1alpha1\nkind: Budjet\nmetadata: {name: a}\nspec: {}\n")
        .unwrap();
    let (code, output) =
        support::Process::start(folder.path(), "validate", &["validate", "-f", file.to_str().unwrap()])
            .wait();
    assert_eq!(code, Some(1), "{output}");
    for word in ["typo.yaml", "Budjet", "Budget"] {
        assert!(output.contains(word), "{word:?} is missing in {output}");
    }
}

/// What a command is for, and its examples.
#[tokio::test]
async fn help_is_more_than_a_list_of_flags() {
    let folder = tempfile::tempdir().unwrap();
    for (command, word) in [
        ("apply", "--dry-run"),
        ("apply", "--replace --comment"),
        ("explain", "--header x-user-id=alice"),
        ("mock-provider", "mock_input_tokens"),
        ("rollback", "as a new version"),
    ] {
        let (code, output) = support::Process::start(folder.path(), command, &[command, "--help"]).wait();
        assert!(code == Some(0) && output.contains(word), "{word:?} is missing in {output}");
    }
}
