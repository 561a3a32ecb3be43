//! Backends that rest: who leaves them alone, what the client hears, and who tries again.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use quorate_ledger::{
    Command, Outcome, ProbeEnd, ProbeVerdict, ProviderReport, ProviderSignal, ProviderState, ProviderView,
};
use quorate_policy::runtime::{ClusterLoss, CompiledPolicy, PolicyParts};

use super::{
    keeper::now,
    policies::{backend, compile, config, route, tokens, units},
    provider::{FakeProvider, Step, answer, answer_with, chat, delta, piece, stream_end, stream_head},
    world::{World, chat_request, http_client},
};

const NAMED: &str = r#","max_completion_tokens":50"#;
const MODEL: &str = "gpt-4o-mini";

fn policy(backends: &[(&str, u32)]) -> CompiledPolicy {
    let refs: Vec<_> = backends.iter().map(|(name, priority)| backend(name, *priority)).collect();
    compile(PolicyParts {
        budgets: vec![tokens("per-user", 10_000)],
        routes: vec![route("all", "", refs)],
        ..PolicyParts::default()
    })
}

async fn alone() -> World {
    World::compiled(policy(&[("first", 0)]), |first| config(&[("first", first)], "")).await
}

async fn two() -> (World, Arc<FakeProvider>) {
    let second = FakeProvider::start().await;
    let url = second.base_url.clone();
    let both = policy(&[("first", 1), ("second", 2)]);
    let world = World::compiled(both, |first| config(&[("first", first), ("second", &url)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    second.plays([answer("200 OK", &chat(10, 20))]);
    (world, second)
}

/// As another gateway would.
fn report(world: &World, name: &str, model: &str, change: impl FnOnce(&mut ProviderReport)) {
    let mut report = ProviderReport {
        backend: format!("ns/{name}"),
        model: model.to_owned(),
        reporter: "g2".to_owned(),
        reason: "as told".to_owned(),
        ..ProviderReport::default()
    };
    change(&mut report);
    let outcome = world.keeper.apply(&Command::ReportProvider(report));
    assert!(matches!(outcome, Outcome::ProviderReported { .. }), "{outcome:?}");
}

fn limit(world: &World, name: &str, model: &str, ms: u64) {
    report(world, name, model, |report| {
        report.signal = Some(ProviderSignal::Limited { retry_after_ms: ms });
    });
}

async fn told(world: &World, name: &str, state: ProviderState) {
    let is_so = |view: &ProviderView| view.backend == format!("ns/{name}") && view.state == state;
    world.watch.until(&format!("{name} is {state:?}"), is_so).await;
}

/// It was told, and the moment has passed by every clock.
async fn rest_is_over(world: &World) {
    told(world, "first", ProviderState::Open).await;
    rest_is_over_of(world).await;
}

async fn rest_is_over_of(world: &World) {
    let until = world.keeper.providers().iter().filter_map(|view| view.until).max().unwrap();
    while now() <= until {
        tokio::task::yield_now().await;
    }
}

/// Asks until it is served by `backend`.
async fn served_by(world: &World, backend: &str) {
    let served = async { while world.chat(NAMED).await.header("x-ai-provider") != Some(backend) {} };
    tokio::time::timeout(Duration::from_secs(20), served).await.unwrap();
}

#[tokio::test]
async fn a_backend_that_rests_is_not_used_at_all_and_the_client_hears_why() {
    let (world, second) = two().await;
    limit(&world, "first", MODEL, 60_000);
    told(&world, "first", ProviderState::Open).await;
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    limit(&world, "second", MODEL, 30_000);
    told(&world, "second", ProviderState::Open).await;
    let refused = world.chat(NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (429, Some("provider_limited")));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&after), "the first that is back: {after}");
    for part in ["ns/first is limited for gpt-4o-mini and rests until 20", "ns/second", "(as told)"] {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    assert_eq!((world.provider.got().len(), second.got().len()), (0, 1));
    assert_eq!(world.account("per-user", "alice"), (30, 0), "nothing was held for it");
    assert_eq!(world.metric("quorate_gateway_resting_total"), Some(1.0));
    // A limit is one of a model: others go on.
    let other = r#"{"model":"gpt-4o","messages":[]}"#;
    assert_eq!(world.ask("/v1/chat/completions", other, &[]).await.header("x-ai-provider"), Some("first"));
}

#[tokio::test]
async fn one_that_fails_or_is_drained_is_a_503() {
    let (world, _second) = two().await;
    report(&world, "first", "", |report| {
        (report.failures, report.consecutive_failures) = (3, 3);
    });
    told(&world, "first", ProviderState::Open).await;
    let drain = |drained| Command::DrainProvider { backend: "second".into(), drained, by: "ops".into() };
    world.keeper.apply(&drain(true));
    world.watch.until("it is drained", |view| view.drained_since.is_some()).await;
    let refused = world.chat(NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (503, Some("backends_resting")));
    assert!(refused.text().contains("ns/second is drained"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    world.keeper.apply(&drain(false));
    world.watch.until("it is used", |view| view.backend == "second" && view.drained_since.is_none()).await;
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
}

#[tokio::test]
async fn nothing_is_sent_after_an_own_429_though_nobody_has_answered_yet() {
    let world = alone().await;
    world.watch.stand_still(true);
    world.provider.plays([answer_with("429 Too Many Requests", "retry-after: 30\r\n", "{}")]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 429);
    for _ in 0..3 {
        let refused = world.chat(NAMED).await;
        assert_eq!(refused.error()["code"].as_str(), Some("provider_limited"), "{}", refused.text());
    }
    assert_eq!(world.provider.got().len(), 1);
    world
        .keeper
        .until("the limit was reported", |ledger| ledger.providers().any(|view| view.until.is_some()))
        .await;
    let view = world.keeper.providers().into_iter().find(|view| view.model == MODEL).unwrap();
    assert_eq!(
        (view.state, view.reason.as_str(), view.reporter.as_str()),
        (ProviderState::Open, "status 429", "g1")
    );
    assert!((29_000..=30_000).contains(&view.until.unwrap().since(view.since)));
}

#[tokio::test]
async fn three_failures_in_a_row_are_enough() {
    let world = alone().await;
    world.watch.stand_still(true);
    for (step, status) in [
        (answer("500 Internal Server Error", "{}"), 500),
        (answer("408 Request Timeout", "{}"), 408),
        (answer("400 Bad Request", "{}"), 400),
        (Step::Die, 502),
    ] {
        world.provider.plays([step]);
        assert_eq!(world.chat(NAMED).await.status.as_u16(), status);
    }
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.error()["code"].as_str(), Some("backends_resting"), "{}", refused.text());
    assert!(refused.text().contains("ns/first fails for gpt-4o-mini and rests until"), "{}", refused.text());
    assert_eq!(world.provider.got().len(), 4);
    let failing = |view: &ProviderView| view.model == MODEL && view.state == ProviderState::Open;
    world.keeper.until("the ledger has it", |ledger| ledger.providers().any(|view| failing(&view))).await;
}

#[tokio::test]
async fn a_backend_that_is_not_there_rests_for_all_of_its_models() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}/v1");
    let world = World::compiled(policy(&[("gone", 0)]), |_| config(&[("gone", &url)], "")).await;
    for model in ["a", "b", "c"] {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        assert_eq!(world.ask("/v1/chat/completions", &body, &[]).await.status.as_u16(), 502);
    }
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.error()["code"].as_str(), Some("backends_resting"), "{}", refused.text());
    world
        .watch
        .until("all of it rests", |view| view.model.is_empty() && view.state == ProviderState::Open)
        .await;
}

#[tokio::test]
async fn successes_are_reported_together_with_their_time() {
    let world = alone().await;
    let began = std::time::Instant::now();
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    for _ in 0..5 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    }
    world.watch.until("the average", |view| view.model == MODEL && view.first_byte_ms.is_some()).await;
    let most = began.elapsed().as_secs() as usize + 1;
    assert!(world.keeper.reports() <= most, "{} reports of 5 calls", world.keeper.reports());
}

#[tokio::test]
async fn a_success_that_used_up_the_limit_is_the_last_for_a_while() {
    let world = alone().await;
    let left = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 20s\r\n";
    world.provider.plays([answer_with("200 OK", left, &chat(1, 2))]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.error()["code"].as_str(), Some("provider_limited"), "{}", refused.text());
    assert_eq!(world.provider.got().len(), 1);
}

#[tokio::test]
async fn one_request_is_the_probe_and_the_others_pass_it_over() {
    let (world, second) = two().await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let probe = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    told(&world, "first", ProviderState::HalfOpen).await;
    for _ in 0..4 {
        assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    }
    assert_eq!((world.provider.got().len(), second.got().len()), (1, 4));
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world.provider.go();
    assert_eq!(probe.await.unwrap().as_u16(), 200);
    told(&world, "first", ProviderState::Closed).await;
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("first"));
    assert_eq!(world.metric("quorate_gateway_probes_total{kind=\"passed\"}"), Some(1.0));
}

#[tokio::test]
async fn failures_of_calls_from_before_say_nothing_of_a_backend_that_works_again() {
    let world = alone().await;
    world.provider.plays([Step::Pause, Step::Die]);
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
            tokio::spawn(async move { http_client().request(request).await.unwrap().status() })
        })
        .collect();
    while world.provider.got().len() < 3 {
        world.provider.asked.notified().await;
    }
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let claim = Command::ClaimProbe {
        backend: "ns/first".into(),
        model: MODEL.into(),
        holder: "g2".into(),
        probe: 7,
        lease_ms: 10_000,
    };
    assert!(matches!(world.keeper.apply(&claim), Outcome::ProbeGranted { .. }));
    report(&world, "first", MODEL, |report| {
        report.probe = Some(ProbeEnd { probe: 7, verdict: ProbeVerdict::Passed });
    });
    told(&world, "first", ProviderState::Closed).await;
    (0..3).for_each(|_| world.provider.go());
    for asked in asking {
        assert_eq!(asked.await.unwrap().as_u16(), 502);
    }
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    let answer = world.chat(NAMED).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
}

#[tokio::test]
async fn a_claim_that_is_refused_goes_to_the_next_backend() {
    let (world, second) = two().await;
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    // Another gateway was faster, and this one has not heard of it.
    world.watch.stand_still(true);
    let claim = Command::ClaimProbe {
        backend: "ns/first".into(),
        model: MODEL.into(),
        holder: "g2".into(),
        probe: 7,
        lease_ms: 10_000,
    };
    assert!(matches!(world.keeper.apply(&claim), Outcome::ProbeGranted { .. }));
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    assert_eq!((world.provider.got().len(), second.got().len()), (0, 1));
    // It has passed, and this one has not heard of that either: the claim is answered so.
    report(&world, "first", MODEL, |report| {
        report.probe = Some(ProbeEnd { probe: 7, verdict: ProbeVerdict::Passed });
    });
    served_by(&world, "first").await;
}

#[tokio::test]
async fn a_probe_that_fails_makes_the_rest_longer_and_the_request_goes_on() {
    let (world, _second) = two().await;
    world.provider.plays([answer("503 Service Unavailable", "busy")]);
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let answer = world.chat(NAMED).await;
    assert_eq!(
        (answer.header("x-ai-provider"), answer.header("x-quorate-attempts")),
        (Some("second"), Some("2"))
    );
    world.watch.until("it rests again", |view| view.openings == 2 && view.state == ProviderState::Open).await;
    assert_eq!(world.chat(NAMED).await.header("x-quorate-attempts"), Some("1"));
    assert_eq!(world.provider.got().len(), 1);
}

#[tokio::test]
async fn a_good_status_alone_is_no_success_and_closes_nothing() {
    let stream = r#","max_completion_tokens":50,"stream":true"#;
    let error = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;
    let half = |text: &str| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{text}");
        vec![Step::Write(head.into_bytes()), Step::Die]
    };
    for (asked, steps) in [
        (NAMED, vec![answer("200 OK", "<html>")]),
        (NAMED, vec![answer("200 OK", error)]),
        (NAMED, half("{")),
        (NAMED, vec![answer_with("302 Found", "location: /\r\n", "")]),
        (stream, vec![stream_head(), stream_end()]),
        (stream, vec![stream_head(), Step::Die]),
        (stream, vec![stream_head(), piece(&format!("data: {error}\n\n")), stream_end()]),
        (stream, vec![stream_head(), piece("data: <html>\n\n"), stream_end()]),
    ] {
        let world = alone().await;
        world.provider.plays(steps.clone());
        limit(&world, "first", MODEL, 1);
        rest_is_over(&world).await;
        world.chat(asked).await;
        let again = |view: &ProviderView| view.state == ProviderState::Open && view.openings == 2;
        world.watch.until(&format!("{steps:?}"), again).await;
        let view = world.keeper.providers().into_iter().find(|view| view.model == MODEL).unwrap();
        assert_eq!(view.first_byte_ms, None, "{steps:?}");
    }
}

#[tokio::test]
async fn a_probe_passes_with_the_first_piece_of_its_stream_and_a_call_is_judged_once() {
    let world = alone().await;
    world.provider.plays([stream_head(), piece(&delta("Hi")), Step::Pause, Step::Die]);
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let body = chat_request(r#","stream":true,"max_tokens":50"#);
    let open = world.open("/v1/chat/completions", &body, &[]).await;
    told(&world, "first", ProviderState::Closed).await;
    world.provider.go();
    assert!(
        String::from_utf8_lossy(&open.into_body().collect().await.unwrap().to_bytes())
            .contains("upstream_died")
    );
    // That was the first failure, and each of these is one, though its body breaks off as well.
    let broken = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 500\r\n\r\n{".to_vec();
    world.provider.plays([Step::Write(broken), Step::Die]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 502);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 502);
    assert_eq!(world.chat(NAMED).await.error()["code"].as_str(), Some("backends_resting"));
}

#[tokio::test]
async fn a_probe_whose_client_leaves_is_given_up_at_once() {
    let world = alone().await;
    world.provider.plays([Step::UntilClosed]);
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let body = chat_request(r#","stream":true,"max_tokens":50"#);
    let request = world.request("/v1/chat/completions", &body, &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.map(|_| ()) });
    world.provider.asked.notified().await;
    told(&world, "first", ProviderState::HalfOpen).await;
    asking.abort();
    told(&world, "first", ProviderState::Open).await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    // The claim of the one that left is over when the ledger has answered.
    let passed = async { while world.chat(NAMED).await.status.as_u16() != 200 {} };
    tokio::time::timeout(Duration::from_secs(20), passed).await.unwrap();
    told(&world, "first", ProviderState::Closed).await;
}

#[tokio::test]
async fn without_a_cluster_to_claim_from_the_backend_stays_alone() {
    let (world, second) = two().await;
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    world.keeper.refuse_claims();
    assert_eq!(world.chat(NAMED).await.header("x-ai-provider"), Some("second"));
    assert_eq!((world.provider.got().len(), second.got().len()), (0, 1));
}

#[tokio::test]
async fn where_the_first_limits_and_the_next_may_not_be_tried_the_client_is_told_to_slow_down() {
    let (world, second) = two().await;
    world.provider.plays([answer_with("429 Too Many Requests", "retry-after: 30\r\n", "{}")]);
    limit(&world, "second", MODEL, 1);
    told(&world, "second", ProviderState::Open).await;
    rest_is_over_of(&world).await;
    world.keeper.refuse_claims();
    let refused = world.chat(NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (429, Some("provider_limited")));
    assert!(refused.header("retry-after").is_some() && refused.text().contains("ns/first is limited"));
    assert_eq!((world.provider.got().len(), second.got().len()), (1, 0));
    assert_eq!(world.account("per-user", "alice"), (0, 0));
}

#[tokio::test]
async fn a_wrong_key_is_a_failure_and_what_a_client_may_bring_about_is_none() {
    for (status, fails) in [
        ("401 Unauthorized", true),
        ("402 Payment Required", true),
        ("403 Forbidden", false),
        ("404 Not Found", false),
    ] {
        let world = alone().await;
        world.provider.plays([answer(status, "{}")]);
        for _ in 0..3 {
            assert_eq!(world.chat(NAMED).await.status.as_str(), &status[..3], "the provider's own answer");
        }
        world.provider.plays([answer("200 OK", &chat(1, 2))]);
        assert_eq!(world.chat(NAMED).await.status.is_success(), !fails, "{status}");
        if fails {
            let rests = |view: &ProviderView| view.reason == format!("status {}", &status[..3]);
            world.watch.until("why it rests", rests).await;
        }
    }
}

#[tokio::test]
async fn counting_here_claims_no_probe() {
    let world = alone().await;
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    let counted = world.ask("/v1/messages/count_tokens", &chat_request(""), &[]).await;
    assert_eq!(counted.status.as_u16(), 200, "{}", counted.text());
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200, "the probe is still to be had");
    assert_eq!(world.metric("quorate_gateway_probes_total{kind=\"givenup\"}"), None);
}

#[tokio::test]
async fn a_report_that_is_lost_is_made_again() {
    let world = alone().await;
    world.provider.plays([Step::Pause, answer_with("429 Too Many Requests", "retry-after: 30\r\n", "{}")]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    world.keeper.set_reachable(false);
    world.provider.go();
    assert_eq!(asking.await.unwrap().as_u16(), 429);
    assert!(world.keeper.providers().is_empty());
    world.keeper.set_reachable(true);
    told(&world, "first", ProviderState::Open).await;
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.error()["code"].as_str(), Some("provider_limited"), "{}", refused.text());
}

#[tokio::test]
async fn where_requests_go_on_without_the_cluster_the_gateway_tries_alone_one_at_a_time() {
    let mut budget = tokens("per-user", 10_000);
    budget.on_cluster_loss = ClusterLoss::FailOpen { up_to: units(10_000) };
    let policy = compile(PolicyParts {
        budgets: vec![budget],
        routes: vec![route("all", "", [backend("first", 0)])],
        ..PolicyParts::default()
    });
    let world = World::compiled(policy, |first| config(&[("first", first)], "")).await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    limit(&world, "first", MODEL, 1);
    rest_is_over(&world).await;
    world.keeper.set_reachable(false);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let first = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    let refused = world.chat(NAMED).await;
    assert_eq!(refused.error()["code"].as_str(), Some("provider_limited"), "{}", refused.text());
    assert!(refused.text().contains("another request is trying"), "{}", refused.text());
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world.provider.go();
    assert_eq!(first.await.unwrap().as_u16(), 200);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(world.provider.got().len(), 2);
}
