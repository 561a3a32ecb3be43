//! Faults as a client meets them, and what the record says afterwards.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{MockProvider, Settings};

struct Provider(MockProvider);

impl Provider {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self(
            MockProvider::start(Settings { api_key: Some("k".into()), ..Settings::default() }, listener)
                .unwrap(),
        )
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// All bytes of an answer until the connection ends, head included.
    async fn send(&self, method: &str, path: &str, body: &Value) -> Vec<u8> {
        let mut stream = self.begin(method, path, body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    }

    async fn begin(&self, method: &str, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer k\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    async fn served(&self) -> Value {
        self.control("/mock/served").await
    }

    async fn control(&self, path: &str) -> Value {
        let answer = self.send("GET", path, &json!({})).await;
        let text = String::from_utf8(answer).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A stream in each dialect: its path, its body, its last event and how it writes an error.
fn streams(text: &str) -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let messages = json!([{"role": "user", "content": text}]);
    let invoke = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": messages});
    vec![
        (
            "/v1/chat/completions",
            json!({"model": "m", "stream": true, "messages": messages}),
            "[DONE]",
            "server_error",
        ),
        (
            "/openai/deployments/m/chat/completions?api-version=1",
            json!({"stream": true, "messages": messages}),
            "[DONE]",
            "\"code\":\"500\"",
        ),
        (
            "/v1/responses",
            json!({"model": "m", "stream": true, "input": text}),
            "response.completed",
            "event: error",
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 99, "stream": true, "messages": messages}),
            "message_stop",
            "overloaded_error",
        ),
        (
            "/model/m/converse-stream",
            json!({"messages": [{"role": "user", "content": [{"text": text}]}]}),
            "metadata",
            "internalServerException",
        ),
        ("/model/m/invoke-with-response-stream", invoke, "", "internalServerException"),
    ]
}

/// Chunks end with one of no bytes, unless the connection broke.
const END: &str = "\r\n0\r\n\r\n";

#[tokio::test]
async fn streams_break_as_asked_in_every_dialect() {
    let provider = Provider::start();
    for (phrase, ended, inside) in [
        ("Hello!", true, false),
        ("mock:half-stream", false, false),
        ("mock:early-end", true, false),
        ("mock:error-inside", true, true),
        ("mock:garbage", true, false),
        ("mock:cut-after=3", false, false),
    ] {
        for (path, body, last, error) in streams(phrase) {
            let bytes = provider.send("POST", path, &body).await;
            let found = String::from_utf8_lossy(&bytes);
            assert!(bytes.starts_with(b"HTTP/1.1 200"), "{phrase} {path}: {found}");
            assert_eq!(bytes.ends_with(END.as_bytes()), ended, "{phrase} {path}: {found}");
            assert_eq!(has(&bytes, error), inside, "{phrase} {path}: {found}");
            assert_eq!(has(&bytes, "garbage ]]"), phrase == "mock:garbage", "{phrase} {path}: {found}");
            if !last.is_empty() {
                assert_eq!(has(&bytes, last), phrase == "Hello!", "{phrase} {path}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn whole_answers_break_too() {
    let provider = Provider::start();
    let ask =
        |text: &str| json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": text}]});
    let send = async |text: &str| {
        let bytes = provider.send("POST", "/v1/messages", &ask(text)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    };
    let (head, body) = send("mock:half-stream").await;
    let declared: usize =
        head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert!(body.len() < declared && serde_json::from_str::<Value>(&body).is_err());
    let (head, body) = send("mock:error-inside mock:status=529").await;
    assert!(head.starts_with("http/1.1 200") && body.contains("overloaded_error"));
    let (_, body) = send("mock:garbage").await;
    assert!(serde_json::from_str::<Value>(&body).is_err());
    let (head, body) = send("mock:retry-after=30").await;
    assert!(
        head.starts_with("http/1.1 429")
            && head.contains("retry-after: 30")
            && body.contains("rate_limit_error")
    );
    let (head, _) = send("mock:remaining-requests=7 mock:reset-s=9").await;
    assert!(head.contains("anthropic-ratelimit-requests-remaining: 7"));
    let (_, body) = send("mock:no-usage").await;
    assert!(!body.contains("usage"));
}

#[tokio::test]
async fn a_request_that_hangs_is_on_record_and_gets_nothing() {
    let provider = Provider::start();
    let messages = json!([{"role": "user", "content": "Hello!"}]);
    let mut hanging = provider
        .begin("POST", "/v1/chat/completions", &json!({"model": "mock:hang", "messages": messages}))
        .await;
    let call = loop {
        let served = provider.served().await;
        if let Some(call) = served["calls"].get(0) {
            break call.clone();
        }
    };
    assert_eq!((&call["status"], &call["model"]), (&json!(0), &json!("mock:hang")));
    // Others are served meanwhile, and nothing has come for this one.
    provider.send("POST", "/v1/chat/completions", &json!({"model": "m", "messages": messages})).await;
    let mut byte = [0];
    let nothing = tokio::time::timeout(std::time::Duration::ZERO, hanging.read(&mut byte)).await;
    assert!(nothing.is_err());
}

#[tokio::test]
async fn the_record_tells_requests_apart_and_when_they_ended() {
    let provider = Provider::start();
    let body = json!({"model": "mock:hang", "messages": [{"role": "user", "content": "Hello!"}]}).to_string();
    let ask = async |id: &str| {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\nauthorization: Bearer k\r\n\
             x-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(provider.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let until = async |path: &str, holds: &dyn Fn(&Value) -> bool| loop {
        let served = provider.control(path).await;
        if holds(&served) {
            break served["calls"].clone();
        }
    };
    let first = ask("one").await;
    until("/mock/served", &|served| served["arrived"] == 1).await;
    let _second = ask(&"x".repeat(200)).await;
    let calls = until("/mock/served", &|served| served["arrived"] == 2).await;
    assert_eq!((&calls[0]["number"], &calls[0]["request_id"]), (&json!(1), &json!("one")));
    assert_eq!((&calls[0]["ended_ms"], calls[1]["request_id"].as_str().unwrap().len()), (&json!(0), 128));
    drop(first);
    let calls = until("/mock/served", &|served| served["calls"][0]["ended_ms"] != 0).await;
    assert_eq!((&calls[1]["ended_ms"], calls.as_array().unwrap().len()), (&json!(0), 2));
    let calls = until("/mock/served?after=1", &|_| true).await;
    assert_eq!((&calls[0]["number"], calls.as_array().unwrap().len()), (&json!(2), 1));
    assert!(provider.send("GET", "/mock/served?since=1", &json!({})).await.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test]
async fn switches_change_a_running_provider_and_the_record_tells() {
    let provider = Provider::start();
    let messages = json!([{"role": "user", "content": "Hello!"}]);
    let chat = json!({"model": "m", "messages": messages});
    let switch = json!({"status": 429, "retry-after": 30, "dialect": "openai", "times": 1});
    let answer = provider.send("POST", "/mock/behaviour", &switch).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let limited = provider.send("POST", "/v1/chat/completions", &chat).await;
    assert!(limited.starts_with(b"HTTP/1.1 429") && has(&limited, "retry-after: 30"));
    assert!(provider.send("POST", "/v1/chat/completions", &chat).await.starts_with(b"HTTP/1.1 200"));
    let wrong = provider.send("POST", "/mock/behaviour", &json!({"hnag": true})).await;
    assert!(wrong.starts_with(b"HTTP/1.1 400"));
    let served = provider.served().await;
    let calls = served["calls"].as_array().unwrap();
    let shown: Vec<_> = calls
        .iter()
        .map(|call| (call["status"].as_u64().unwrap(), call["output_tokens"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [(429, 0), (200, 16)]);
    assert!(calls[0]["at_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(
        (&served["requests"], &served["refused"], &served["total_tokens"]),
        (&json!(1), &json!(1), &json!(19))
    );
}

#[tokio::test]
async fn bedrock_says_what_kind_of_error_it_is() {
    let provider = Provider::start();
    let answer = provider.send("POST", "/model/m/converse", &json!({"messages": []})).await;
    assert!(answer.starts_with(b"HTTP/1.1 400") && has(&answer, "x-amzn-errortype: ValidationException"));
}

#[tokio::test]
async fn marked_prompts_are_written_once_and_read_later() {
    let provider = Provider::start();
    let system =
        json!([{"type": "text", "text": "Be brief, and kind.", "cache_control": {"type": "ephemeral"}}]);
    let body = json!({"model": "m", "max_tokens": 9, "system": system, "messages": [{"role": "user", "content": "Hi"}]});
    let first = provider.send("POST", "/v1/messages", &body).await;
    let second = provider.send("POST", "/v1/messages", &body).await;
    assert!(has(&first, "\"cache_creation_input_tokens\":5,\"cache_read_input_tokens\":0"));
    assert!(has(&second, "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":5"));
}
