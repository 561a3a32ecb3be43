//! What OpenAI's other endpoints cost: responses, pictures, speech and transcripts.

use http_body_util::BodyExt;

use super::{
    provider::{Step, answer, answer_with, piece, stream_end, stream_head},
    world::{Answer, PER_USER, World, per_user},
};
use crate::provider::{
    Api, Endpoint,
    exchange::{NotSendable, To, send},
    form,
    form::Form,
    splice::OutputField,
};

const RESPONSES: &str = "/v1/responses";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=x1");

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.error()["code"].as_str().unwrap_or_default().to_owned())
}

/// A response that used `input` and `output` tokens.
fn response(input: u64, output: u64) -> String {
    let total = input + output;
    format!(
        r#"{{"id":"r","object":"response","status":"completed","error":null,"text":{{"format":{{"type":"text"}}}},"output":[{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"Hi"}}]}}],"usage":{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":1}},"total_tokens":{total}}}}}"#
    )
}

fn event(kind: &str, rest: &str) -> Step {
    piece(&format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n"))
}

fn text_delta(text: &str) -> Step {
    event("response.output_text.delta", &format!("\"delta\":\"{text}\""))
}

#[tokio::test]
async fn a_response_costs_its_usage_and_gets_a_limit() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &response(10, 33))]);
    let answer = world.ask(RESPONSES, r#"{"model":"gpt-5","input":"Say hello"}"#, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, response(10, 33).as_str()));
    assert_eq!(answer.header("x-ai-gateway-tokens-used"), Some("43"));
    assert_eq!(world.alice(), (43, 0));
    let got = &world.provider.got()[0];
    assert!(got.head.starts_with("post /v1/responses "), "{}", got.head);
    let limit = got.json()["max_output_tokens"].as_u64().unwrap();
    assert!((100..250).contains(&limit), "{limit}");
    let named = r#"{"model":"gpt-5","input":"Say hello","max_output_tokens":300}"#;
    assert_eq!(world.ask(RESPONSES, named, &[]).await.status.as_u16(), 429);
}

#[tokio::test]
async fn a_response_without_usage_is_counted_and_a_failed_one_is_free() {
    let world = World::new(PER_USER).await;
    let body = r#"{"error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"Hello there, how are you today?"}]}]}"#;
    world.provider.plays([answer("200 OK", body)]);
    let ask = r#"{"model":"gpt-5","input":"Say hello","max_output_tokens":90}"#;
    world.ask(RESPONSES, ask, &[]).await;
    let (spent, reserved) = world.alice();
    // 8 tokens of output on top of the input.
    assert!((11..=24).contains(&spent) && reserved == 0, "{spent}");
    let failed =
        r#"{"status":"failed","error":{"code":"server_error","message":"boom"},"output":[],"usage":null}"#;
    world.provider.plays([answer("200 OK", failed)]);
    let refused = world.ask(RESPONSES, ask, &[]).await;
    assert_eq!(refused.status.as_u16(), 502);
    assert_eq!(world.alice(), (spent, 0));
}

#[tokio::test]
async fn a_stream_of_a_response_ends_with_its_last_event() {
    let world = World::new(PER_USER).await;
    let last = event("response.completed", &format!("\"response\":{}", response(10, 20)));
    world.provider.plays([
        stream_head(),
        event("response.created", "\"response\":{\"usage\":null}"),
        text_delta("Hi"),
        last,
        stream_end(),
    ]);
    let ask = r#"{"model":"gpt-5","input":"Say hello","stream":true}"#;
    let answer = world.ask(RESPONSES, ask, &[]).await;
    assert!(answer.text().ends_with("\n\n: x-ai-gateway-tokens-used=30\n\n"), "{}", answer.text());
    assert!(answer.text().contains("response.completed"));
    assert_eq!(world.alice(), (30, 0));
    assert!(world.provider.got()[0].json().get("stream_options").is_none());
}

#[tokio::test]
async fn half_a_stream_of_a_response_is_an_error_and_costs_what_came() {
    let world = World::new(PER_USER).await;
    world.provider.plays([stream_head(), text_delta("Hello there, how are you today?"), stream_end()]);
    let ask = r#"{"model":"gpt-5","input":"Say hello","stream":true}"#;
    let answer = world.ask(RESPONSES, ask, &[]).await;
    assert!(answer.text().contains("upstream_died"), "{}", answer.text());
    let (spent, reserved) = world.alice();
    assert!((11..=24).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn a_response_that_fails_in_its_stream_passes_as_it_is() {
    let world = World::new(PER_USER).await;
    let failed = r#""response":{"error":{"code":"server_error","message":"boom"},"usage":{"input_tokens":9,"output_tokens":2}}"#;
    world.provider.plays([stream_head(), text_delta("Hi"), event("response.failed", failed), stream_end()]);
    let answer = world.ask(RESPONSES, r#"{"model":"gpt-5","input":"a","stream":true}"#, &[]).await;
    assert!(answer.text().trim_end().ends_with('}') && answer.text().contains("boom"), "{}", answer.text());
    assert_eq!(world.alice(), (11, 0));
}

#[tokio::test]
async fn what_the_provider_keeps_has_no_bound() {
    let world = World::new(PER_USER).await;
    for body in [
        r#"{"model":"m","input":"a","previous_response_id":"r"}"#,
        r#"{"model":"m","input":[{"type":"item_reference","id":"x"}]}"#,
        r#"{"model":"m","input":"a","tools":[{"type":"file_search"}]}"#,
    ] {
        let refused = world.ask(RESPONSES, body, &[]).await;
        assert_eq!(code(&refused), (400, "unbounded_input".to_owned()), "{body}");
    }
    let refused = world.ask(RESPONSES, r#"{"model":"m","input":"a","background":true}"#, &[]).await;
    assert_eq!((refused.status.as_u16(), refused.error()["param"].as_str()), (400, Some("background")));
    assert!(world.provider.got().is_empty());
}

#[tokio::test]
async fn pictures_cost_their_usage_within_their_bound() {
    let world = World::new(&per_user(9_000)).await;
    let usage = r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":50,"output_tokens":6240,"total_tokens":6290,"input_tokens_details":{"text_tokens":50,"image_tokens":0}}}"#;
    world.provider.plays([answer("200 OK", usage)]);
    let ask = r#"{"model":"gpt-image-1","prompt":"a cat","size":"1024x1536","quality":"high"}"#;
    let first = world.ask("/v1/images/generations", ask, &[]).await;
    assert_eq!((first.status.as_u16(), first.text()), (200, usage));
    assert_eq!(world.alice(), (6290, 0));
    assert_eq!(world.metric("quorate_gateway_overdrafts_total").unwrap_or(0.0), 0.0);
    assert_eq!(world.provider.got()[0].body, ask.as_bytes(), "no limit is put in");
    assert_eq!(world.ask("/v1/images/generations", ask, &[]).await.status.as_u16(), 429);
    let cheap = r#"{"model":"gpt-image-1","prompt":"a cat","quality":"low","n":2}"#;
    let none = r#"{"created":1,"data":[{"url":"https://x"}]}"#;
    world.provider.plays([answer("200 OK", none)]);
    assert_eq!(world.ask("/v1/images/generations", cheap, &[]).await.status.as_u16(), 200);
    let (spent, _) = world.alice();
    assert!((6290 + 2..6290 + 100).contains(&spent), "the prompt: {spent}");
}

#[tokio::test]
async fn events_with_pictures_are_larger_than_others() {
    let world = World::with(&per_user(20_000), "limits: {event_bytes_max: 1024}\n").await;
    let picture = "A".repeat(1_500_000);
    let done = format!(r#""b64_json":"{picture}","usage":{{"input_tokens":5,"output_tokens":300}}"#);
    world.provider.plays([
        stream_head(),
        event("image_generation.partial_image", "\"b64_json\":\"AA\""),
        event("image_generation.completed", &done),
        stream_end(),
    ]);
    let ask = r#"{"model":"gpt-image-1","prompt":"a cat","stream":true,"partial_images":1}"#;
    let answer = world.ask("/v1/images/generations", ask, &[]).await;
    assert!(answer.text().ends_with("tokens-used=305\n\n"));
    assert_eq!(world.alice(), (305, 0));
}

#[tokio::test]
async fn half_a_stream_of_pictures_is_an_error() {
    let world = World::new(&per_user(20_000)).await;
    world.provider.plays([
        stream_head(),
        event("image_generation.partial_image", "\"b64_json\":\"AA\""),
        stream_end(),
    ]);
    let ask = r#"{"model":"gpt-image-1","prompt":"a cat","stream":true}"#;
    let answer = world.ask("/v1/images/generations", ask, &[]).await;
    assert!(answer.text().contains("upstream_died"));
}

const SPEAK: &str = r#"{"model":"tts-1","input":"Hello there, how are you today?","voice":"alloy"}"#;

#[tokio::test]
async fn speech_passes_as_it_comes_and_costs_its_text() {
    let world = World::new(PER_USER).await;
    let audio = |bytes: &[u8]| {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        Step::Write(chunk)
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = || Step::Write(head.as_bytes().to_vec());
    world.provider.plays([head(), audio(b"\xff\xfb\n\n"), Step::Pause, audio(b"data: x\n\n"), stream_end()]);
    let (parts, mut body) = world.open("/v1/audio/speech", SPEAK, &[]).await.into_parts();
    assert_eq!(parts.headers["content-type"], "audio/mpeg");
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, b"\xff\xfb\n\n".as_slice(), "before the rest is there");
    world.provider.go();
    assert_eq!(body.collect().await.unwrap().to_bytes(), b"data: x\n\n".as_slice(), "and nothing else");
    let (spent, reserved) = world.alice();
    assert!((8..=80).contains(&spent) && reserved == 0, "{spent}");
    let with_trailers = {
        world.provider.plays([head(), audio(b"\xff"), stream_end()]);
        world.ask("/v1/audio/speech", SPEAK, &[("te", "trailers")]).await
    };
    assert_eq!(with_trailers.trailers.unwrap()["x-ai-gateway-tokens-used"], spent.to_string().as_str());
}

#[tokio::test]
async fn half_of_a_speech_is_cut_off_and_not_ended() {
    let world = World::new(PER_USER).await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    world.provider.plays([Step::Write(head.as_bytes().to_vec()), Step::Pause, Step::Die]);
    let mut body = world.open("/v1/audio/speech", SPEAK, &[]).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), b"abc".as_slice());
    world.provider.go();
    assert!(body.frame().await.is_none_or(|frame| frame.is_err()), "no error event among the audio");
    world.resolved().await;
    let (spent, reserved) = world.alice();
    assert!((8..=80).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn a_client_that_leaves_a_speech_ends_it() {
    let world = World::new(PER_USER).await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    world.provider.plays([Step::Write(head.as_bytes().to_vec()), Step::UntilClosed]);
    let mut body = world.open("/v1/audio/speech", SPEAK, &[]).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    world.provider.closed.acquire().await.unwrap().forget();
    world.resolved().await;
    assert!(world.alice().0 >= 8);
}

#[tokio::test]
async fn speech_in_events_costs_its_usage() {
    let world = World::new(&per_user(2_000)).await;
    let done =
        event("speech.audio.done", r#""usage":{"input_tokens":14,"output_tokens":101,"total_tokens":115}"#);
    world.provider.plays([
        stream_head(),
        event("speech.audio.delta", "\"audio\":\"AAAA\""),
        done,
        stream_end(),
    ]);
    let ask = SPEAK.replace('}', r#","stream_format":"sse"}"#);
    let answer = world.ask("/v1/audio/speech", &ask, &[]).await;
    assert!(answer.text().ends_with("tokens-used=115\n\n"), "{}", answer.text());
    assert_eq!(world.alice(), (115, 0));
    world.provider.plays([super::provider::answer("200 OK", r#"{"error":{"message":"boom"}}"#)]);
    assert_eq!(world.ask("/v1/audio/speech", SPEAK, &[]).await.status.as_u16(), 502, "no audio");
}

fn transcribe(model: &str, more: &[(&str, &str)]) -> String {
    let audio = "\u{1}".repeat(750);
    let parts: Vec<_> =
        [("file", audio.as_str()), ("model", model)].into_iter().chain(more.iter().copied()).collect();
    Form::example(&parts)
}

#[tokio::test]
async fn transcripts_cost_their_usage_and_forms_are_untouched() {
    let world = World::new(PER_USER).await;
    let body = r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},"output_tokens":5,"total_tokens":19}}"#;
    world.provider.plays([answer("200 OK", body)]);
    for (number, path) in ["/v1/audio/transcriptions", "/v1/audio/translations"].into_iter().enumerate() {
        let form = transcribe("gpt-4o-transcribe", &[("language", "en")]);
        let answer = world.ask(path, &form, &[FORM]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
        let got = &world.provider.got()[number];
        assert_eq!(String::from_utf8_lossy(&got.body), form);
        assert!(got.head.contains("content-type: multipart/form-data; boundary=x1\r\n"), "{}", got.head);
        assert!(!got.head.contains("application/json"), "{}", got.head);
        assert_eq!(world.alice(), (19 * (number as u64 + 1), 0));
    }
}

#[tokio::test]
async fn transcripts_without_tokens_are_counted() {
    let world = World::new(&per_user(2_000)).await;
    let mut before = 0;
    for (format, kind, body, most) in [
        // 8 tokens of text, 100 of audio.
        (
            "json",
            "application/json",
            r#"{"text":"Hello there, how are you today?","usage":{"type":"duration","seconds":10}}"#,
            180,
        ),
        ("text", "text/plain", "Hello there, how are you today?", 80),
        ("srt", "text/plain", "1\n00:00:00,000 --> 00:00:10,000\nHello there, how are you today?\n", 120),
    ] {
        world.provider.plays([answer_with("200 OK", &format!("content-type: {kind}\r\n"), body)]);
        let form = transcribe("whisper-1", &[("response_format", format)]);
        let answer = world.ask("/v1/audio/transcriptions", &form, &[FORM]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
        let (spent, reserved) = world.alice();
        assert!((8..=most).contains(&(spent - before)) && reserved == 0, "{format}: {}", spent - before);
        before = spent;
    }
    world.provider.plays([answer_with("200 OK", "content-type: text/html\r\n", "<html>")]);
    let form = transcribe("whisper-1", &[]);
    let refused = world.ask("/v1/audio/transcriptions", &form, &[FORM]).await;
    assert_eq!(code(&refused), (502, "upstream_garbage".to_owned()));
}

#[tokio::test]
async fn streams_of_transcripts() {
    let world = World::new(PER_USER).await;
    let delta = || event("transcript.text.delta", "\"delta\":\"Hi\"");
    let done = event(
        "transcript.text.done",
        r#""text":"Hi","usage":{"type":"tokens","input_tokens":14,"output_tokens":5,"total_tokens":19}"#,
    );
    world.provider.plays([stream_head(), delta(), done, stream_end()]);
    let form = transcribe("gpt-4o-transcribe", &[("stream", "true")]);
    let answer = world.ask("/v1/audio/transcriptions", &form, &[FORM]).await;
    assert!(answer.text().ends_with("tokens-used=19\n\n"), "{}", answer.text());
    assert_eq!(world.alice(), (19, 0));
    world.provider.plays([stream_head(), delta(), stream_end()]);
    let half = world.ask("/v1/audio/transcriptions", &form, &[FORM]).await;
    assert!(half.text().contains("upstream_died"), "{}", half.text());
}

#[tokio::test]
async fn the_model_of_a_header_is_put_into_a_form() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", r#"{"text":"Hi"}"#)]);
    let form = Form::example(&[("file", "aaa"), ("prompt", "b")]);
    let answer = world.ask("/v1/audio/transcriptions", &form, &[FORM, ("x-ai-eg-model", "whisper-1")]).await;
    assert_eq!(answer.status.as_u16(), 200);
    let expected = Form::example(&[("model", "whisper-1"), ("file", "aaa"), ("prompt", "b")]);
    assert_eq!(String::from_utf8_lossy(&world.provider.got()[0].body), expected);
    for body in ["{}", "--x1\r\n"] {
        assert_eq!(world.ask("/v1/audio/transcriptions", body, &[FORM]).await.status.as_u16(), 400);
    }
    let json = world.ask("/v1/audio/transcriptions", "{}", &[]).await;
    assert!(json.text().contains("multipart/form-data"), "{}", json.text());
}

#[test]
fn other_kinds_of_backends_say_who_serves_it() {
    let to = |api| To {
        api,
        model: "m",
        output_limit: None,
        output_field: OutputField::MaxTokens,
        stream_usage: true,
        betas: "",
    };
    let form = bytes::Bytes::from(transcribe("whisper", &[]));
    for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| endpoint.has_typed_events()) {
        let (facts, body) = if endpoint.takes_form() {
            (form::decode(endpoint, FORM.1, &form).unwrap(), form.clone())
        } else {
            let body = bytes::Bytes::from_static(br#"{"model":"gpt-5","input":"a"}"#);
            (crate::provider::Facts::decode(endpoint, &body).unwrap(), body)
        };
        for api in [Api::Anthropic, Api::Converse, Api::InvokeAnthropic] {
            let refused = send(&facts, &body, &to(api)).unwrap_err();
            assert!(matches!(refused, NotSendable::Endpoint { .. }));
            assert!(refused.to_string().ends_with("OpenAI, AzureOpenAI"), "{refused}");
        }
        let sent = send(&facts, &body, &to(Api::OpenAI)).unwrap();
        assert_eq!(sent.path, endpoint.path());
        assert_ne!(sent.body, body, "another model");
        let azure = send(&facts, &body, &to(Api::Azure)).unwrap();
        assert_eq!(azure.path.starts_with("/openai/deployments/m/"), endpoint != Endpoint::Responses);
        assert_eq!(azure.body == body, endpoint.takes_form(), "a deployment is in the path");
    }
}
