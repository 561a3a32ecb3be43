//! Quotas of providers, kept by a whole fleet: three nodes, gateways that each see a part of the traffic, and providers
//! that keep their own record of what they served.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::Deployment;

/// The first backend's account has 1,000 tokens in ten minutes, the second's 2,000 in an hour: all of the test.
const POLICY: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs: [{name: first, priority: 0}, {name: second, priority: 1}]
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: first-account}
spec:
  selector: {backends: [first]}
  limit: {tokens: 1000}
  window: {sliding: 600s}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: QuotaPolicy
metadata: {name: second-account}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: second}]
  serviceQuota:
    quota: {limit: 2000, duration: 1h}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: second}
spec: {schema: {name: OpenAI}, backendRef: {name: second, kind: Backend, group: gateway.envoyproxy.io}}
";

/// 11 tokens in, which is also the most that this prompt can have, and 89 out: what is held is what is used.
fn request_of_100() -> Value {
    json!({
        "model": "gpt-4o",
        "max_tokens": 89,
        "messages": [{"role": "user", "content": "Hello there!"}],
        "metadata": {"mock_input_tokens": "11", "mock_tokens": "89", "mock_latency_ms": "50"},
    })
}

impl Deployment {
    /// What a provider says that it served: requests, tokens, refusals of its own.
    async fn record(&self, address: &str) -> [u64; 3] {
        let (_, body) = self.get(address, "/mock/served").await.unwrap();
        let record: Value = serde_json::from_slice(&body).unwrap();
        ["requests", "total_tokens", "refused"].map(|name| record[name].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_backend_serves_its_quota_and_the_second_the_rest() {
    let mut deployment = Deployment::start(POLICY).await;
    let (first, second) = (deployment.provider_address.clone(), deployment.start_provider(&[]).await);
    for _ in 0..2 {
        deployment.start_gateway_to(&[("first", first.clone()), ("second", second.clone())]).await;
    }
    deployment.all_gateways_run_the_policy_in_force().await;
    let body = request_of_100();
    let ask = async |number: usize| deployment.chat_with(2 + number % 2, &[], &body).await.unwrap();

    let answers = join_all((0..30).map(ask)).await;
    let mut served = [0, 0];
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.headers["x-quorate-attempts"], "1", "who is passed over was not asked");
        served[usize::from(answer.headers["x-ai-provider"] == "second")] += 1;
    }
    assert_eq!(served, [10, 20]);
    assert_eq!(deployment.record(&first).await, [10, 1_000, 0]);
    assert_eq!(deployment.record(&second).await, [20, 2_000, 0]);

    // What explains it, while the first is short.
    let explained =
        deployment.quorate(&["explain", "request", "--model", "gpt-4o", "--max-tokens", "89"]).unwrap();
    assert!(explained.contains("passed over: its budget first-account is short"), "{explained}");

    // Nobody has room now: the client hears so from the gateway, and no provider is asked.
    for answer in join_all((0..6).map(ask)).await {
        assert_eq!(answer.status, 429);
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=610).contains(&seconds), "{seconds}");
        assert!(!answer.headers.contains_key("x-quorate-attempts"));
    }
    assert_eq!(deployment.record(&first).await, [10, 1_000, 0]);
    assert_eq!(deployment.record(&second).await, [20, 2_000, 0]);
}
