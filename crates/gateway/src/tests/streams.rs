//! What each way of ending costs, for streams, and what the client sees of them.

use http_body_util::BodyExt;

use super::{
    provider::{Step, delta, piece, stream_end, stream_head, usage},
    world::{PER_USER, World, chat_request, http_client},
};

const STREAM: &str = r#","stream":true,"max_tokens":90"#;
const DONE: &str = "data: [DONE]\n\n";

fn complete() -> Vec<Step> {
    vec![
        stream_head(),
        piece(&delta("Hi")),
        piece(&delta(" there")),
        piece(&usage(10, 33)),
        piece(DONE),
        stream_end(),
    ]
}

#[tokio::test]
async fn usage_is_asked_for_and_hidden_and_charged() {
    let world = World::new(PER_USER).await;
    world.provider.plays(complete());
    let answer = world.chat(STREAM).await;
    let expected = format!("{}{}{DONE}: x-ai-gateway-tokens-used=43\n\n", delta("Hi"), delta(" there"));
    assert_eq!((answer.status.as_u16(), answer.text()), (200, expected.as_str()));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-ratelimit-limit"), Some("250, 250;w=604800;name=\"per-user\""));
    assert_eq!(world.alice(), (43, 0));
    assert_eq!(world.provider.got()[0].json()["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn who_asked_for_usage_gets_it() {
    let world = World::new(PER_USER).await;
    world.provider.plays(complete());
    let answer =
        world.chat(r#","stream":true,"stream_options":{"include_usage":true},"max_tokens":90"#).await;
    assert!(answer.text().contains(&usage(10, 33)), "{}", answer.text());
    assert_eq!(world.alice(), (43, 0));
}

#[tokio::test]
async fn trailers_for_those_who_take_them_leave_every_byte_as_it_was() {
    let world = World::new(PER_USER).await;
    world.provider.plays(complete());
    let answer = world.ask("/v1/chat/completions", &chat_request(STREAM), &[("te", "trailers")]).await;
    assert_eq!(answer.text(), format!("{}{}{DONE}", delta("Hi"), delta(" there")));
    assert_eq!(answer.trailers.unwrap()["x-ai-gateway-tokens-used"], "43");
}

#[tokio::test]
async fn the_network_may_cut_anywhere() {
    let world = World::new(PER_USER).await;
    let whole = format!(
        "{}: ping\n\n{}{}{DONE}",
        delta("Hi"),
        delta(" thére").replace("\n\n", "\r\n\r\n"),
        usage(10, 33)
    );
    let mut steps = vec![stream_head()];
    // Every byte a write of its own, some of them inside characters.
    steps.extend(whole.as_bytes().iter().map(|byte| {
        let mut chunk = b"1\r\n".to_vec();
        chunk.extend_from_slice(&[*byte, b'\r', b'\n']);
        Step::Write(chunk)
    }));
    steps.push(stream_end());
    world.provider.plays(steps);
    let answer = world.chat(STREAM).await;
    let expected = whole.replace(&usage(10, 33), "") + ": x-ai-gateway-tokens-used=43\n\n";
    assert_eq!((answer.text(), world.alice()), (expected.as_str(), (43, 0)));
}

#[tokio::test]
async fn what_arrives_together_goes_out_together() {
    let world = World::new(PER_USER).await;
    let events = [delta("Hi"), delta(" there"), delta("!")];
    let mut together = Vec::new();
    for event in &events {
        // A chunk each, as providers send them.
        let Step::Write(chunk) = piece(event) else { panic!("a piece is written") };
        together.extend(chunk);
    }
    world.provider.plays([
        stream_head(),
        Step::Write(together),
        Step::Pause,
        piece(&usage(10, 33)),
        piece(DONE),
        stream_end(),
    ]);
    let mut response = world.open("/v1/chat/completions", &chat_request(STREAM), &[]).await;
    // Of HTTP/1 a frame is a chunk, and a chunk was a piece.
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, events.concat());
    world.provider.go();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, format!("{DONE}: x-ai-gateway-tokens-used=43\n\n"));
    assert_eq!(world.alice(), (43, 0));
}

#[tokio::test]
async fn usage_in_the_last_normal_chunk_counts_too() {
    let world = World::new(PER_USER).await;
    let last = usage(10, 20).replace("[]", "[{\"delta\":{},\"finish_reason\":\"stop\"}]");
    world.provider.plays([stream_head(), piece(&delta("Hi")), piece(&last), piece(DONE), stream_end()]);
    let answer = world.chat(STREAM).await;
    assert!(answer.text().contains(&last));
    assert_eq!((world.alice(), world.estimated()), ((30, 0), 0));
}

#[tokio::test]
async fn a_stream_without_usage_is_counted() {
    let world = World::new(PER_USER).await;
    world.provider.plays([
        stream_head(),
        piece(&delta("one two")),
        piece(&delta(" three")),
        piece(DONE),
        stream_end(),
    ]);
    let answer = world.chat(STREAM).await;
    let (spent, reserved) = world.alice();
    assert!((11..=15).contains(&spent) && reserved == 0, "{spent}");
    assert_eq!(world.estimated(), spent);
    assert!(
        answer.text().ends_with(&format!("{DONE}: x-ai-gateway-tokens-used={spent}\n\n")),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn an_end_without_done_is_an_end() {
    let world = World::new(PER_USER).await;
    world.provider.plays([
        stream_head(),
        piece(&delta("Hi")),
        piece(&usage(10, 33)),
        piece("data: tail"),
        stream_end(),
    ]);
    let answer = world.chat(STREAM).await;
    assert_eq!(answer.text(), format!("{}data: tail: x-ai-gateway-tokens-used=43\n\n", delta("Hi")));
    assert_eq!(world.alice(), (43, 0));
}

#[tokio::test]
async fn half_a_stream_is_no_answer_although_its_end_is_in_order() {
    let world = World::new(PER_USER).await;
    world.provider.plays([stream_head(), piece(&delta("Hi")), stream_end()]);
    let answer = world.chat(STREAM).await;
    assert!(
        answer.text().contains("upstream_died") && !answer.text().contains("[DONE]"),
        "{}",
        answer.text()
    );
    let (spent, reserved) = world.alice();
    assert!(spent > 0 && reserved == 0, "{spent}");
}

#[tokio::test]
async fn who_hangs_up_pays_for_the_input_and_the_output_so_far() {
    let world = World::new(PER_USER).await;
    world.provider.plays([stream_head(), piece(&delta("one two three four five")), Step::UntilClosed]);
    let mut response = world.open("/v1/chat/completions", &chat_request(STREAM), &[]).await;
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, delta("one two three four five"));
    assert!(world.alice().1 > 90);
    drop(response);
    world.resolved().await;
    let (spent, _) = world.alice();
    assert!((13..=17).contains(&spent), "{spent}");
    // The generation was ended too.
    drop(world.provider.closed.acquire().await.unwrap());
    assert_eq!(world.metric("quorate_gateway_hang_ups_total"), Some(1.0));
}

#[tokio::test]
async fn who_hangs_up_before_the_first_byte_pays_for_the_input() {
    let world = World::new(PER_USER).await;
    world.provider.plays([Step::UntilClosed]);
    let request = world.request("/v1/chat/completions", &chat_request(STREAM), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.map(drop) });
    world.provider.asked.notified().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    world.resolved().await;
    let (spent, _) = world.alice();
    assert!((8..=12).contains(&spent), "{spent}");
}

#[tokio::test]
async fn a_backend_that_dies_in_the_middle_is_said_and_charged() {
    let world = World::new(PER_USER).await;
    world.provider.plays([stream_head(), piece(&delta("one two three")), Step::Die]);
    let answer = world.chat(STREAM).await;
    let text = answer.text();
    assert!(text.starts_with(&delta("one two three")) && !text.contains("[DONE]"), "{text}");
    let error = text.strip_prefix(&delta("one two three")).unwrap().strip_prefix("data: ").unwrap();
    let error: serde_json::Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_died");
    let (spent, reserved) = world.alice();
    assert!((11..=15).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn a_backend_that_falls_silent_in_the_middle_is_cut_off() {
    let world = World::with(PER_USER, "timeouts: {idle_ms: 100}\n").await;
    world.provider.plays([stream_head(), piece(&delta("one")), Step::UntilClosed]);
    let answer = world.chat(STREAM).await;
    assert!(answer.text().contains("upstream_timeout"), "{}", answer.text());
    assert_eq!(world.alice().1, 0);
}

#[tokio::test]
async fn an_endless_event_is_cut_off() {
    let world = World::with(PER_USER, "limits: {event_bytes_max: 2048}\n").await;
    world.provider.plays([stream_head(), piece(&"x".repeat(4096)), Step::UntilClosed]);
    let answer = world.chat(STREAM).await;
    assert!(answer.text().contains("upstream_answer_too_large"), "{}", answer.text());
    assert_eq!(world.alice().1, 0);
}

#[tokio::test]
async fn who_does_not_read_holds_nothing_for_long() {
    let world = World::with(&super::world::per_user(100_000_000), "timeouts: {write_ms: 100}\n").await;
    // Far more than any socket buffer.
    let mut steps = vec![stream_head()];
    steps.extend((0..400).map(|_| piece(&delta(&"x".repeat(60_000)))));
    steps.push(Step::UntilClosed);
    world.provider.plays(steps);
    let response = world.open("/v1/chat/completions", &chat_request(STREAM), &[]).await;
    world.resolved().await;
    assert!(world.alice().0 > 0);
    drop(response);
}

#[tokio::test]
async fn an_error_instead_of_a_stream_is_an_error() {
    let world = World::new(PER_USER).await;
    world.provider.plays([super::provider::answer("500 Internal Server Error", "{}")]);
    let answer = world.chat(STREAM).await;
    assert_eq!((answer.status.as_u16(), answer.text(), world.alice()), (500, "{}", (0, 0)));
}

#[tokio::test]
async fn a_stop_lets_streams_finish() {
    let world = World::new(PER_USER).await;
    world.provider.plays([
        stream_head(),
        piece(&delta("Hi")),
        Step::Pause,
        piece(&usage(10, 33)),
        piece(DONE),
        stream_end(),
    ]);
    let mut response = world.open("/v1/chat/completions", &chat_request(STREAM), &[]).await;
    response.body_mut().frame().await.unwrap().unwrap();
    let stopping = tokio::spawn(world.gateway.stop());
    world.core.stop.cancelled().await;
    world.provider.go();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.starts_with(DONE.as_bytes()), "{rest:?}");
    stopping.await.unwrap();
    let account = world.keeper.account("default", "per-user", "alice").unwrap();
    assert_eq!((account.spent.units_floor(), account.reserved.units_floor()), (43, 0));
}

#[tokio::test]
async fn a_stop_cuts_off_what_does_not_finish_and_settles_it() {
    let world = World::with(PER_USER, "timeouts: {stop_ms: 100}\n").await;
    world.provider.plays([stream_head(), piece(&delta("one two")), Step::UntilClosed]);
    let mut response = world.open("/v1/chat/completions", &chat_request(STREAM), &[]).await;
    response.body_mut().frame().await.unwrap().unwrap();
    world.gateway.stop().await;
    let account = world.keeper.account("default", "per-user", "alice").unwrap();
    assert!(account.spent.units_floor() > 8 && account.reserved.is_zero());
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(memchr::memmem::find(&rest, b"stopping").is_some(), "{rest:?}");
}
