//! Fallback across kinds of providers in a whole fleet: three nodes and two gateways, each a process of its own, and one
//! simulated provider that is OpenAI, Anthropic and Bedrock, switched from outside.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use support::{Answer, Deployment};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const ROUTE: &str = "---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs:
        - {name: openai, priority: 0}
        - {name: claude, priority: 1}
        - {name: bedrock, priority: 2}
";

async fn post(deployment: &Deployment, address: &str, path: &str, body: &Value) -> Answer {
    let request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/json")
        .header("x-user-id", "alice")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = deployment.http.request(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.into_body().collect().await.unwrap().to_bytes() }
}

async fn ask(deployment: &Deployment, gateway: usize, path: &str, stream: bool) -> Answer {
    let body = json!({
        "model": "gpt-4o",
        "max_tokens": 10,
        "stream": stream,
        "messages": [{"role": "user", "content": "Hello there!"}],
    });
    post(deployment, &deployment.gateway_addresses[gateway], path, &body).await
}

async fn switch(deployment: &Deployment, dialect: &str, status: u16) {
    let behaviour = json!({"dialect": dialect, "status": status, "retry-after": 60});
    let answer = post(deployment, &deployment.provider_address, "/mock/behaviour", &behaviour).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Whole and as a stream, in both dialects, at both gateways: each is served by `backend`.
async fn all_are_served_by(deployment: &Deployment, backend: &str) {
    for gateway in 0..2 {
        // What one of them met, the other is told.
        deployment
            .until(async || {
                let answer = ask(deployment, gateway, CHAT, false).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                answer.headers["x-ai-provider"] == backend && answer.headers["x-quorate-attempts"] == "1"
            })
            .await;
        for (path, end) in [(CHAT, "[DONE]"), (MESSAGES, "message_stop")] {
            let whole = ask(deployment, gateway, path, false).await;
            let stream = ask(deployment, gateway, path, true).await;
            assert_eq!((whole.status, stream.status), (200, 200), "{whole:?} {stream:?}");
            assert_eq!(whole.headers["x-ai-provider"], backend);
            assert_eq!(stream.headers["x-ai-provider"], backend);
            let text = String::from_utf8(stream.body.to_vec()).unwrap();
            assert!(text.contains("ok") && text.contains(end), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kind_of_provider_serves_and_when_all_limit_every_client_is_told() {
    let policy = support::policy(1_000_000, "Lifetime") + ROUTE;
    let mut deployment = Deployment::without_gateways(&policy).await;
    let aws = deployment.folder.path().join("aws");
    let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n";
    std::fs::write(&aws, keys).unwrap();
    let key = deployment.folder.path().join("key");
    std::fs::write(&key, "sk-test").unwrap();
    let (url, aws, key) = (format!("http://{}", deployment.provider_address), aws.display(), key.display());
    let lines = format!(
        "  - {{name: openai, provider: OpenAI, base_url: '{url}/v1', api_key_file: '{key}'}}\n\
         \x20 - {{name: claude, provider: Anthropic, base_url: '{url}/v1', api_key_file: '{key}'}}\n\
         \x20 - {{name: bedrock, provider: AWSBedrock, region: us-east-1, base_url: '{url}', aws: {{credentials_file: '{aws}'}}}}\n"
    );
    for _ in 0..2 {
        deployment.start_gateway_with(&[], &lines).await;
    }
    all_are_served_by(&deployment, "openai").await;
    switch(&deployment, "openai", 429).await;
    all_are_served_by(&deployment, "claude").await;
    // Anthropic's word for having no room.
    switch(&deployment, "anthropic", 529).await;
    all_are_served_by(&deployment, "bedrock").await;
    switch(&deployment, "bedrock", 429).await;
    // The first of these is the provider's own answer, the others the gateways'.
    for (gateway, path) in [(0, CHAT), (0, MESSAGES), (0, CHAT), (1, MESSAGES), (1, CHAT)] {
        let answer = ask(&deployment, gateway, path, false).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["type"] == "error", path == MESSAGES, "{body}");
        assert!(body["error"]["type"].as_str().unwrap().starts_with("rate_limit"), "{body}");
    }
    let providers = deployment.quorate(&["get", "providers"]).unwrap();
    assert_eq!(providers.lines().filter(|line| line.contains("limited: status")).count(), 3, "{providers}");
    let explained = deployment.quorate(&["explain", "request", "--model", "gpt-4o"]).unwrap();
    assert_eq!(explained.matches("passed over: rests for").count(), 3, "{explained}");
    // Each answer was charged once, whoever gave it.
    let account = deployment.until_account("user", "alice", |account| account.reserved_micros == 0).await;
    assert_eq!(account.spent_micros / 1_000_000, deployment.served().await);
}
