//! The budget cluster goes away and comes back.

use std::sync::Arc;

use quorate_ledger::{Enforcement, Unit};
use quorate_policy::runtime::{Budget, ClusterLoss, CompiledPolicy, Cost};

use super::{
    policies::{config, of_budgets, of_unit, tokens, units},
    provider::{Step, answer, chat},
    world::{World, chat_request, http_client},
};

const NAMED: &str = r#","max_completion_tokens":20"#;

fn open(name: &str, limit: u64, up_to: u64) -> Budget {
    let mut budget = tokens(name, limit);
    budget.on_cluster_loss = ClusterLoss::FailOpen { up_to: units(up_to) };
    budget
}

async fn world(policy: CompiledPolicy) -> World {
    let world = World::compiled(policy, |url| config(&[("fake", url)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world
}

#[tokio::test]
async fn up_to_its_allowance_a_gateway_goes_on_and_charges_it_afterwards() {
    // A request holds about 30 and uses 30.
    let world = world(of_budgets([open("b", 1_000, 100)])).await;
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(world.account("b", "alice"), (30, 0));
    world.keeper.set_reachable(false);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(world.chat(NAMED).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 503, 503]);
    assert_eq!(world.metric("quorate_gateway_fail_open_total"), Some(3.0));
    assert_eq!(world.account("b", "alice"), (30, 0));
    world.keeper.set_reachable(true);
    world
        .keeper
        .until("the debt is charged", |ledger| {
            let account = ledger.account(super::keeper::now(), "default", "b", "alice");
            account.is_some_and(|account| account.spent == units(120) && account.reserved.is_zero())
        })
        .await;
}

#[tokio::test]
async fn a_debt_beyond_the_limit_is_charged_all_the_same() {
    let world = world(of_budgets([open("b", 50, 100)])).await;
    world.keeper.set_reachable(false);
    for _ in 0..2 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    }
    world.keeper.set_reachable(true);
    world
        .keeper
        .until("the debt is charged", |ledger| {
            let account = ledger.account(super::keeper::now(), "default", "b", "alice");
            account.is_some_and(|account| account.spent == units(60))
        })
        .await;
}

#[tokio::test]
async fn what_ends_while_the_gateway_stops_is_charged_too() {
    let world = world(of_budgets([open("b", 1_000, 100)])).await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    world.keeper.set_reachable(false);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    world.keeper.set_reachable(true);
    let (core, keeper) = (Arc::clone(&world.core), Arc::clone(&world.keeper));
    let stopping = tokio::spawn(world.gateway.stop());
    core.stop.cancelled().await;
    world.provider.go();
    assert_eq!(asking.await.unwrap().as_u16(), 200);
    stopping.await.unwrap();
    let account = keeper.account("default", "b", "alice").unwrap();
    assert_eq!((account.spent, account.reserved.is_zero()), (units(30), true));
    assert_eq!(core.metrics.fail_open_lost.get(), 0);
}

#[tokio::test]
async fn one_budget_that_fails_closed_closes_for_all() {
    let world = world(of_budgets([open("b", 1_000, 100), tokens("closed", 1_000)])).await;
    world.keeper.set_reachable(false);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (503, Some("budget_unavailable")));
    assert!(world.provider.got().is_empty());
}

#[tokio::test]
async fn a_debt_whose_charge_is_not_heard_of_is_charged_once() {
    let world = world(of_budgets([open("b", 1_000, 100)])).await;
    world.keeper.set_reachable(false);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    // The reservation for the debt is made, and nobody hears of it.
    world.keeper.go_away_after_the_next_reservation();
    world.keeper.set_reachable(true);
    world.keeper.until("the debt is held", |ledger| ledger.reservations("default").count() == 1).await;
    world.keeper.set_reachable(true);
    world
        .keeper
        .until("the debt is charged, and nothing else is held", |ledger| {
            let account = ledger.account(super::keeper::now(), "default", "b", "alice");
            account.is_some_and(|account| account.spent == units(30) && account.reserved.is_zero())
        })
        .await;
    assert_eq!(world.metric("quorate_gateway_fail_open_lost_total"), Some(0.0));
}

#[tokio::test]
async fn a_debt_is_not_charged_in_another_unit() {
    let world = world(of_budgets([open("b", 1_000, 100)])).await;
    world.keeper.set_reachable(false);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    let counted = of_unit("b", Unit::Cost, units(100_000), Cost::Number(units(2)));
    world.keeper.put_policy(&of_budgets([counted]));
    world.keeper.set_reachable(true);
    let released = |ledger: &quorate_ledger::Ledger| {
        let tenant = ledger.tenants("").find(|tenant| tenant.name == "default");
        tenant.is_some_and(|tenant| tenant.granted_total == 1 && tenant.open_reservations == 0)
    };
    world.keeper.until("the debt was looked at", released).await;
    assert_eq!(world.account("b", "alice"), (0, 0));
}

#[tokio::test]
async fn budgets_that_only_watch_close_nothing() {
    let mut watching = tokens("b", 10);
    watching.rule.enforcement = Enforcement::Shadow;
    watching.rule.accounts_max = 1;
    let world = world(of_budgets([watching, tokens("bound", 1_000)])).await;
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    // It has no room for another subject; the other budget counts it all the same.
    let body = chat_request(NAMED);
    let bob = world.ask_bare("/v1/chat/completions", &body, &[("x-user-id", "bob")]).await;
    assert_eq!(bob.status.as_u16(), 200, "{}", bob.text());
    assert_eq!((world.account("b", "bob"), world.account("bound", "bob")), ((0, 0), (30, 0)));
    assert_eq!(world.metric("quorate_gateway_accounts_capped_total{budget=\"b\"}"), Some(1.0));
    let mut watching = tokens("b", 10);
    watching.rule.enforcement = Enforcement::Shadow;
    world.put_policy(2, of_budgets([watching]));
    world.keeper.set_reachable(false);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
}
