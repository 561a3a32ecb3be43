//! Budgets over backends of every kind, kept by a whole fleet: what was charged is what the provider's own record says,
//! whatever dialect the client and the backend speak.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming};
use quorate_rpc::admin::Consistency;
use serde_json::{Value, json};
use support::{Deployment, policy};

const LIMIT: u64 = 2_500;

/// Kind and model of each backend, and how many words it has sent when half of an answer of 40 is out.
const BACKENDS: [(&str, &str, usize); 5] = [
    ("OpenAI", "gpt-4o", 21),
    ("AzureOpenAI", "gpt-4.1", 20),
    ("Anthropic", "claude-sonnet-4-5", 20),
    ("AWSBedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 21),
    ("AWSAnthropic", "anthropic.claude-opus-4-1-20250805-v1:0", 20),
];
const PATHS: [&str; 2] = ["/v1/chat/completions", "/v1/messages"];

/// One backend of each kind, all at this provider.
fn backends(provider: &str, credentials: &str) -> String {
    let backend = |(kind, model, _): (&str, &str, usize)| {
        let (base, more) = match kind {
            "OpenAI" | "Anthropic" => (format!("http://{provider}/v1"), String::new()),
            // Any key will do.
            "AzureOpenAI" => (format!("http://{provider}"), ", api_key_env: PATH".to_owned()),
            _ => {
                let aws = format!(", region: us-east-1, aws: {{credentials_file: \"{credentials}\"}}");
                (format!("http://{provider}"), aws)
            }
        };
        format!("  - {{name: {kind}, provider: {kind}, base_url: \"{base}\", models: [\"{model}\"]{more}}}\n")
    };
    BACKENDS.map(backend).concat()
}

fn request(model: &str, prompt: &str, stream: bool, max_tokens: u64) -> Value {
    json!({
        "model": model,
        "max_tokens": max_tokens,
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    })
}

impl Deployment {
    async fn open(&self, gateway: usize, path: &str, user: &str, body: &Value) -> Response<Incoming> {
        let request = Request::post(format!("http://{}{path}", self.gateway_addresses[gateway]))
            .header("content-type", "application/json")
            .header("x-user-id", user)
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        self.http.request(request).await.unwrap()
    }

    /// What an answer says that it was charged; `None`: it was refused for want of budget.
    async fn used(&self, gateway: usize, path: &str, body: &Value) -> Option<u64> {
        let answer = self.open(gateway, path, "alice", body).await;
        let (status, header) = (answer.status(), answer.headers().get("x-ai-gateway-tokens-used").cloned());
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text);
        if status == 429 {
            assert!(text.contains("user"), "{text}");
            return None;
        }
        assert_eq!(status, 200, "{path} {body}: {text}");
        let comment =
            || text.trim_end().rsplit_once(": x-ai-gateway-tokens-used=").map(|(_, used)| used.to_owned());
        let used = header.map(|used| used.to_str().unwrap().to_owned()).or_else(comment);
        Some(
            used.unwrap_or_else(|| panic!("{path} {body} does not say what it cost: {text}"))
                .parse()
                .unwrap(),
        )
    }

    /// Hangs up as soon as the provider has said all that it is going to say.
    async fn cut_off(&self, gateway: usize, path: &str, model: &str, words: usize) {
        let body = request(model, "mock:tokens=40 mock:stall", true, 60);
        let mut answer = self.open(gateway, path, "bob", &body).await.into_body();
        let mut seen = String::new();
        while seen.matches("\"ok \"").count() < words {
            let frame = tokio::time::timeout(std::time::Duration::from_secs(30), answer.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{path} {model} stopped: {seen}"));
            seen += &String::from_utf8_lossy(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }

    /// Input and output of all that a provider says it served.
    async fn record(&self, provider: &str) -> (u64, u64) {
        let (_, body) = self.get(provider, "/mock/served").await.unwrap();
        let record: Value = serde_json::from_slice(&body).unwrap();
        (record["input_tokens"].as_u64().unwrap(), record["output_tokens"].as_u64().unwrap())
    }

    /// (spent, reserved) of one user.
    async fn account_of(&self, user: &str) -> (u64, u64) {
        let account = self.account(0, "user", user, Consistency::Linearizable).await;
        account
            .map_or((0, 0), |account| (account.spent_micros / 1_000_000, account.reserved_micros / 1_000_000))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_charged_is_what_every_kind_of_provider_served() {
    let mut deployment = Deployment::without_gateways(&policy(LIMIT, "Year")).await;
    let credentials = deployment.folder.path().join("credentials");
    let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\n\
                aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n";
    std::fs::write(&credentials, keys).unwrap();
    let credentials = credentials.display().to_string();
    let (answers, stalls) = (deployment.provider_address.clone(), deployment.start_provider(&[]).await);
    for provider in [&answers, &answers, &stalls, &stalls] {
        deployment.start_gateway_with(&[], &backends(provider, &credentials)).await;
    }
    deployment.all_gateways_run_the_policy_in_force().await;

    // More than the limit allows, from both dialects to all five, as JSON and as streams.
    let cases = BACKENDS.iter().flat_map(|backend| PATHS.map(|path| (backend.1, path)));
    let cases = cases.flat_map(|(model, path)| [false, true].map(|stream| (model, path, stream)));
    let cases: Vec<_> = std::iter::repeat_n(cases, 6).flatten().collect();
    let (deployment_ref, count) = (&deployment, cases.len());
    let asked = cases.iter().enumerate().map(async |(number, (model, path, stream))| {
        let body = request(model, "mock:tokens=20", *stream, 24);
        deployment_ref.used(number % 2, path, &body).await
    });
    let used: Vec<u64> = join_all(asked).await.into_iter().flatten().collect();
    deployment.until(async || deployment.account_of("alice").await.1 == 0).await;
    let (spent, _) = deployment.account_of("alice").await;
    let (input, output) = deployment.record(&answers).await;
    assert!(used.len() >= 20 && used.len() < count, "{} of {count} were served", used.len());
    assert_eq!(output, 20 * used.len() as u64);
    assert_eq!((spent, used.iter().sum::<u64>()), (input + output, input + output));
    assert!(spent <= LIMIT, "{spent}");

    // And of those whose client goes away, what had come, at least.
    let cut = BACKENDS.iter().flat_map(|backend| PATHS.map(|path| (backend, path)));
    let cut = cut.enumerate().map(async |(number, ((_, model, words), path))| {
        deployment_ref.cut_off(2 + number % 2, path, model, *words).await;
        *words as u64
    });
    let seen: u64 = join_all(cut).await.into_iter().sum();
    deployment.until(async || deployment.account_of("bob").await.1 == 0).await;
    let (spent, _) = deployment.account_of("bob").await;
    let (input, output) = deployment.record(&stalls).await;
    assert_eq!(output, seen);
    assert!(spent >= input + output && spent <= LIMIT, "{spent} for {input} and {output}");
}
