//! The example of four providers that docs/examples.md explains: applied as it is, and asked in the words of both kinds of
//! clients, with the simulated provider in the place of every backend.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use support::{Answer, Deployment};

/// The gateway that these tests start, after the two of every deployment.
const GATEWAY: usize = 2;
const BOTH: [&str; 2] = ["/v1/chat/completions", "/v1/messages"];

/// A backend of each kind that stands in for those of the policy, as `quorate dev` has them.
fn stand_ins(provider: &str, credentials: &Path) -> String {
    let aws =
        format!("region: us-east-1, aws: {{credentials_file: '{}'}}, stand_in: true", credentials.display());
    format!(
        "  - {{name: s1, provider: OpenAI, base_url: 'http://{provider}/v1', stand_in: true}}
  - {{name: s2, provider: AzureOpenAI, base_url: 'http://{provider}', api_key_file: '{key}', stand_in: true}}
  - {{name: s3, provider: Anthropic, base_url: 'http://{provider}/v1', stand_in: true}}
  - {{name: s4, provider: AWSBedrock, base_url: 'http://{provider}', {aws}}}
  - {{name: s5, provider: AWSAnthropic, base_url: 'http://{provider}', {aws}}}
",
        key = credentials.with_extension("key").display(),
    )
}

impl Deployment {
    async fn post(&self, address: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request =
            Request::post(format!("http://{address}{path}")).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = self.http.request(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.into_body().collect().await.unwrap().to_bytes() }
    }

    async fn asks(&self, path: &str, team: &str, model: &str, max_tokens: u64, text: &str) -> Answer {
        let body = json!({
            "model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}],
        });
        let headers = [("x-team-id", team), ("anthropic-version", "2023-06-01")];
        self.post(&self.gateway_addresses[GATEWAY], path, &headers, &body).await
    }

    /// Who serves a short request, and at which attempt; else the status and code of the refusal.
    async fn served_by(&self, path: &str, model: &str, text: &str) -> (String, String) {
        let answer = self.asks(path, "research", model, 90, text).await;
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        if answer.status == 200 {
            return (header("x-quorate-backend"), header("x-quorate-attempts"));
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["type"] == "error", path == "/v1/messages", "each client its own shape: {body}");
        (answer.status.to_string(), body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn until_served_by(&self, path: &str, model: &str, backend: &str) {
        self.until(async || self.served_by(path, model, "Hello!").await.0 == backend).await;
    }
}

fn pair(backend: &str, attempts: &str) -> (String, String) {
    (backend.to_owned(), attempts.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_providers() {
    let nothing = "apiVersion: quorate.dev/v1alpha1\nkind: ModelPrice\nmetadata: {name: house-model}\nspec: {model: house-1, input: 1, output: 2}\n";
    let mut deployment = Deployment::start(nothing).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/providers");
    let folder = folder.to_str().unwrap();
    let validated = deployment.quorate(&["validate", "-f", folder]).unwrap();
    assert!(!validated.contains("warning"), "{validated}");
    deployment.quorate(&["apply", "-f", folder]).unwrap();
    let credentials = deployment.folder.path().join("aws");
    let text = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n";
    std::fs::write(&credentials, text).unwrap();
    std::fs::write(credentials.with_extension("key"), "any").unwrap();
    let provider = deployment.provider_address.clone();
    deployment.start_gateway_with(&[], &stand_ins(&provider, &credentials)).await;
    deployment.all_gateways_run_the_policy_in_force().await;

    for path in BOTH {
        for (model, backend) in
            [("claude-sonnet-4-5", "llm/anthropic"), ("gpt-4o", "llm/openai"), ("cheap", "llm/bedrock")]
        {
            assert_eq!(
                deployment.served_by(path, model, "Hello!").await,
                pair(backend, "1"),
                "{path} {model}"
            );
        }
        assert_eq!(deployment.served_by(path, "gpt-9", "Hello!").await, pair("404", "model_not_found"));
    }
    // A conversation stays where it began, and not all begin at the same place.
    let mut places = Vec::new();
    for number in 0..40 {
        let begins = format!("Conversation {number}");
        let [first, second] = [0, 1].map(|path| deployment.served_by(BOTH[path], "assistant", &begins));
        let (first, second) = (first.await, second.await);
        assert_eq!(first, second, "{begins}");
        places.push(first.0);
    }
    for backend in ["llm/openai", "llm/azure"] {
        assert!(places.iter().any(|place| place == backend), "{backend} is in none of {places:?}");
    }
    // More than the account at OpenAI lets through in a minute: Azure, without a try.
    let large = deployment.asks(BOTH[0], "research", "gpt-4o", 460_000, "Hello!").await;
    assert_eq!((large.status, &large.headers["x-quorate-backend"]), (200, &"llm/azure".parse().unwrap()));
    assert_eq!(large.headers["x-quorate-attempts"], "1");

    // Anthropic limits: the first request moves on, those after it do not even try.
    let limit = json!({"status": 429, "retry-after": 3_600, "dialect": "anthropic"});
    assert_eq!(deployment.post(&provider, "/mock/behaviour", &[], &limit).await.status, 200);
    for (path, attempts) in [(BOTH[0], "2"), (BOTH[0], "1"), (BOTH[1], "1")] {
        let served = deployment.served_by(path, "claude-sonnet-4-5", "Hello!").await;
        assert_eq!(served, pair("llm/bedrock-claude", attempts), "{path}");
    }
    let rests = |line: &str| {
        ["llm/anthropic", "claude-sonnet-4-5", " open ", "limited: status 429"]
            .iter()
            .all(|word| line.contains(word))
    };
    deployment.until(async || deployment.quorate(&["get", "providers"]).unwrap().lines().any(rests)).await;
    // $3.30 and $16.50 per million tokens: what Bedrock costs, because Bedrock served.
    let text = "mock:input-tokens=1000 mock:tokens=1000";
    assert_eq!(deployment.asks(BOTH[1], "sales", "claude-sonnet-4-5", 1_000, text).await.status, 200);
    let sales = deployment.account(0, "llm/team", "sales", Default::default()).await.unwrap();
    assert_eq!(sales.spent_micros, 3_300 + 16_500);

    deployment.quorate(&["drain", "backend", "openai"]).unwrap();
    deployment.until_served_by(BOTH[0], "gpt-4o", "llm/azure").await;
    deployment.quorate(&["drain", "backend", "llm/azure"]).unwrap();
    for path in BOTH {
        deployment.until_served_by(path, "gpt-4o", "503").await;
        assert_eq!(deployment.served_by(path, "gpt-4o", "Hello!").await, pair("503", "backends_resting"));
    }
    deployment.quorate(&["undrain", "backend", "openai"]).unwrap();
    deployment.until_served_by(BOTH[1], "gpt-4o", "llm/openai").await;
}
