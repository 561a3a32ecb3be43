//! The shared manifests at one gateway: what they describe, seen over HTTP.

use super::{
    policies::config,
    provider::{FakeProvider, answer, chat},
    shared::shared,
    world::World,
};
use crate::lower;

/// All of them, or `None` where the folder is missing. Their windows end with the year: one that ended within the test
/// would take with it what was counted.
fn manifests() -> Option<String> {
    let files = std::fs::read_dir(shared("manifests")?).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let texts: Vec<String> = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let text = texts.join("\n---\n");
    Some(text.replace("unit: Hour", "unit: Year").replace("unit: Day", "unit: Year"))
}

#[tokio::test]
async fn the_tutorials_manifests_route_fall_back_and_count() {
    let Some(text) = manifests() else { return };
    let anthropic = FakeProvider::start().await;
    let url = anthropic.base_url.clone();
    let world = World::compiled(lower::compile(&text).unwrap(), |openai| {
        config(&[("openai-backend", openai), ("anthropic-backend", &url)], "")
    })
    .await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    anthropic.plays([answer("200 OK", &chat(10, 20))]);
    let body = r#"{"model":"gpt-4o","messages":[],"max_tokens":20}"#;
    let headers = [("x-team-id", "engineering")];
    let first = world.ask("/v1/chat/completions", body, &headers).await;
    assert_eq!((first.status.as_u16(), first.header("x-ai-provider")), (200, Some("openai-backend")));
    world.provider.plays([answer("503 Service Unavailable", "")]);
    let second = world.ask("/v1/chat/completions", body, &headers).await;
    assert_eq!((second.status.as_u16(), second.header("x-ai-provider")), (200, Some("anthropic-backend")));
    assert_eq!(second.header("x-quorate-backend"), Some("ai-services/anthropic-backend"));
    let limits = second.header("x-ratelimit-limit").unwrap();
    assert!(limits.contains("50000;w=31536000") && limits.contains("10000000;w=31536000"), "{limits}");
    // Each of them counts the two answers.
    let accounts: Vec<u64> = world.keeper.spent("default");
    assert!(accounts.len() >= 3 && accounts.iter().all(|spent| *spent == 60), "{accounts:?} {limits}");
    let other = world.ask("/v1/chat/completions", r#"{"model":"gpt-9","messages":[]}"#, &headers).await;
    assert_eq!(other.status.as_u16(), 404, "{}", other.text());
}
