//! Which of several backends of one priority a request goes to, by the strategy of its rule.

use std::{sync::Arc, time::Duration};

use quorate_policy::runtime::{BackendRef, CompiledPolicy, PolicyParts, Prices, Routing, Sticky, Strategy};

use super::{
    keeper::now,
    policies::{backend, compile, config, route},
    provider::{FakeProvider, answer, chat},
    world::World,
};

fn policy(routing: Routing, backends: impl Into<Vec<BackendRef>>) -> CompiledPolicy {
    let mut route = route("all", "", backends);
    route.rules[0].routing = routing;
    compile(PolicyParts { routes: vec![route], prices: Prices::builtin(), ..PolicyParts::default() })
}

async fn two(policy: CompiledPolicy) -> (World, Arc<FakeProvider>) {
    let second = FakeProvider::start().await;
    let url = second.base_url.clone();
    let world = World::compiled(policy, |first| config(&[("first", first), ("second", &url)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    second.plays([answer("200 OK", &chat(10, 20))]);
    (world, second)
}

fn by(strategy: Strategy) -> Routing {
    Routing { strategy, sticky: None }
}

async fn provider_of(world: &World, body: &str, headers: &[(&str, &str)]) -> String {
    let answer = world.ask("/v1/chat/completions", body, headers).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    answer.header("x-ai-provider").unwrap().to_owned()
}

const BODY: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}"#;

#[tokio::test]
async fn the_cheapest_first() {
    let cheap = BackendRef { model_override: Some("gpt-4o-mini".to_owned()), ..backend("second", 0) };
    let unknown = BackendRef { model_override: Some("house-1".to_owned()), ..backend("first", 0) };
    for backends in [[backend("first", 0), cheap.clone()], [unknown, cheap]] {
        let (world, second) = two(policy(by(Strategy::Cheapest), backends)).await;
        for _ in 0..6 {
            assert_eq!(provider_of(&world, BODY, &[]).await, "second");
        }
        assert_eq!((world.provider.got().len(), second.got().len()), (0, 6));
    }
}

#[tokio::test]
async fn the_quickest_first_and_answers_are_measured() {
    let (world, _second) =
        two(policy(by(Strategy::LowestLatency), [backend("first", 0), backend("second", 0)])).await;
    let latencies = &world.core.latencies;
    // A second each: what the fake provider takes now hardly matters.
    for _ in 0..60 {
        latencies.saw("ns/first", "gpt-4o", Duration::from_secs(1_000));
        latencies.saw("ns/second", "gpt-4o", Duration::from_secs(1));
    }
    for _ in 0..6 {
        assert_eq!(provider_of(&world, BODY, &[]).await, "second");
    }
    assert!(latencies.of("ns/second", "gpt-4o", now).unwrap() < 1_000, "it was measured");
    // Refusals are no measurements.
    world.provider.plays([answer("400 Bad Request", "{}")]);
    let (before, only) =
        (latencies.of("ns/first", "gpt-4o", now), policy(by(Strategy::Weighted), [backend("first", 0)]));
    world.put_policy(2, only);
    assert_eq!(world.ask("/v1/chat/completions", BODY, &[]).await.status.as_u16(), 400);
    assert_eq!(latencies.of("ns/first", "gpt-4o", now), before);
}

#[tokio::test]
async fn a_conversation_stays_where_it_began() {
    let routing = Routing { strategy: Strategy::Weighted, sticky: Some(Sticky::Conversation) };
    let (world, second) = two(policy(routing, [backend("first", 0), backend("second", 0)])).await;
    for number in 0..16 {
        let first = format!(
            r#"{{"role":"system","content":"Be brief."}},{{"role":"user","content":"Topic {number}"}}"#
        );
        let began = provider_of(&world, &format!(r#"{{"model":"m","messages":[{first}]}}"#), &[]).await;
        let more = r#"{"role":"assistant","content":"Yes?"},{"role":"user","content":"Go on"}"#;
        let went_on =
            provider_of(&world, &format!(r#"{{"messages":[{first},{more}],"model":"m"}}"#), &[]).await;
        assert_eq!(began, went_on, "{number}");
    }
    assert!(!world.provider.got().is_empty() && !second.got().is_empty());
}

#[tokio::test]
async fn a_header_keeps_requests_together() {
    let routing =
        Routing { strategy: Strategy::Weighted, sticky: Some(Sticky::Header("x-session".to_owned())) };
    let (world, second) = two(policy(routing, [backend("first", 0), backend("second", 0)])).await;
    for session in 0..16 {
        let session = session.to_string();
        let of = async || provider_of(&world, BODY, &[("x-session", session.as_str())]).await;
        assert_eq!(of().await, of().await);
    }
    assert!(!world.provider.got().is_empty() && !second.got().is_empty());
}
