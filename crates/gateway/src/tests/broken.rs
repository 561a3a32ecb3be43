//! Providers of every kind that break their promises: what the client gets, what is charged, and what the fleet believes
//! of them then. The table is in docs/gateway.md, a row a test here.

use std::time::{Duration, Instant};

use quorate_ledger::{Command, ProviderReport, ProviderState, ProviderView};
use quorate_policy::runtime::{CompiledPolicy, PolicyParts, Routing, Strategy};

use super::{
    kinds::{KINDS, Kind, WORDS, world_of},
    policies::{backend, compile, route, tokens},
    provider::{FakeProvider, Step, answer, delta, piece, stream_end, stream_head},
    world::{Answer, World, chat_request},
};

const STREAM: &str = r#","max_completion_tokens":50,"stream":true"#;
const WHOLE: &str = r#","max_completion_tokens":50"#;
const QUICK: &str = "timeouts: {first_byte_ms: 200, idle_ms: 200}\n";
/// What the request's input counts.
const INPUT: std::ops::RangeInclusive<u64> = 8..=20;

fn policy(backends: &[&str]) -> CompiledPolicy {
    let backends: Vec<_> = (1..).zip(backends).map(|(priority, name)| backend(name, priority)).collect();
    compile(PolicyParts {
        budgets: vec![tokens("per-user", 1_000)],
        routes: vec![route("all", "", backends)],
        ..PolicyParts::default()
    })
}

/// One backend that plays `steps`. Each time is a failure for this reason: with the third the whole fleet leaves it alone.
async fn alone(kind: Kind, request: &str, steps: impl Into<Vec<Step>>, why: &str) -> (Answer, u64) {
    let world = world_of(policy(&["first"]), kind, &[], QUICK).await;
    world.provider.plays(steps);
    let ask = async || world.ask("/v1/chat/completions", &chat_request(request), &[]).await;
    let first = ask().await;
    world.resolved().await;
    let spent = world.account("per-user", "alice").0;
    ask().await;
    assert!(
        world.keeper.providers().iter().all(|view| view.state == ProviderState::Closed),
        "{kind:?} {why}"
    );
    ask().await;
    let rests = |view: &ProviderView| {
        (view.model.as_str(), view.reason.as_str(), view.state) == ("gpt-4o-mini", why, ProviderState::Open)
    };
    world.watch.until(&format!("{kind:?} rests because of {why}"), rests).await;
    let refused = ask().await;
    assert_eq!((code(&refused), world.provider.got().len()), (failed(503, "backends_resting"), 3));
    (first, spent)
}

/// Another backend stands behind it, which answers with 10 + 20 tokens.
async fn with_another(kind: Kind, request: &str, steps: impl Into<Vec<Step>>) -> (Answer, u64) {
    let second = FakeProvider::start().await;
    let others = [("second", Kind::OpenAI, second.base_url.as_str())];
    let world = world_of(policy(&["first", "second"]), kind, &others, QUICK).await;
    second.plays([Kind::OpenAI.answers()]);
    world.provider.plays(steps);
    let answer = world.ask("/v1/chat/completions", &chat_request(request), &[]).await;
    assert_eq!(second.got().len(), 1, "{kind:?} {}", answer.text());
    world.resolved().await;
    (answer, world.account("per-user", "alice").0)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.error()["code"].as_str().unwrap_or_default().to_owned())
}

fn failed(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A stream of `parts`, each a list of steps.
fn stream(kind: Kind, parts: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
    std::iter::once(kind.head()).chain(parts.into_iter().flatten()).collect()
}

/// As its client reads it, before anything else.
fn begins_with_hi(answer: &Answer) -> bool {
    let first = answer.text().split("\n\n").find(|event| event.contains("\"content\":\"Hi\""));
    answer.status == 200 && first.is_some() && !answer.text().contains("[DONE]")
}

#[tokio::test]
async fn one_that_hangs() {
    for kind in KINDS {
        for (request, steps) in [
            (WHOLE, vec![Step::Pause]),
            // The head of a stream, and nothing of its answer.
            (STREAM, vec![kind.head(), Step::Pause]),
        ] {
            let (answer, spent) = alone(kind, request, steps.clone(), "timeout").await;
            assert_eq!(code(&answer), failed(504, "upstream_timeout"), "{kind:?}");
            assert!(INPUT.contains(&spent), "{kind:?} {spent}");
            let (answer, spent) = with_another(kind, request, steps).await;
            assert_eq!(answer.status.as_u16(), 200);
            assert!(INPUT.contains(&(spent - 30)), "{kind:?} {spent}");
        }
    }
    // A sign of life is no answer.
    let steps = [stream_head(), piece(": processing\n\n"), Step::Pause];
    let (answer, _) = with_another(Kind::OpenAI, STREAM, steps).await;
    assert_eq!(answer.header("x-ai-provider"), Some("second"));
}

#[tokio::test]
async fn one_that_sends_half_an_answer() {
    for kind in KINDS {
        let Step::Write(mut bytes) = kind.answers() else { unreachable!() };
        bytes.truncate(bytes.len() - 40);
        let steps = vec![Step::Write(bytes), Step::Die];
        let (answer, spent) = alone(kind, WHOLE, steps.clone(), "died").await;
        assert_eq!(code(&answer), failed(502, "upstream_died"), "{kind:?}");
        assert!(spent > 8, "what arrived of the answer is charged: {spent}");
        let (answer, spent) = with_another(kind, WHOLE, steps).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert!(spent > 38, "{kind:?} {spent}");
    }
}

#[tokio::test]
async fn one_that_sends_half_a_stream() {
    for kind in KINDS {
        for (end, why) in [(Step::Die, "died"), (stream_end(), "died"), (Step::Pause, "timeout")] {
            let (answer, spent) = alone(kind, STREAM, stream(kind, [kind.hi(), vec![end]]), why).await;
            assert!(begins_with_hi(&answer), "{kind:?} {}", answer.text());
            assert!(answer.text().contains("upstream_"), "an error event ends it: {}", answer.text());
            assert!((INPUT.start() + 1..=INPUT.end() + 1).contains(&spent), "{kind:?} {spent}");
        }
        for end in [Step::Die, stream_end()] {
            let (answer, spent) = with_another(kind, STREAM, vec![kind.head(), end]).await;
            assert_eq!(answer.header("x-ai-provider"), Some("second"), "the client had heard nothing yet");
            assert!(INPUT.contains(&(spent - 30)), "{kind:?} {spent}");
        }
    }
}

#[tokio::test]
async fn one_that_says_200_with_an_error_inside() {
    for kind in KINDS {
        for (request, steps) in [
            (WHOLE, vec![answer("200 OK", &kind.error())]),
            (STREAM, stream(kind, [vec![kind.error_event(), stream_end()]])),
        ] {
            let (answer, spent) = alone(kind, request, steps.clone(), "error_inside").await;
            assert_eq!(code(&answer), failed(503, "upstream_error"), "{kind:?} {request}");
            assert!(answer.text().contains(WORDS), "{}", answer.text());
            assert_eq!(spent, 0, "{kind:?}");
            let (answer, spent) = with_another(kind, request, steps).await;
            assert_eq!((answer.status.as_u16(), spent), (200, 30), "{kind:?}");
        }
        let late = stream(kind, [kind.hi(), vec![kind.error_event(), stream_end()]]);
        let (answer, spent) = alone(kind, STREAM, late, "error_inside").await;
        assert!(begins_with_hi(&answer) && answer.text().contains(WORDS), "{kind:?} {}", answer.text());
        assert!(answer.text().trim_end().ends_with("}}"), "the error is the end: {}", answer.text());
        assert!(INPUT.contains(&(spent - 1)), "{kind:?} {spent}");
    }
}

#[tokio::test]
async fn one_that_sends_garbage() {
    for kind in KINDS {
        for body in ["<html>welcome</html>", "", "[1,2]", "{\"choices\":[{"] {
            let (answer, spent) = alone(kind, WHOLE, vec![answer("200 OK", body)], "garbage").await;
            assert_eq!(code(&answer), failed(502, "upstream_garbage"), "{kind:?} {body}");
            assert!(INPUT.contains(&spent), "{kind:?} {spent}");
        }
        let (answered, spent) = with_another(kind, WHOLE, vec![answer("200 OK", "oops")]).await;
        assert_eq!(answered.status.as_u16(), 200);
        assert!(INPUT.contains(&(spent - 30)), "{kind:?} {spent}");
        // Bedrock: a checksum that is wrong, a length that cannot be, a payload that is no JSON.
        for garbage in kind.garbage_events() {
            let first = stream(kind, [vec![garbage.clone(), stream_end()]]);
            let (answer, spent) = alone(kind, STREAM, first.clone(), "garbage").await;
            assert_eq!(code(&answer), failed(502, "upstream_garbage"), "{kind:?}");
            assert!(INPUT.contains(&spent), "{kind:?} {spent}");
            let (answer, _) = with_another(kind, STREAM, first).await;
            assert_eq!(answer.header("x-ai-provider"), Some("second"));
            let late = stream(kind, [kind.hi(), vec![garbage, stream_end()]]);
            let (answer, spent) = alone(kind, STREAM, late, "garbage").await;
            assert!(begins_with_hi(&answer), "{kind:?} {}", answer.text());
            assert!(answer.text().contains("upstream_garbage"), "{kind:?} {}", answer.text());
            assert!((INPUT.start() + 1..=INPUT.end() + 1).contains(&spent), "{kind:?} {spent}");
        }
    }
}

#[tokio::test]
async fn one_that_is_slow_by_ten_times() {
    let mut route = route("all", "", [backend("first", 0), backend("second", 0)]);
    route.rules[0].routing = Routing { strategy: Strategy::LowestLatency, sticky: None };
    let policy = compile(PolicyParts { routes: vec![route], ..PolicyParts::default() });
    let second = FakeProvider::start().await;
    let others = [("second", Kind::OpenAI, second.base_url.as_str())];
    let world = world_of(policy, Kind::OpenAI, &others, "").await;
    second.plays([Kind::OpenAI.answers()]);
    for (name, ms) in [("first", 10), ("second", 50)] {
        measured(&world, name, ms).await;
    }
    // Its head comes at once, its first piece does not.
    let parts = [stream_head(), Step::Pause, piece(&delta("Hi"))];
    let steps = [parts.to_vec(), Kind::OpenAI.rest(), vec![stream_end()]].concat();
    world.provider.plays(steps);
    let began = Instant::now();
    let request = world.request("/v1/chat/completions", &chat_request(STREAM), &[]);
    let asking = tokio::spawn(super::world::http_client().request(request));
    world.provider.until_asked(1).await;
    while began.elapsed() < Duration::from_millis(500) {
        tokio::task::yield_now().await;
    }
    world.provider.go();
    assert_eq!(asking.await.unwrap().unwrap().headers()["x-ai-provider"], "first");
    let is_slow = |view: &ProviderView| {
        view.backend == "ns/first" && view.first_byte_ms > Some(50) && view.state == ProviderState::Closed
    };
    world.watch.until("its average has risen", is_slow).await;
    let answer = world.chat(WHOLE).await;
    assert_eq!(answer.header("x-ai-provider"), Some("second"), "lowest latency leaves it");
    assert_eq!(world.metric("quorate_gateway_upstream_errors_total"), None, "it is no failure");
}

/// As another gateway has measured it.
async fn measured(world: &World, name: &str, ms: u64) {
    let report = ProviderReport {
        backend: format!("ns/{name}"),
        model: "gpt-4o-mini".to_owned(),
        reporter: "g2".to_owned(),
        successes: 1,
        first_byte_ms_sum: ms,
        first_byte_count: 1,
        ..ProviderReport::default()
    };
    world.keeper.apply(&Command::ReportProvider(report));
    let is_known =
        |view: &ProviderView| view.backend == format!("ns/{name}") && view.first_byte_ms == Some(ms);
    world.watch.until("what another gateway measured", is_known).await;
}
