//! Fallback from one kind of backend to another: the client reads its own dialect, whoever answers and however it fails.

use std::sync::Arc;

use quorate_policy::runtime::PolicyParts;

use super::{
    kinds::{KINDS, Kind, world_of},
    policies::{backend, compile, route, tokens},
    provider::{FakeProvider, stream_end},
    world::{Answer, World},
};

/// The paths and the body of both dialects.
const ASKED: [(&str, &str); 2] = [("/v1/chat/completions", "[DONE]"), ("/v1/messages", "message_stop")];

fn body(stream: bool) -> String {
    let stream = if stream { r#","stream":true"# } else { "" };
    format!(
        r#"{{"model":"gpt-4o-mini","max_tokens":50,"messages":[{{"role":"user","content":"Say hello"}}]{stream}}}"#
    )
}

async fn two(first: Kind, second: Kind) -> (World, Arc<FakeProvider>) {
    let provider = FakeProvider::start().await;
    let policy = compile(PolicyParts {
        budgets: vec![tokens("per-user", 250)],
        routes: vec![route("all", "", [backend("first", 1), backend("second", 2)])],
        ..PolicyParts::default()
    });
    let world = world_of(policy, first, &[("second", second, &provider.base_url)], "").await;
    (world, provider)
}

/// As the provider of this kind says that it has no room.
fn limits(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::OpenAI => ("429 Too Many Requests", "retry-after: 30\r\n"),
        Kind::Anthropic => ("529 Overloaded", "retry-after: 30\r\n"),
        Kind::Bedrock => ("429 Too Many Requests", "x-amzn-errortype: ThrottlingException\r\n"),
    }
}

fn is_error_of(path: &str, answer: &Answer, kind: &str) -> bool {
    let whole: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let shaped = path == "/v1/chat/completions" || whole["type"] == "error";
    shaped && whole["error"]["type"] == kind && whole["error"]["message"].is_string()
}

#[tokio::test]
async fn every_kind_answers_for_every_other_in_the_words_of_the_client() {
    for (first, second) in
        KINDS.into_iter().flat_map(|first| KINDS.map(|second| (first, second))).filter(|(a, b)| a != b)
    {
        for (path, end) in ASKED {
            let (world, other) = two(first, second).await;
            let (status, headers) = limits(first);
            world.provider.plays([first.refuses(status, headers)]);
            other.plays([second.answers()]);
            let answer = world.ask(path, &body(false), &[]).await;
            let what = format!("{first:?} then {second:?} for {path}: {}", answer.text());
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-ai-provider")),
                (200, Some("second")),
                "{what}"
            );
            assert!(answer.text().contains("Hi"), "{what}");
            assert_eq!(world.account("per-user", "alice"), (30, 0), "{what}");

            let (world, other) = two(first, second).await;
            world.provider.plays([first.refuses(status, headers)]);
            let steps = [vec![second.head()], second.hi(), second.rest(), vec![stream_end()]].concat();
            other.plays(steps);
            let answer = world.ask(path, &body(true), &[]).await;
            let what = format!("{first:?} then {second:?} for {path}: {}", answer.text());
            assert_eq!(answer.header("x-quorate-attempts"), Some("2"), "{what}");
            assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{what}");
            assert!(answer.text().contains("Hi") && answer.text().contains(end), "{what}");
            world.resolved().await;
            assert_eq!(world.account("per-user", "alice"), (30, 0), "{what}");
        }
    }
}

#[tokio::test]
async fn where_all_limit_the_client_reads_it_in_its_own_words_and_when_to_come_back() {
    for (first, second) in [(Kind::OpenAI, Kind::Anthropic), (Kind::Anthropic, Kind::Bedrock)] {
        for (path, _) in ASKED {
            for stream in [false, true] {
                let (world, other) = two(first, second).await;
                let limit = "429 Too Many Requests";
                world.provider.plays([first.refuses(limit, "retry-after: 30\r\n")]);
                other.plays([second.refuses(limit, "retry-after: 20\r\n")]);
                let kind = if path == "/v1/messages" { "rate_limit_error" } else { "" };
                // The last answer, then the gateway's own without asking anybody.
                for times in 1..=2 {
                    let answer = world.ask(path, &body(stream), &[]).await;
                    let what = format!("{first:?}, {second:?}, {path}, {times}: {}", answer.text());
                    assert_eq!(answer.status.as_u16(), 429, "{what}");
                    let after: u64 = answer.header("retry-after").expect(&what).parse().unwrap();
                    assert!((1..=20).contains(&after), "{after} {what}");
                    assert!(kind.is_empty() || is_error_of(path, &answer, kind), "{what}");
                    assert_eq!((world.provider.got().len(), other.got().len()), (1, 1), "{what}");
                }
                assert_eq!(world.account("per-user", "alice"), (0, 0));
            }
        }
    }
}
