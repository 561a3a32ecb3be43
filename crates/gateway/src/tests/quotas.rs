//! Budgets of backends: a request goes to the next backend before it is refused.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Command, Outcome, ProviderView, Window};
use quorate_policy::runtime::{Budget, CompiledPolicy, PolicyParts, Tier, TierAction};

use super::{
    policies::{backend, compile, config, route, tokens},
    provider::{FakeProvider, Step, answer, chat},
    world::{World, chat_request, http_client, until},
};

/// Some 60 tokens at most.
const NAMED: &str = r#","max_completion_tokens":50"#;

/// Of one backend, for all users together.
fn own(name: &str, limit: u64) -> Budget {
    let mut budget = tokens(name, limit);
    budget.backends = Some(vec![format!("ns/{name}")]);
    budget.subject = Vec::new();
    budget
}

fn policy(budgets: impl Into<Vec<Budget>>, backends: &[&str]) -> CompiledPolicy {
    let refs: Vec<_> = (0..).zip(backends).map(|(priority, name)| backend(name, priority)).collect();
    let routes = vec![route("all", "", refs)];
    compile(PolicyParts { budgets: budgets.into(), routes, ..PolicyParts::default() })
}

/// `first` is the world's own provider; each answers with 30 tokens.
async fn world(budgets: impl Into<Vec<Budget>>, backends: &[&str]) -> (World, Vec<Arc<FakeProvider>>) {
    let mut others = Vec::new();
    for _ in &backends[1..] {
        others.push(FakeProvider::start().await);
    }
    let urls: Vec<String> = others.iter().map(|other| other.base_url.clone()).collect();
    let world = World::compiled(policy(budgets, backends), |first| {
        let urls = [first].into_iter().chain(urls.iter().map(String::as_str));
        config(&backends.iter().copied().zip(urls).collect::<Vec<_>>(), "")
    })
    .await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    others.iter().for_each(|other| other.plays([answer("200 OK", &chat(10, 20))]));
    (world, others)
}

/// A request under way at the first backend, for all that it has.
async fn one_under_way(world: &World) -> tokio::task::JoinHandle<u16> {
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status().as_u16() });
    world.provider.asked.notified().await;
    asking
}

#[tokio::test]
async fn the_next_backend_serves_when_a_quota_is_short() {
    let (world, others) = world([own("first", 80), own("second", 1_000)], &["first", "second"]).await;
    for (provider, attempts) in [("first", "1"), ("second", "1"), ("second", "1")] {
        let answer = world.chat(NAMED).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        assert_eq!(answer.header("x-ai-provider"), Some(provider));
        assert_eq!(answer.header("x-quorate-attempts"), Some(attempts));
        world.resolved().await;
    }
    assert_eq!((world.provider.got().len(), others[0].got().len()), (1, 2));
    assert_eq!((world.account("first", ""), world.account("second", "")), ((30, 0), (60, 0)));
    assert_eq!(world.metric("quorate_gateway_passed_over_total{backend=\"ns/first\"}"), Some(2.0));
    assert_eq!(world.metric("quorate_gateway_denials_total"), None);
}

#[tokio::test]
async fn when_all_are_short_the_earliest_says_when_to_try_again() {
    for later in ["first", "second"] {
        let mut budgets = [own("first", 50), own("second", 50)];
        let ends_never = budgets.iter_mut().find(|budget| budget.rule.name == later).unwrap();
        ends_never.rule.window = Window::Lifetime;
        let earlier = if later == "first" { "second" } else { "first" };
        // Something is spent already, so that nothing fits.
        let (world, others) = world(budgets, &["first", "second"]).await;
        world.provider.plays([answer("200 OK", &chat(10, 40))]);
        others[0].plays([answer("200 OK", &chat(10, 40))]);
        let small = r#","max_completion_tokens":20"#;
        for _ in 0..2 {
            assert_eq!(world.chat(small).await.status.as_u16(), 200);
            world.resolved().await;
        }
        let denied = world.chat(small).await;
        assert_eq!(denied.status.as_u16(), 429);
        assert!(denied.text().contains(&format!("budget {earlier} of")), "{}", denied.text());
        assert!(denied.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(denied.header("x-quorate-attempts"), None);
        assert_eq!((world.provider.got().len(), others[0].got().len()), (1, 1));
        let denials = format!("quorate_gateway_denials_total{{budget=\"{earlier}\"}}");
        assert_eq!(world.metric(&denials), Some(1.0));
    }
}

#[tokio::test]
async fn budgets_that_are_no_backends_deny_as_ever() {
    let (world, others) = world([own("first", 1_000), tokens("user", 40)], &["first", "second"]).await;
    let denied = world.chat(NAMED).await;
    assert_eq!(denied.status.as_u16(), 429);
    assert!(denied.text().contains("budget user of"), "{}", denied.text());
    assert!(world.provider.got().is_empty() && others[0].got().is_empty());
    assert_eq!(world.metric("quorate_gateway_passed_over_total"), None);
}

#[tokio::test]
async fn one_budget_with_an_account_for_each_backend_is_theirs_too() {
    let mut each = tokens("each", 80);
    each.subject = vec![quorate_policy::runtime::SubjectPart::Backend];
    let (world, _others) = world([each], &["first", "second"]).await;
    for provider in ["first", "second"] {
        assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some(provider));
        world.resolved().await;
    }
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 429);
    assert_eq!((world.account("each", "ns/first"), world.account("each", "ns/second")), ((30, 0), (30, 0)));
}

#[tokio::test]
async fn after_a_failure_the_next_backends_quota_counts_as_well() {
    let budgets = || [own("second", 50), own("third", 1_000)];
    let (world, others) = world(budgets(), &["first", "second", "third"]).await;
    world.provider.plays([answer("503 Service Unavailable", "{}")]);
    let served = world.chat(NAMED).await;
    assert_eq!(
        (served.header("x-ai-provider"), served.header("x-quorate-attempts")),
        (Some("third"), Some("2"))
    );
    world.resolved().await;
    assert_eq!((others[0].got().len(), others[1].got().len()), (0, 1));
    assert_eq!((world.account("second", ""), world.account("third", "")), ((0, 0), (30, 0)));
    // Where no other has room, it ends as the one that was tried.
    let (world, others) = self::world([own("second", 50)], &["first", "second"]).await;
    world.provider.plays([answer("503 Service Unavailable", "{}")]);
    let failed = world.chat(NAMED).await;
    assert_eq!((failed.status.as_u16(), failed.error()["code"].as_str()), (502, Some("upstream_failed")));
    assert!(others[0].got().is_empty());
}

#[tokio::test]
async fn a_quota_lets_requests_wait_only_where_there_is_no_other_backend() {
    let mut patient = own("first", 80);
    patient.max_wait_ms = 60_000;
    let (world, _others) = world([patient, own("second", 70)], &["first", "second"]).await;
    let asking = one_under_way(&world).await;
    // Well below what the budget lets a request wait.
    let served = tokio::time::timeout(Duration::from_secs(20), world.chat(NAMED)).await.expect("no waiting");
    assert_eq!(served.header("x-ai-provider"), Some("second"));
    world.resolved_but(1).await;
    // Now the second is short as well.
    let request = world.request("/v1/chat/completions", &chat_request(r#","max_completion_tokens":40"#), &[]);
    let waiting = tokio::spawn(async move { http_client().request(request).await.unwrap() });
    until("the third one waits", || world.keeper.waiting() == 1).await;
    world.provider.go();
    assert_eq!(asking.await.unwrap(), 200);
    world.provider.go();
    let served = waiting.await.unwrap();
    assert_eq!(
        (served.status().as_u16(), served.headers()["x-ai-provider"].to_str().unwrap()),
        (200, "first")
    );
}

#[tokio::test]
async fn no_answer_is_shortened_while_another_backend_can_give_all_of_it() {
    // 1,024 tokens of output where nothing is named.
    let (world, others) = world([own("first", 1_100), own("second", 1_100)], &["first", "second"]).await;
    world.provider.plays([answer("200 OK", &chat(10, 90))]);
    others[0].plays([answer("200 OK", &chat(10, 90))]);
    for (provider, limit) in [("first", 1_024), ("second", 1_024), ("first", 980)] {
        let answer = world.chat("").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ai-provider")), (200, Some(provider)));
        let server = if provider == "first" { &world.provider } else { &others[0] };
        let sent = server.got().last().unwrap().json()["max_completion_tokens"].as_u64().unwrap();
        assert!((limit..=limit + 15).contains(&sent), "{provider}: {sent}");
        world.resolved().await;
    }
}

#[tokio::test]
async fn a_tier_that_rejects_passes_the_backend_over() {
    let mut tiered = own("first", 200);
    tiered.tiers = vec![
        Tier { above_percent: 90, action: TierAction::Model("gpt-4o-mini".to_owned()) },
        Tier { above_percent: 0, action: TierAction::Reject },
    ];
    let (world, _others) = world([tiered], &["first", "second"]).await;
    for provider in ["first", "second"] {
        assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some(provider));
        world.resolved().await;
    }
    assert_eq!(world.account("first", ""), (30, 0));
}

#[tokio::test]
async fn a_backend_that_rests_is_not_asked_because_the_others_are_short() {
    let (world, others) = world([own("first", 50)], &["first", "second"]).await;
    world.rests("second", true).await;
    let denied = world.chat(NAMED).await;
    assert_eq!((denied.status.as_u16(), others[0].got().len()), (429, 0));
}

/// While it waited for the first backend's budget, that one was told to rest, and the other was there again.
#[tokio::test]
async fn what_was_held_for_one_backend_is_not_charged_for_another() {
    let mut patient = own("first", 80);
    patient.max_wait_ms = 60_000;
    let (world, _others) = world([patient, own("second", 80)], &["first", "second"]).await;
    let asking = one_under_way(&world).await;
    world.rests("second", true).await;
    let request = world.request("/v1/chat/completions", &chat_request(r#","max_completion_tokens":40"#), &[]);
    let waiting = tokio::spawn(async move { http_client().request(request).await.unwrap() });
    until("it waits", || world.keeper.waiting() == 1).await;
    world.rests("second", false).await;
    world.rests("first", true).await;
    world.provider.go();
    assert_eq!(asking.await.unwrap(), 200);
    let served = waiting.await.unwrap();
    assert_eq!(
        (served.status().as_u16(), served.headers()["x-ai-provider"].to_str().unwrap()),
        (200, "second")
    );
    world.resolved().await;
    assert_eq!((world.account("first", ""), world.account("second", "")), ((30, 0), (30, 0)));
}

impl World {
    /// The fleet leaves the backend alone, or no longer.
    async fn rests(&self, name: &str, drained: bool) {
        let backend = format!("ns/{name}");
        let by = "test".to_owned();
        let outcome = self.keeper.apply(&Command::DrainProvider { backend: backend.clone(), drained, by });
        assert!(matches!(outcome, Outcome::ProviderDrained { .. }), "{outcome:?}");
        let told = |view: &ProviderView| view.backend == backend && view.drained_since.is_some() == drained;
        self.watch.until("drained", told).await;
    }

    /// Waits until so many requests still hold something.
    async fn resolved_but(&self, count: usize) {
        self.keeper.until("the others ended", |ledger| ledger.reservations("default").count() == count).await;
    }
}
