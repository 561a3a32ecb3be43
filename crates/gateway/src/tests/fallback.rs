//! Which backend serves a request, and what becomes of it when one does not.

use std::sync::Arc;

use http_body_util::BodyExt;
use quorate_policy::runtime::{BackendRef, BodyField, CompiledPolicy, PolicyParts, ProviderKind};

use super::{
    policies::{backend, compile, config, route, spec, tokens},
    provider::{FakeProvider, Step, answer, answer_with, chat, delta, piece, stream_end, stream_head},
    world::{World, chat_request},
};

const NAMED: &str = r#","max_completion_tokens":50"#;

fn routed(backends: impl Into<Vec<BackendRef>>, limit: u64) -> CompiledPolicy {
    compile(PolicyParts {
        budgets: vec![tokens("per-user", limit)],
        routes: vec![route("all", "", backends)],
        ..PolicyParts::default()
    })
}

/// `first` is the world's own provider.
async fn two(policy: CompiledPolicy, more: &str) -> (World, Arc<FakeProvider>) {
    let second = FakeProvider::start().await;
    let url = second.base_url.clone();
    let world = World::compiled(policy, |first| config(&[("first", first), ("second", &url)], more)).await;
    second.plays([answer("200 OK", &chat(10, 20))]);
    (world, second)
}

fn both(first: u32, second: u32) -> [BackendRef; 2] {
    [backend("first", first), backend("second", second)]
}

#[tokio::test]
async fn the_next_backend_answers_for_one_that_limits_or_fails() {
    for (step, cost) in [
        (answer_with("429 Too Many Requests", "retry-after: 0\r\n", "{}"), 0),
        (answer("408 Request Timeout", "{}"), 0),
        (answer("424 Failed Dependency", "{}"), 0),
        (answer("500 Internal Server Error", "{}"), 0),
        (answer("503 Service Unavailable", "oops"), 0),
        // What it may have cost is charged, on its own reservation.
        (Step::Die, 10),
        (Step::Pause, 10),
    ] {
        let (world, second) = two(routed(both(1, 2), 250), "timeouts: {first_byte_ms: 200}\n").await;
        world.provider.plays([step.clone()]);
        let answer = world.chat(NAMED).await;
        assert_eq!(answer.status.as_u16(), 200, "{step:?}: {}", answer.text());
        assert_eq!(answer.header("x-ai-provider"), Some("second"));
        assert_eq!(answer.header("x-quorate-backend"), Some("ns/second"));
        assert_eq!(answer.header("x-quorate-attempts"), Some("2"));
        assert_eq!((world.provider.got().len(), second.got().len()), (1, 1), "{step:?}");
        world.resolved().await;
        let (spent, reserved) = world.account("per-user", "alice");
        assert!((30 + cost.max(2) - 2..=32 + cost).contains(&spent) && reserved == 0, "{step:?}: {spent}");
        let used: u64 = answer.header("x-ai-gateway-tokens-used").unwrap().parse().unwrap();
        assert_eq!(used, spent);
        assert_eq!(world.metric("quorate_gateway_fallbacks_total{backend=\"ns/first\"}"), Some(1.0));
    }
}

#[tokio::test]
async fn only_the_order_of_priorities_counts_and_the_first_is_asked_first() {
    let (world, second) = two(routed(both(7, 3), 1_000), "").await;
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    assert_eq!((world.provider.got().len(), second.got().len()), (0, 1));
}

#[tokio::test]
async fn equals_share_by_weight_and_weight_0_gets_nothing() {
    let mut backends = both(0, 0);
    backends[0].weight = 0;
    let (world, second) = two(routed(backends, 10_000), "").await;
    for _ in 0..8 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    }
    assert_eq!((world.provider.got().len(), second.got().len()), (0, 8));
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_followed_by_one_that_is() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{free}/v1");
    let policy = routed([backend("gone", 0), backend("first", 1)], 250);
    let world = World::compiled(policy, |first| config(&[("gone", &gone), ("first", first)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-quorate-attempts")), (200, Some("2")));
    assert_eq!(world.account("per-user", "alice"), (30, 0));
}

#[tokio::test]
async fn no_second_attempt_follows_a_first_byte() {
    let (world, second) = two(routed(both(1, 2), 250), "").await;
    world.provider.plays([stream_head(), piece(&delta("one")), Step::Die]);
    let answer = world.chat(r#","stream":true,"max_tokens":50"#).await;
    assert!(answer.text().contains("upstream_died"), "{}", answer.text());
    assert_eq!((answer.header("x-quorate-attempts"), second.got().len()), (Some("1"), 0));
}

#[tokio::test]
async fn a_key_or_a_model_that_one_backend_refuses_is_tried_at_the_next() {
    for (status, kind) in [
        ("401 Unauthorized", "unauthorized"),
        ("402 Payment Required", "unauthorized"),
        ("403 Forbidden", "forbidden"),
        ("404 Not Found", "not_found"),
    ] {
        let (world, second) = two(routed(both(1, 2), 250), "").await;
        world.provider.plays([answer(status, "{}")]);
        let served = world.chat(NAMED).await;
        assert_eq!(
            (served.status.as_u16(), served.header("x-ai-provider")),
            (200, Some("second")),
            "{status}"
        );
        let errors = format!("quorate_gateway_upstream_errors_total{{backend=\"ns/first\",kind=\"{kind}\"}}");
        assert_eq!(world.metric(&errors), Some(1.0));
        second.plays([answer(status, r#"{"error":{"message":"theirs"}}"#)]);
        let last = world.chat(NAMED).await;
        assert_eq!((last.status.as_str(), last.error()["message"].as_str()), (&status[..3], Some("theirs")));
        assert_eq!(world.account("per-user", "alice"), (30, 0));
    }
    // The client's own key is the client's own mistake.
    let second = FakeProvider::start().await;
    let text = |first: &str| {
        let text = config(&[("first", first), ("second", &second.base_url)], "");
        text.replacen("}\n", ", pass_client_key: true}\n", 1)
    };
    let world = World::compiled(routed(both(1, 2), 250), text).await;
    world.provider.plays([answer("401 Unauthorized", "{}")]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 401);
    assert!(second.got().is_empty());
}

#[tokio::test]
async fn one_that_was_left_no_time_is_not_blamed() {
    let (world, second) =
        two(routed(both(1, 2), 250), "timeouts: {total_ms: 600, first_byte_ms: 400}\n").await;
    world.provider.plays([Step::Pause]);
    second.plays([Step::Pause]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (504, Some("upstream_timeout")));
    let timeouts = |name: &str| {
        world.metric(&format!(
            "quorate_gateway_upstream_errors_total{{backend=\"ns/{name}\",kind=\"timeout\"}}"
        ))
    };
    assert_eq!((timeouts("first"), timeouts("second")), (Some(1.0), None));
}

#[tokio::test]
async fn what_the_caller_did_wrong_is_not_tried_elsewhere() {
    let (world, second) = two(routed(both(1, 2), 250), "").await;
    world.provider.plays([answer("400 Bad Request", r#"{"error":{"message":"no"}}"#)]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), second.got().len()), (400, 0));
    assert_eq!(world.account("per-user", "alice"), (0, 0));
}

#[tokio::test]
async fn attempts_are_bounded_and_the_last_answer_is_passed_on() {
    let (world, second) = two(routed(both(1, 2), 250), "limits: {attempts_max: 1}\n").await;
    world.provider.plays([answer("503 Service Unavailable", "busy")]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.text(), second.got().len()), (503, "busy", 0));
    let (world, second) = two(routed(both(1, 2), 250), "").await;
    world.provider.plays([super::provider::answer("503 Service Unavailable", "busy")]);
    second.plays([super::provider::answer("500 Internal Server Error", "worse")]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (500, "worse"));
    assert_eq!(answer.header("x-quorate-attempts"), Some("2"));
    assert_eq!(world.account("per-user", "alice"), (0, 0));
}

#[tokio::test]
async fn without_room_for_another_attempt_the_request_ends_as_the_first_did() {
    let (world, second) = two(routed(both(1, 2), 65), "").await;
    world.provider.plays([Step::Die]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (502, Some("upstream_died")));
    assert!(second.got().is_empty());
    let (spent, reserved) = world.account("per-user", "alice");
    assert!((8..=12).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn a_dear_fallback_does_not_deny_what_the_first_backend_can_serve() {
    // Bytes are the only bound for the second model: far more than is left.
    let mut backends = both(1, 2);
    backends[1].model_override = Some("claude-x".to_owned());
    let (world, second) = two(routed(backends, 220), "").await;
    world.provider.plays([answer("200 OK", &chat(110, 20))]);
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"{}"}}],"max_tokens":60}}"#,
        "hello ".repeat(100)
    );
    let answer = world.ask("/v1/chat/completions", &body, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ai-provider")), (200, Some("first")));
    assert_eq!(world.account("per-user", "alice"), (130, 0));
    assert!(second.got().is_empty());
}

#[tokio::test]
async fn a_fallback_may_have_a_model_of_its_own() {
    let mut backends = both(1, 2);
    backends[1].model_override = Some("claude-x".to_owned());
    let (world, second) = two(routed(backends, 1_000), "").await;
    world.provider.plays([answer("500 Internal Server Error", "")]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(
        String::from_utf8(second.got()[0].body.clone()).unwrap(),
        chat_request(NAMED).replace("gpt-4o-mini", "claude-x")
    );
}

#[tokio::test]
async fn kinds_that_are_not_spoken_are_passed_over_or_refused_by_name() {
    let policy = |refs: Vec<BackendRef>| {
        compile(PolicyParts {
            routes: vec![route("all", "", refs)],
            backends: vec![spec("cohere", ProviderKind::Cohere), spec("first", ProviderKind::OpenAI)],
            ..PolicyParts::default()
        })
    };
    let (world, _second) = two(policy(vec![backend("cohere", 0), backend("first", 1)]), "").await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    let passed = world.chat("").await;
    assert_eq!((passed.status.as_u16(), passed.header("x-quorate-attempts")), (200, Some("1")));
    world.put_policy(2, policy(vec![backend("cohere", 0)]));
    let refused = world.chat("").await;
    assert_eq!(refused.status.as_u16(), 501, "{}", refused.text());
    assert!(
        refused.text().contains("ns/cohere") && refused.text().contains("of kind Cohere"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn a_backend_at_its_limit_is_passed_over_and_nobody_is_told_that_it_failed() {
    let second = FakeProvider::start().await;
    let url = second.base_url.clone();
    let limited = |first: &str| {
        let text = config(&[("first", first), ("second", &url)], "limits: {attempts_max: 1}\n");
        text.replacen("}\n", ", limits: {in_flight_max: 1}}\n", 1)
    };
    let world = World::compiled(routed(both(1, 2), 10_000), limited).await;
    world.provider.plays([
        stream_head(),
        piece(&delta("one")),
        Step::Pause,
        piece("data: [DONE]\n\n"),
        stream_end(),
    ]);
    second.plays([answer("200 OK", &chat(10, 20))]);
    let busy = chat_request(r#","stream":true,"max_tokens":50"#);
    let first = world.open("/v1/chat/completions", &busy, &[]).await;
    let passed = world.chat(NAMED).await;
    assert_eq!(
        (passed.status.as_u16(), passed.header("x-ai-provider"), passed.header("x-quorate-attempts")),
        (200, Some("second"), Some("1"))
    );
    // Its place is free again once the whole answer has come.
    world.provider.go();
    assert!(first.into_body().collect().await.is_ok());
    world.resolved().await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("first"));
    let errors = |kind: &str| {
        world
            .metric(&format!("quorate_gateway_upstream_errors_total{{backend=\"ns/first\",kind=\"{kind}\"}}"))
    };
    assert_eq!((errors("busy"), errors("unreachable")), (Some(1.0), None));
    // Alone, it is refused for a moment.
    world.put_policy(2, routed([backend("first", 1)], 10_000));
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking = tokio::spawn(super::world::http_client().request(request));
    world.provider.until_asked(3).await;
    let refused = world.chat(NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.provider.go();
    assert_eq!(asking.await.unwrap().unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn where_there_are_routes_others_are_refused_with_their_models() {
    let policy = compile(PolicyParts {
        routes: vec![route("a", "gpt-4o", [backend("first", 0)]), route("b", "small", [backend("first", 0)])],
        ..PolicyParts::default()
    });
    let (world, _second) = two(policy, "").await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    let refused = world.chat("").await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (404, Some("model_not_found")));
    assert!(refused.text().contains("gpt-4o, small"), "{}", refused.text());
    let body = r#"{"model":"small","messages":[]}"#;
    assert_eq!(world.ask("/v1/chat/completions", body, &[]).await.status.as_u16(), 200);
    let list: serde_json::Value =
        serde_json::from_slice(&world.ask("/v1/models", "", &[]).await.body).unwrap();
    assert_eq!(
        (list["data"][0]["id"].as_str(), list["data"][1]["id"].as_str()),
        (Some("gpt-4o"), Some("small"))
    );
}

#[tokio::test]
async fn a_route_changes_what_costs_nothing_and_no_more() {
    let mutated = |name: &str, value: &str| {
        let mut first = backend("first", 0);
        first.body_mutation.set = vec![BodyField { name: name.to_owned(), value: value.to_owned() }];
        first.header_mutation.set = vec![("x-team".to_owned(), "red".to_owned())];
        routed([first], 1_000)
    };
    let (world, _second) = two(mutated("service_tier", "\"flex\""), "").await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    let got = &world.provider.got()[0];
    assert_eq!((got.json()["service_tier"].as_str(), got.head.contains("x-team: red")), (Some("flex"), true));
    world.put_policy(2, mutated("max_tokens", "100000"));
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.status.as_u16(), 502);
    assert!(refused.text().contains("bodyMutation changes `max_tokens`"), "{}", refused.text());
}

#[tokio::test]
async fn a_new_policy_leaves_requests_in_flight_alone() {
    let (world, second) = two(routed([backend("first", 0)], 1_000), "").await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking =
        tokio::spawn(async move { super::world::http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    world.put_policy(2, routed([backend("second", 0)], 500));
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    world.provider.go();
    assert_eq!(asking.await.unwrap().as_u16(), 200);
    assert_eq!((world.account("per-user", "alice"), second.got().len()), ((60, 0), 1));
}

#[tokio::test]
async fn a_backends_own_budget_counts_what_that_backend_served() {
    let own = |name: &str| {
        let mut budget = tokens(name, 1_000);
        budget.backends = Some(vec![format!("ns/{name}")]);
        budget
    };
    let policy = compile(PolicyParts {
        budgets: vec![own("first"), own("second"), tokens("all", 1_000)],
        routes: vec![route("all", "", both(1, 2))],
        ..PolicyParts::default()
    });
    let (world, _second) = two(policy, "").await;
    world.provider.plays([answer("503 Service Unavailable", "")]);
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    world.resolved().await;
    let spent = |budget: &str| world.account(budget, "alice");
    assert_eq!((spent("first"), spent("second"), spent("all")), ((0, 0), (30, 0), (30, 0)));
}
