//! Tiers: the gateway changes the model by the share of the budget that is left, exactly.

use quorate_policy::runtime::{Budget, CompiledPolicy, SubjectPart, Tier, TierAction};

use super::{
    policies::{config, of_budgets, tokens},
    provider::{answer, chat},
    world::{Answer, World},
};

fn tiered(limit: u64, lowest: TierAction) -> Budget {
    let mut budget = tokens("b", limit);
    let model = |name: &str| TierAction::Model(name.to_owned());
    let tier = |above_percent, action| Tier { above_percent, action };
    budget.tiers = vec![tier(50, model("gpt-4o")), tier(20, model("gpt-4o-mini")), tier(0, lowest)];
    budget
}

async fn world(policy: CompiledPolicy) -> World {
    World::compiled(policy, |url| config(&[("fake", url)], "")).await
}

async fn ask(world: &World, model: &str, output: u64) -> Answer {
    world.provider.plays([answer("200 OK", &chat(10, output - 10))]);
    let body = format!(r#"{{"model":"{model}","messages":[],"max_tokens":20}}"#);
    world.ask("/v1/chat/completions", &body, &[]).await
}

#[tokio::test]
async fn less_left_a_smaller_model_and_then_none() {
    let world = world(of_budgets([tiered(1_000, TierAction::Reject)])).await;
    // 1,000 left, 500 left, 200 left.
    let first = ask(&world, "gpt-4o", 500).await;
    assert_eq!((first.status.as_u16(), first.header("x-quorate-model-downgraded")), (200, None));
    let second = ask(&world, "gpt-4o", 300).await;
    assert_eq!(second.status.as_u16(), 200);
    assert_eq!(second.header("x-quorate-model-downgraded"), Some("gpt-4o -> gpt-4o-mini"));
    let third = ask(&world, "gpt-4o", 100).await;
    assert_eq!((third.status.as_u16(), third.error()["code"].as_str()), (429, Some("rate_limit_exceeded")));
    assert!(third.text().contains("200 of 1000 left"), "{}", third.text());
    let models: Vec<_> = world.provider.got().iter().map(|got| got.json()["model"].clone()).collect();
    assert_eq!(models, ["gpt-4o", "gpt-4o-mini"]);
    world.resolved().await;
    assert_eq!(world.account("b", "alice"), (800, 0), "nothing is held for what was not sent");
    // A new limit lifts all again, at once: what was seen before is no fact.
    world.put_policy(2, of_budgets([tiered(10_000, TierAction::Reject)]));
    let fourth = ask(&world, "gpt-4o", 100).await;
    assert_eq!((fourth.status.as_u16(), fourth.header("x-quorate-model-downgraded")), (200, None));
}

#[tokio::test]
async fn who_asks_for_the_small_model_gets_it() {
    let world = world(of_budgets([tiered(1_000, TierAction::Reject)])).await;
    let answer = ask(&world, "gpt-4o-mini", 600).await;
    assert_eq!(answer.header("x-quorate-model-downgraded"), None);
    let answer = ask(&world, "gpt-4o-mini", 100).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-quorate-model-downgraded")), (200, None));
}

#[tokio::test]
async fn an_account_of_its_own_does_not_lift_the_small_model_up_again() {
    let mut budget = tiered(1_000, TierAction::Reject);
    budget.subject.push(SubjectPart::Model);
    let world = world(of_budgets([budget])).await;
    assert_eq!(ask(&world, "gpt-4o", 600).await.status.as_u16(), 200);
    let answer = ask(&world, "gpt-4o", 100).await;
    assert_eq!(answer.header("x-quorate-model-downgraded"), Some("gpt-4o -> gpt-4o-mini"));
    assert_eq!(world.account("b", "alice + gpt-4o-mini"), (100, 0));
}

#[tokio::test]
async fn a_tier_that_waits_does_so_no_longer_than_the_budget_lets_it() {
    let mut budget = tiered(1_000, TierAction::Wait);
    budget.max_wait_ms = 600;
    let world = world(of_budgets([budget])).await;
    assert_eq!(ask(&world, "gpt-4o", 900).await.status.as_u16(), 200);
    let began = std::time::Instant::now();
    assert_eq!(ask(&world, "gpt-4o", 20).await.status.as_u16(), 429);
    assert!(began.elapsed().as_millis() >= 600);
    assert_eq!(world.account("b", "alice"), (900, 0));
}
