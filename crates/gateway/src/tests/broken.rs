//! Providers that break their promises: what the client gets and what is charged. The table is in docs/gateway.md, a row a
//! test here.

use super::{
    policies::{backend, compile, config, route, tokens},
    provider::{FakeProvider, Step, answer, chat, delta, piece, stream_end, stream_head},
    world::{Answer, World, chat_request},
};
use quorate_policy::runtime::PolicyParts;

const STREAM: &str = r#","max_completion_tokens":50,"stream":true"#;
const WHOLE: &str = r#","max_completion_tokens":50"#;
const QUICK: &str = "timeouts: {first_byte_ms: 200, idle_ms: 200}\n";
/// What the request's input counts.
const INPUT: std::ops::RangeInclusive<u64> = 8..=12;

/// One backend that plays `steps`.
async fn alone(request: &str, steps: impl Into<Vec<Step>>) -> (Answer, u64) {
    let policy = compile(PolicyParts {
        budgets: vec![tokens("user-hourly", 250)],
        routes: vec![route("all", "", [backend("first", 1)])],
        ..PolicyParts::default()
    });
    let world = World::compiled(policy, |first| config(&[("first", first)], QUICK)).await;
    world.provider.plays(steps);
    let answer = world.ask("/v1/chat/completions", &chat_request(request), &[]).await;
    world.resolved().await;
    (answer, world.account("user-hourly", "alice").0)
}

/// Another backend stands behind it, which answers with 10 + 20 tokens.
async fn with_another(request: &str, steps: impl Into<Vec<Step>>) -> (Answer, u64) {
    let policy = compile(PolicyParts {
        budgets: vec![tokens("user-hourly", 250)],
        routes: vec![route("all", "", [backend("first", 1), backend("second", 2)])],
        ..PolicyParts::default()
    });
    let second = FakeProvider::start().await;
    let url = second.base_url.clone();
    let world = World::compiled(policy, |first| config(&[("first", first), ("second", &url)], QUICK)).await;
    second.plays([answer("200 OK", &chat(10, 20))]);
    world.provider.plays(steps);
    let answer = world.ask("/v1/chat/completions", &chat_request(request), &[]).await;
    assert_eq!(second.got().len(), 1, "{}", answer.text());
    world.resolved().await;
    (answer, world.account("user-hourly", "alice").0)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.error()["code"].as_str().unwrap_or_default().to_owned())
}

fn failed(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

const ERROR: &str = r#"{"error":{"message":"the model is overloaded","type":"server_error","code":"503"}}"#;

#[tokio::test]
async fn one_that_hangs() {
    for (request, steps) in [
        (WHOLE, vec![Step::Pause]),
        // The head of a stream, and nothing of its answer.
        (STREAM, vec![stream_head(), Step::Pause]),
    ] {
        let (answer, spent) = alone(request, steps.clone()).await;
        assert_eq!(code(&answer), failed(504, "upstream_timeout"));
        assert!(INPUT.contains(&spent), "{spent}");
        let (answer, spent) = with_another(request, steps).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert!(INPUT.contains(&(spent - 30)), "{spent}");
    }
}

#[tokio::test]
async fn one_that_sends_half_an_answer() {
    let half = answer("200 OK", &chat(10, 20));
    let Step::Write(mut bytes) = half else { unreachable!() };
    bytes.truncate(bytes.len() - 40);
    let steps = vec![Step::Write(bytes), Step::Die];
    let (answer, spent) = alone(WHOLE, steps.clone()).await;
    assert_eq!(code(&answer), failed(502, "upstream_died"));
    assert!(spent > 8, "what arrived of the answer is charged: {spent}");
    let (answer, spent) = with_another(WHOLE, steps).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(spent > 38, "{spent}");
}

#[tokio::test]
async fn one_that_sends_half_a_stream() {
    for end in [Step::Die, stream_end(), Step::Pause] {
        let (answer, spent) = alone(STREAM, vec![stream_head(), piece(&delta("Hi")), end]).await;
        assert!(answer.text().starts_with(&delta("Hi")) && !answer.text().contains("[DONE]"));
        assert!(answer.text().contains("upstream_"), "an error event ends it: {}", answer.text());
        assert!((INPUT.start() + 1..=INPUT.end() + 1).contains(&spent), "{spent}");
    }
    for end in [Step::Die, stream_end()] {
        let (answer, spent) = with_another(STREAM, vec![stream_head(), end]).await;
        assert_eq!(answer.header("x-ai-provider"), Some("second"), "the client had heard nothing yet");
        assert!(INPUT.contains(&(spent - 30)), "{spent}");
    }
}

#[tokio::test]
async fn one_that_says_200_with_an_error_inside() {
    let event = format!("data: {ERROR}\n\n");
    for (request, steps) in
        [(WHOLE, vec![answer("200 OK", ERROR)]), (STREAM, vec![stream_head(), piece(&event), stream_end()])]
    {
        let (answer, spent) = alone(request, steps.clone()).await;
        assert_eq!(code(&answer), failed(503, "upstream_error"));
        assert!(answer.text().contains("the model is overloaded"), "{}", answer.text());
        assert_eq!(spent, 0);
        let (answer, spent) = with_another(request, steps).await;
        assert_eq!((answer.status.as_u16(), spent), (200, 30));
    }
    let (answer, spent) =
        alone(STREAM, vec![stream_head(), piece(&delta("Hi")), piece(&event), stream_end()]).await;
    assert_eq!(answer.text(), format!("{}{event}", delta("Hi")), "the error is the end");
    assert!(INPUT.contains(&(spent - 1)), "{spent}");
}

#[tokio::test]
async fn one_that_sends_garbage() {
    for body in ["<html>welcome</html>", "", "[1,2]", "{\"choices\":[{"] {
        let (answer, spent) = alone(WHOLE, vec![answer("200 OK", body)]).await;
        assert_eq!(code(&answer), failed(502, "upstream_garbage"), "{body}");
        assert!(INPUT.contains(&spent), "{spent}");
    }
    let (answer, spent) = with_another(WHOLE, vec![answer("200 OK", "oops")]).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(INPUT.contains(&(spent - 30)), "{spent}");
}
