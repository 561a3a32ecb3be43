//! What requests cost that are translated, or that pass in Anthropic's dialect: a backend of each kind, each played by the
//! same scripted provider.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use http_body_util::BodyExt;
use quorate_policy::runtime::CompiledPolicy;

use super::{
    provider::{Step, answer, stream_end, stream_head},
    world::{World, per_user},
};
use crate::lower;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
/// 10 tokens of OpenAI's.
const TEXT: &str = "Hello there, how are you today, friend?";

/// A world whose backends are named after the first word of their models.
async fn world(limit: u64) -> World {
    with(lower::compile(&per_user(limit)).unwrap()).await
}

async fn with(policy: CompiledPolicy) -> World {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "sk-test").unwrap();
    World::compiled(policy, |base_url| {
        let (root, key) = (base_url.trim_end_matches("/v1"), key.path().display());
        let backend = |name: &str, kind: &str, base: &str| {
            format!("  - {{name: {name}, provider: {kind}, base_url: '{base}', models: [{name}-model], api_key_file: '{key}'}}\n")
        };
        let backends = [
            backend("openai", "OpenAI", base_url),
            backend("gpt-5", "OpenAI", base_url),
            backend("azure", "AzureOpenAI", root),
            backend("claude", "Anthropic", base_url),
            backend("converse", "AWSBedrock, region: r", root),
            backend("invoke", "AWSAnthropic, region: r", root),
        ];
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends:\n{}",
            backends.concat()
        )
    })
    .await
}

fn ask(model: &str, more: &str) -> String {
    format!(r#"{{"model":"{model}-model","messages":[{{"role":"user","content":"Say hello"}}]{more}}}"#)
}

/// A chunk of the transfer encoding, of bytes.
fn chunk(bytes: &[u8]) -> Step {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    Step::Write(chunk)
}

/// The head of one of AWS's streams.
fn aws_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Write(head.as_bytes().to_vec())
}

fn frame(name: &str, payload: &str) -> Vec<u8> {
    let kind = if name.ends_with("Exception") { "exception" } else { "event" };
    let mut message = Message::new(payload.as_bytes().to_vec());
    for (header, value) in [(":message-type", kind), (&format!(":{kind}-type"), name)] {
        let value = HeaderValue::String(value.to_owned().into());
        message = message.add_header(Header::new(header.to_owned(), value));
    }
    let mut out = Vec::new();
    write_message_to(&message, &mut out).unwrap();
    out
}

/// One of Anthropic's events, in the frames of a backend.
fn anthropic(kind: &str, rest: &str, backend: &str) -> Step {
    use base64::Engine as _;
    let data = format!(r#"{{"type":"{kind}"{rest}}}"#);
    if backend == "invoke" {
        let bytes = base64::engine::general_purpose::STANDARD.encode(data);
        chunk(&frame("chunk", &format!(r#"{{"bytes":"{bytes}"}}"#)))
    } else {
        chunk(format!("event: {kind}\ndata: {data}\n\n").as_bytes())
    }
}

/// The beginning of a stream: 20 tokens in, of which 8 out of the cache.
fn begins(backend: &str) -> Vec<Step> {
    let usage = r#"{"input_tokens":12,"cache_read_input_tokens":8,"output_tokens":1}"#;
    let message = format!(r#","message":{{"id":"m","model":"c","usage":{usage}}}"#);
    let head = if backend == "invoke" { aws_head() } else { stream_head() };
    vec![head, anthropic("message_start", &message, backend)]
}

fn block(backend: &str, number: usize, opening: &str, delta: &str) -> Vec<Step> {
    vec![
        anthropic(
            "content_block_start",
            &format!(r#","index":{number},"content_block":{{{opening}}}"#),
            backend,
        ),
        anthropic("content_block_delta", &format!(r#","index":{number},"delta":{{{delta}}}"#), backend),
    ]
}

fn thinking(backend: &str, number: usize) -> Vec<Step> {
    let delta = format!(r#""type":"thinking_delta","thinking":"{TEXT}""#);
    block(backend, number, r#""type":"thinking","thinking":"""#, &delta)
}

fn text(backend: &str, number: usize) -> Vec<Step> {
    let delta = format!(r#""type":"text_delta","text":"{TEXT}""#);
    block(backend, number, r#""type":"text","text":"""#, &delta)
}

fn tool(backend: &str, number: usize) -> Vec<Step> {
    let opening = r#""type":"tool_use","id":"t","name":"tell_me_the_weather_of_tomorrow","input":{}"#;
    let delta = format!(r#""type":"input_json_delta","partial_json":"{{\"a\":\"{TEXT}\"""#);
    block(backend, number, opening, &delta)
}

#[tokio::test]
async fn a_client_that_hangs_up_pays_for_what_came_after_the_usage_so_far() {
    for (path, backend) in [(CHAT, "claude"), (CHAT, "invoke"), (MESSAGES, "claude"), (MESSAGES, "invoke")] {
        let world = world(2_000).await;
        let parts = [thinking(backend, 0), text(backend, 1), tool(backend, 2)].concat();
        world.provider.plays([begins(backend), parts, vec![Step::Pause, Step::UntilClosed]].concat());
        let body = ask(backend, r#","max_tokens":500,"stream":true"#);
        let mut answer = world.open(path, &body, &[]).await.into_body();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("friend?\\") {
            seen.extend(answer.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        drop(answer);
        world.provider.go();
        world.provider.closed.acquire().await.unwrap().forget();
        world.resolved().await;
        let (spent, _) = world.alice();
        // 20 in, 1 of the usage so far, three times the text, and a tool's name of at least 6.
        assert!((20 + 30 + 6..=20 + 50).contains(&spent), "{path} {backend}: {spent}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_costs_no_more_than_was_held() {
    let world = world(2_000).await;
    world.provider.plays([begins("claude"), text("claude", 0), vec![stream_end()]].concat());
    let answer = world.ask(MESSAGES, &ask("claude", r#","max_tokens":4,"stream":true"#), &[]).await;
    assert!(answer.text().contains("upstream_died"), "{}", answer.text());
    assert_eq!(world.alice(), (20 + 4, 0));
}

#[tokio::test]
async fn the_last_usage_of_a_stream_is_what_it_costs() {
    let delta = |usage: &str| format!(r#","delta":{{"stop_reason":"end_turn"}}{usage}"#);
    for (path, backend, usage, spent) in [
        (CHAT, "claude", r#","usage":{"output_tokens":30}"#, 50),
        (MESSAGES, "claude", r#","usage":{"output_tokens":30}"#, 50),
        (CHAT, "invoke", r#","usage":{"output_tokens":30}"#, 50),
        (MESSAGES, "invoke", r#","usage":{"input_tokens":13,"output_tokens":30}"#, 51),
        (
            MESSAGES,
            "claude",
            r#","usage":{"input_tokens":12,"cache_read_input_tokens":8,"cache_creation_input_tokens":5,"output_tokens":30}"#,
            55,
        ),
        // What was generated is counted where the last event does not tell it: 10 after the 1 of the first.
        (CHAT, "claude", "", 31),
        (MESSAGES, "claude", r#","usage":{"input_tokens":12}"#, 31),
    ] {
        let world = world(2_000).await;
        let ends = vec![
            anthropic("content_block_stop", r#","index":0"#, backend),
            anthropic("message_delta", &delta(usage), backend),
            anthropic("message_stop", "", backend),
            stream_end(),
        ];
        world.provider.plays([begins(backend), text(backend, 0), ends].concat());
        let body = ask(backend, r#","max_tokens":500,"stream":true"#);
        let answer = world.ask(path, &body, &[]).await;
        let comment = format!(": x-ai-gateway-tokens-used={spent}\n\n");
        assert!(answer.text().ends_with(&comment), "{path} {backend} {usage}: {}", answer.text());
        assert_eq!(world.alice(), (spent, 0), "{path} {backend} {usage}");
    }
}

const OF_BACKENDS: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs: [{name: first, priority: 0}, {name: second, priority: 1}]
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: quota}
spec:
  selector: {backends: [second]}
  limit: {requests: 1}
  window: Week
";

#[tokio::test]
async fn counting_tokens_is_free_whichever_backend_counts() {
    let world = World::configured(OF_BACKENDS, |base_url| {
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends:\n  \
             - {{name: first, provider: Anthropic, base_url: '{base_url}/first'}}\n  \
             - {{name: second, provider: OpenAI, base_url: '{base_url}/second'}}\n"
        )
    })
    .await;
    world.provider.plays_at("/first", [answer("500 Oops", "{}")]);
    let body = ask("any", "");
    for _ in 0..5 {
        let counted = world.ask("/v1/messages/count_tokens", &body, &[]).await;
        assert_eq!(counted.status.as_u16(), 200, "{}", counted.text());
        assert!(counted.text().contains("input_tokens"), "{}", counted.text());
    }
    let spent = world.keeper.spent("default");
    assert!(spent.iter().all(|spent| *spent == 0), "{spent:?}");
    let held = world.keeper.until("looked", |ledger| ledger.reservations("default").count() == 0);
    tokio::time::timeout(std::time::Duration::from_secs(5), held).await.expect("nothing is held");
}

#[tokio::test]
async fn a_success_that_is_none_costs_what_it_says() {
    let malformed = r#"{"output":{"message":{"content":[]}},"stopReason":"malformed_tool_use","usage":{"inputTokens":7,"outputTokens":5,"cacheReadInputTokens":3}}"#;
    let error = r#"{"error":{"message":"boom"},"usage":{"prompt_tokens":9,"completion_tokens":6}}"#;
    for (path, model, body, status, spent) in [
        (CHAT, "converse", malformed, 502, 15),
        (MESSAGES, "converse", malformed, 502, 15),
        (MESSAGES, "openai", error, 502, 15),
        (
            CHAT,
            "claude",
            r#"{"content":[{"type":"text"}],"usage":{"input_tokens":9,"output_tokens":6}}"#,
            502,
            15,
        ),
        (MESSAGES, "openai", r#"{"error":{"message":"boom"}}"#, 502, 0),
        (CHAT, "claude", r#"{"type":"error","error":{"type":"api_error","message":"boom"}}"#, 500, 0),
    ] {
        let world = world(2_000).await;
        world.provider.plays([answer("200 OK", body)]);
        let answer = world.ask(path, &ask(model, r#","max_tokens":90"#), &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {model}: {}", answer.text());
        assert_eq!(world.alice(), (spent, 0), "{path} {model}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_limit_that_goes_upstream_is_the_one_that_is_held() {
    let named = r#","max_tokens":40"#;
    for (path, model, more, field) in [
        (CHAT, "claude", "", "/max_tokens"),
        (CHAT, "invoke", "", "/max_tokens"),
        (CHAT, "converse", "", "/inferenceConfig/maxTokens"),
        (CHAT, "azure", "", "/max_tokens"),
        (MESSAGES, "claude", "", "/max_tokens"),
        (CHAT, "claude", r#","max_completion_tokens":40,"reasoning_effort":"high""#, "/max_tokens"),
        (CHAT, "invoke", named, "/max_tokens"),
        (CHAT, "converse", named, "/inferenceConfig/maxTokens"),
        (MESSAGES, "converse", named, "/inferenceConfig/maxTokens"),
        (MESSAGES, "invoke", named, "/max_tokens"),
        (MESSAGES, "openai", named, "/max_tokens"),
        (MESSAGES, "azure", named, "/max_tokens"),
        // OpenAI's own models refuse the older name, whoever asks.
        (CHAT, "gpt-5", "", "/max_completion_tokens"),
        (MESSAGES, "gpt-5", named, "/max_completion_tokens"),
    ] {
        let world = world(400).await;
        world.provider.plays([Step::Pause, answer("200 OK", "{}")]);
        let body = ask(model, more);
        let check = async {
            world.provider.until_asked(1).await;
            let got = world.provider.got().remove(0).json();
            let limit = got.pointer(field).and_then(serde_json::Value::as_u64);
            let limit = limit.unwrap_or_else(|| panic!("{path} {model}: {got}"));
            let (_, held) = world.alice();
            // "user" and "Say hello", and a little around them: nothing of the output is left out.
            assert!((limit + 5..=limit + 32).contains(&held), "{path} {model}: {limit} of {held}");
            assert_eq!(more.is_empty(), limit != 40, "{path} {model}: {limit}");
            world.provider.go();
        };
        tokio::join!(world.ask(path, &body, &[]), check);
    }
}

#[tokio::test]
async fn the_cache_counts_once_in_every_dialect() {
    let openai = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50,"prompt_tokens_details":{"cached_tokens":8}}}"#;
    let anthropic = r#"{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"cache_read_input_tokens":8,"cache_creation_input_tokens":3,"output_tokens":30}}"#;
    let converse = r#"{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":9,"outputTokens":30,"totalTokens":50,"cacheReadInputTokens":8,"cacheWriteInputTokens":3}}"#;
    for (model, said) in [
        ("openai", openai),
        ("azure", openai),
        ("claude", anthropic),
        ("invoke", anthropic),
        ("converse", converse),
    ] {
        for path in [CHAT, MESSAGES] {
            let world = world(2_000).await;
            world.provider.plays([answer("200 OK", said)]);
            // Also where the backend gives no stream to who asked for one.
            for (stream, spent) in [("", 50), (r#","stream":true"#, 100)] {
                let body = ask(model, &format!(r#","max_tokens":90{stream}"#));
                let answer = world.ask(path, &body, &[]).await;
                assert_eq!(answer.header("x-ai-gateway-tokens-used"), Some("50"), "{path} {model}");
                assert_eq!(world.alice(), (spent, 0), "{path} {model}");
            }
        }
    }
}

/// A stream of Converse's: some text, then `ends`.
fn converse(ends: &[(&str, &str)]) -> Vec<Step> {
    let text = format!(r#"{{"contentBlockIndex":0,"delta":{{"text":"{TEXT}"}}}}"#);
    let begins = [("messageStart", r#"{"role":"assistant"}"#), ("contentBlockDelta", text.as_str())];
    let frames = begins.iter().chain(ends).map(|(name, payload)| chunk(&frame(name, payload)));
    std::iter::once(aws_head()).chain(frames).chain([stream_end()]).collect()
}

#[tokio::test]
async fn every_end_of_a_converse_stream_is_charged_once() {
    let stop = ("messageStop", r#"{"stopReason":"end_turn"}"#);
    let usage = ("metadata", r#"{"usage":{"inputTokens":12,"outputTokens":30,"cacheReadInputTokens":8}}"#);
    let exception = ("modelStreamErrorException", r#"{"message":"boom"}"#);
    for path in [CHAT, MESSAGES] {
        for (ends, least, most) in [
            (&[stop, usage][..], 50, 50),
            // The input counted, and 10 of the output.
            (&[stop], 13, 70),
            (&[exception], 13, 70),
            (&[], 13, 70),
            (&[stop, exception], 13, 70),
        ] {
            let world = world(2_000).await;
            world.provider.plays(converse(ends));
            let body = ask("converse", r#","max_tokens":90,"stream":true"#);
            let answer = world.ask(path, &body, &[]).await;
            let (spent, reserved) = world.alice();
            assert!((least..=most).contains(&spent) && reserved == 0, "{path} {ends:?}: {spent}");
            let used = format!(": x-ai-gateway-tokens-used={spent}\n\n");
            let complete = matches!(ends, [.., (last, _)] if *last == stop.0 || *last == usage.0);
            assert_eq!(answer.text().ends_with(&used), complete, "{path} {ends:?}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_last_event_without_its_empty_line_counts() {
    for path in [CHAT, MESSAGES] {
        let world = world(2_000).await;
        let last = r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":30}}"#;
        world.provider.plays(
            [begins("claude"), text("claude", 0), vec![chunk(last.as_bytes()), stream_end()]].concat(),
        );
        let answer = world.ask(path, &ask("claude", r#","max_tokens":90,"stream":true"#), &[]).await;
        assert_eq!(world.alice(), (50, 0), "{path}");
        assert!(answer.text().ends_with("\n\n: x-ai-gateway-tokens-used=50\n\n"), "{}", answer.text());
    }
}

#[tokio::test]
async fn usage_that_came_counts_also_where_the_end_did_not() {
    let world = world(2_000).await;
    let finish =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let parts = [finish.to_owned(), super::provider::usage(20, 30)].concat();
    world.provider.plays([stream_head(), chunk(parts.as_bytes()), Step::Die]);
    let answer = world.ask(MESSAGES, &ask("openai", r#","max_tokens":90,"stream":true"#), &[]).await;
    assert!(answer.text().contains("upstream_died"), "{}", answer.text());
    assert_eq!(world.alice(), (50, 0));
}

#[tokio::test]
async fn an_answer_without_usage_is_counted_by_what_the_model_wrote() {
    let signature = "c2lnbmVk".repeat(50);
    let thought = format!(r#"{{"type":"thinking","thinking":"{TEXT}","signature":"{signature}"}}"#);
    let tool = format!(r#"{{"type":"tool_use","id":"t","name":"f","input":{{"type":"{TEXT}"}}}}"#);
    let anthropic = format!(r#"{{"type":"message","content":[{thought},{tool}],"stop_reason":"tool_use"}}"#);
    let thought = format!(
        r#"{{"reasoningContent":{{"reasoningText":{{"text":"{TEXT}","signature":"{signature}"}}}}}}"#
    );
    let tool = format!(r#"{{"toolUse":{{"toolUseId":"t","name":"f","input":{{"type":"{TEXT}"}}}}}}"#);
    let converse =
        format!(r#"{{"output":{{"message":{{"content":[{thought},{tool}]}}}},"stopReason":"tool_use"}}"#);
    for (path, model, said) in
        [(CHAT, "claude", &anthropic), (CHAT, "converse", &converse), (MESSAGES, "converse", &converse)]
    {
        for (limit, least, most) in [(90, 24, 34), (8, 8, 8)] {
            let world = world(2_000).await;
            world.provider.plays([answer("200 OK", said)]);
            world.ask(path, &ask(model, &format!(r#","max_tokens":{limit}"#)), &[]).await;
            let (spent, _) = world.alice();
            // 11 or a few more in.
            let output = spent.saturating_sub(11);
            assert!((least..=most + 12).contains(&output), "{path} {model} {limit}: {spent}");
        }
    }
}

const ROUTE: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs:
        - {name: gpt-5, priority: 0, modelNameOverride: gpt-5-model}
        - {name: converse, priority: 1, modelNameOverride: converse-model}
---";

#[tokio::test]
async fn a_fallback_in_another_dialect_has_a_limit_of_its_own() {
    let policy = format!("{ROUTE}{}", per_user(400));
    let ask = |more: &str| ask("any", more);
    let said = r#"{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":12,"outputTokens":30}}"#;
    let world = with(lower::compile(&policy).unwrap()).await;
    // The first may have read its input before it died.
    world.provider.plays_at("/chat/completions", [Step::Die]);
    world.provider.plays_at("/converse", [answer("200 OK", said)]);
    let answered = world.ask(CHAT, &ask(""), &[]).await;
    assert_eq!(answered.status.as_u16(), 200, "{}", answered.text());
    let (spent, reserved) = world.alice();
    let wasted = spent - 42;
    assert!((6..=14).contains(&wasted) && reserved == 0, "{spent}");
    assert_eq!(answered.header("x-ai-gateway-tokens-used"), Some(spent.to_string().as_str()));
    let got = world.provider.got();
    let first = got[0].json()["max_completion_tokens"].as_u64().unwrap();
    let second = got.last().unwrap().json()["inferenceConfig"]["maxTokens"].as_u64().unwrap();
    // By the bytes for both at first, and without what the first has used for the second.
    assert!(first + 13 <= 400 && second + wasted + 13 <= 400, "{first} {second}");

    // More than one answer is nothing that Converse can give: the first one's failure is all there is.
    let world = with(lower::compile(&policy).unwrap()).await;
    world.provider.plays_at("/chat/completions", [answer("500 Oops", "{}")]);
    let refused = world.ask(CHAT, &ask(r#","n":2"#), &[]).await;
    assert!(refused.status.is_server_error(), "{}", refused.text());
    world.resolved().await;
    assert_eq!((world.alice(), world.provider.got().len()), ((0, 0), 1));
}
