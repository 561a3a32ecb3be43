//! Budgets that count different things, and what a request may ask of them.

use quorate_ledger::{Amount, Enforcement, Unit};
use quorate_policy::runtime::{
    Budget, CelCost, CompiledPolicy, Cost, PolicyParts, Price, Prices, TokenKind, WhenShort,
};

use super::{
    policies::{compile, config, of_budgets, of_unit, tokens, units},
    provider::{Step, answer, chat},
    world::{World, chat_request, http_client, until},
};

const NAMED: &str = r#","max_completion_tokens":50"#;

async fn world(policy: CompiledPolicy) -> World {
    let world = World::compiled(policy, |url| config(&[("fake", url)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world
}

fn micros(micros: u64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

fn cel(expression: &str) -> Cost {
    Cost::Cel(CelCost::new(expression).unwrap())
}

/// $1 a million tokens of input, $10 of output.
fn priced(budgets: Vec<Budget>, model: &str) -> CompiledPolicy {
    let mut prices = Prices::none();
    let price = Price { input: units(1), cached_input: units(1), cache_write: units(1), output: units(10) };
    prices.set(model, price, "2026-01-01");
    compile(PolicyParts { budgets, prices, ..PolicyParts::default() })
}

fn spent(world: &World, budget: &str) -> (Amount, Amount) {
    let account = world.keeper.account("default", budget, "alice");
    account.map_or((Amount::ZERO, Amount::ZERO), |account| (account.spent, account.reserved))
}

#[tokio::test]
async fn two_units_on_one_request_are_granted_together_or_not_at_all() {
    // 50 tokens of output at $10 a million are $0.0005; both fit twice.
    let dollars = of_unit("dollars", Unit::Dollars, micros(1_100), Cost::Dollars);
    let world = world(priced(vec![tokens("tokens", 1_000), dollars], "gpt-4o-mini")).await;
    let first = world.chat(NAMED).await;
    assert_eq!(first.status.as_u16(), 200, "{}", first.text());
    assert_eq!(spent(&world, "tokens"), (units(30), Amount::ZERO));
    assert_eq!(spent(&world, "dollars"), (micros(210), Amount::ZERO));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("0.00089"), "the smaller share");
    let denied = world.chat(r#","max_completion_tokens":90"#).await;
    assert_eq!(denied.status.as_u16(), 429);
    assert!(denied.text().contains("$0.00089 of $0.0011 is left"), "{}", denied.text());
    assert_eq!(spent(&world, "tokens"), (units(30), Amount::ZERO), "nothing is held in the other");
}

#[tokio::test]
async fn a_model_without_a_price_is_denied_by_name_unless_the_budget_only_watches() {
    let mut dollars = of_unit("dollars", Unit::Dollars, units(1), Cost::Dollars);
    let world = world(priced(vec![dollars.clone()], "another")).await;
    let denied = world.chat(NAMED).await;
    assert_eq!((denied.status.as_u16(), denied.error()["code"].as_str()), (403, Some("no_price")));
    assert!(
        denied.text().contains("gpt-4o-mini") && denied.text().contains("ModelPrice"),
        "{}",
        denied.text()
    );
    dollars.rule.enforcement = Enforcement::Shadow;
    world.put_policy(2, priced(vec![dollars.clone()], "another"));
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    dollars.rule.enforcement = Enforcement::Reserve;
    let fallback = Price { input: units(1), cached_input: units(1), cache_write: units(1), output: units(1) };
    dollars.price_fallback = Some(fallback);
    world.put_policy(3, priced(vec![dollars], "another"));
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(spent(&world, "dollars").0, micros(30));
}

#[tokio::test]
async fn a_cost_that_fails_is_charged_as_tokens_with_a_warning() {
    // Fails for 20 tokens of output, which no sample has.
    let budget =
        of_unit("cost", Unit::Cost, units(10_000), cel("output_tokens == 20 ? 1 / (output_tokens - 20) : 2"));
    let world = world(of_budgets([budget])).await;
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(spent(&world, "cost"), (units(30), Amount::ZERO));
    assert!(world.metric("quorate_gateway_cost_errors_total{budget=\"cost\"}") >= Some(1.0));
}

#[tokio::test]
async fn expressions_and_numbers_and_costs_of_requests() {
    let by_weight =
        of_unit("weight", Unit::Cost, units(1_000), cel("input_tokens * 0.25 + output_tokens * 1.0"));
    let mut requests = of_unit("requests", Unit::Cost, units(2), Cost::Number(Amount::ZERO));
    requests.request_cost = units(1);
    let output = of_unit("output", Unit::Tokens, units(1_000), Cost::Tokens(TokenKind::Output));
    let world = world(of_budgets([by_weight, requests, output])).await;
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(spent(&world, "weight").0, micros(22_500_000));
    assert_eq!(spent(&world, "requests").0, units(1));
    assert_eq!(spent(&world, "output").0, units(20));
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    let denied = world.chat(NAMED).await;
    assert_eq!(denied.status.as_u16(), 429);
    assert!(denied.text().contains("budget requests"), "{}", denied.text());
    assert_eq!(spent(&world, "weight").0, micros(45_000_000));
}

#[tokio::test]
async fn cached_and_reasoning_tokens_are_charged_where_they_count() {
    let budgets = [
        of_unit("cached", Unit::Tokens, units(1_000), Cost::Tokens(TokenKind::CachedInput)),
        of_unit("reasoning", Unit::Tokens, units(1_000), Cost::Tokens(TokenKind::Reasoning)),
    ];
    let world = world(of_budgets(budgets)).await;
    let usage = r#""usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":12}}"#;
    world.provider.plays([answer("200 OK", &format!("{{\"choices\":[],{usage}}}"))]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!((spent(&world, "cached").0, spent(&world, "reasoning").0), (units(8), units(12)));
    assert_eq!(world.metric("quorate_gateway_tokens_total{kind=\"cached_input\"}"), Some(8.0));
    assert_eq!(world.metric("quorate_gateway_tokens_total{kind=\"reasoning\"}"), Some(12.0));
}

#[tokio::test]
async fn clamp_shrinks_what_a_request_names_and_no_budget_is_exceeded() {
    let mut clamping = tokens("clamp", 60);
    clamping.when_short = WhenShort::Clamp;
    let mut by_weight = of_unit("weight", Unit::Cost, units(70), cel("output_tokens * 2.0"));
    by_weight.when_short = WhenShort::Clamp;
    let world = world(of_budgets([clamping, by_weight])).await;
    let answer = world.chat(r#","max_completion_tokens":500"#).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    // 70 cost units are 35 tokens; 60 tokens less the input would have been more.
    assert_eq!(world.provider.got()[0].json()["max_completion_tokens"], 35);
    // Below the floor nothing is granted.
    let denied = world.chat(r#","max_completion_tokens":500"#).await;
    assert_eq!(denied.status.as_u16(), 429, "{}", denied.text());
    assert_eq!(world.provider.got().len(), 1);
}

#[tokio::test]
async fn the_largest_output_of_a_request() {
    let mut budget = tokens("b", 100_000);
    budget.output_default = 20;
    budget.output_max = Some(40);
    let world = world(of_budgets([budget.clone()])).await;
    let refused = world.chat(NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (400, Some("output_too_large")));
    assert!(refused.text().contains("40 output tokens at most"), "{}", refused.text());
    assert_eq!(world.chat("").await.status.as_u16(), 200);
    budget.when_short = WhenShort::Clamp;
    world.put_policy(2, of_budgets([budget]));
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    let limits: Vec<_> =
        world.provider.got().iter().map(|got| got.json()["max_completion_tokens"].as_u64()).collect();
    assert_eq!(limits, [Some(20), Some(40)]);
}

#[tokio::test]
async fn budgets_that_only_watch_change_nothing() {
    let mut shadow = tokens("shadow", 20);
    shadow.rule.enforcement = Enforcement::Shadow;
    let world = world(of_budgets([shadow])).await;
    for spent_after in [30, 60] {
        assert_eq!(world.chat("").await.status.as_u16(), 200);
        assert_eq!(spent(&world, "shadow"), (units(spent_after), Amount::ZERO));
    }
    assert_eq!(world.provider.got()[0].body, chat_request("").as_bytes(), "no limit is put in");
}

/// A limit of requests, or of input tokens, has nothing to say about how long an answer is.
#[tokio::test]
async fn budgets_that_count_no_output_leave_it_alone() {
    let mut requests = of_unit("requests", Unit::Cost, units(2), Cost::Number(Amount::ZERO));
    requests.request_cost = units(1);
    let by_weight = of_unit("weight", Unit::Cost, units(1_000), cel("input_tokens * 0.25"));
    let world = world(of_budgets([requests.clone(), by_weight])).await;
    assert_eq!(world.chat("").await.status.as_u16(), 200);
    assert_eq!(world.provider.got()[0].body, chat_request("").as_bytes(), "no limit is put in");
    assert_eq!((spent(&world, "requests").0, spent(&world, "weight").0), (units(1), micros(2_500_000)));
    // What a budget names as the largest output holds all the same.
    (requests.output_default, requests.output_max) = (20, Some(40));
    world.put_policy(2, of_budgets([requests]));
    let file = r#","max_completion_tokens":41,"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]"#;
    let body = format!(r#"{{"model":"gpt-4o-mini"{file}}}"#);
    let refused = world.ask("/v1/chat/completions", &body, &[]).await;
    assert_eq!(refused.error()["code"].as_str(), Some("output_too_large"), "{}", refused.text());
    // Nor does a file's unknown size matter.
    let served = world.ask("/v1/chat/completions", &body.replace("41", "40"), &[]).await;
    assert_eq!(served.status.as_u16(), 200, "{}", served.text());
    assert_eq!(world.provider.got().len(), 2);
}

#[tokio::test]
async fn who_may_wait_gets_what_others_give_back() {
    let mut budget = tokens("b", 110);
    budget.max_wait_ms = 20_000;
    let world = world(of_budgets([budget])).await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let ask = |world: &World| {
        let request = world.request("/v1/chat/completions", &chat_request(r#","max_tokens":80"#), &[]);
        tokio::spawn(async move { http_client().request(request).await.unwrap().status() })
    };
    let first = ask(&world);
    world.provider.asked.notified().await;
    let second = ask(&world);
    until("the second one waits", || world.keeper.waiting() == 1).await;
    assert_eq!(world.provider.got().len(), 1);
    world.provider.go();
    assert_eq!(first.await.unwrap().as_u16(), 200);
    world.provider.go();
    // 30 are spent, 80 left: less than 90, and waiting does not help.
    assert_eq!(second.await.unwrap().as_u16(), 429);
    world.put_policy(
        2,
        of_budgets([{
            let mut budget = tokens("b", 160);
            budget.max_wait_ms = 20_000;
            budget
        }]),
    );
    let (third, fourth) = (ask(&world), ask(&world));
    world.provider.go();
    world.provider.go();
    assert_eq!((third.await.unwrap().as_u16(), fourth.await.unwrap().as_u16()), (200, 200));
}

#[tokio::test]
async fn counting_budgets_overshoot_and_then_deny() {
    let mut budget = tokens("count", 40);
    budget.rule.enforcement = Enforcement::Count;
    let world = world(of_budgets([budget])).await;
    for spent_after in [30, 60] {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
        assert_eq!(spent(&world, "count"), (units(spent_after), Amount::ZERO));
    }
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 429);
}
