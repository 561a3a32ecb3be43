//! Streams as many servers send them, and every cut of them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::provider::{
    reply::{ApiError, Context},
    sse,
};

fn owned(text: &str) -> String {
    text.to_owned()
}

/// All events of a body that arrives in these pieces; the end of the body included.
fn pieces(pieces: &[&[u8]]) -> Result<Vec<Event>, Garbage> {
    let (mut splitter, mut decoder, mut events) =
        (sse::Splitter::new(1 << 20), Decoder::default(), Vec::new());
    for piece in pieces {
        splitter.push(bytes::Bytes::copy_from_slice(piece));
        while let Some(event) = splitter.next_event().unwrap() {
            if let Some(data) = sse::data(event) {
                events.extend(decoder.push("", &data)?);
            }
        }
    }
    events.extend(decoder.finish());
    Ok(events)
}

/// Each chunk's one choice: its delta and the reason to stop.
fn deltas(chunks: &[(Value, Option<&str>)], done: bool) -> Result<Vec<Event>, Garbage> {
    let mut body = String::new();
    for (delta, finish) in chunks {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        body.push_str(&format!("data: {}\n\n", json!({"id": "c1", "model": "m", "choices": [choice]})));
    }
    if done {
        body.push_str("data: [DONE]\n\n");
    }
    pieces(&[body.as_bytes()])
}

fn start() -> Event {
    Event::Start { id: owned("c1"), model: owned("m") }
}

fn opened(index: usize, id: &str) -> Event {
    Event::Open { index, block: Opening::ToolUse { id: owned(id), name: owned("f") } }
}

fn input(index: usize, json: &str) -> Event {
    Event::Input { index, json: owned(json) }
}

#[test]
fn a_stream_of_azure_with_thoughts_text_and_two_calls() {
    let events = pieces(&[include_bytes!("../../../golden/openai/azure_tools.sse")]).unwrap();
    let usage = Usage { cached_input: 32, reasoning: 8, ..Usage::of(80, 40) };
    assert_eq!(
        events,
        [
            Event::Start { id: owned("chatcmpl-7"), model: owned("gpt-4o-2024-11-20") },
            Event::Open { index: 0, block: Opening::Thinking },
            Event::Thinking { index: 0, text: owned("Two cities") },
            Event::Thinking { index: 0, text: owned(".") },
            Event::Close { index: 0 },
            Event::Open { index: 1, block: Opening::Text },
            Event::Text { index: 1, text: owned("Let me look") },
            Event::Text { index: 1, text: owned(".") },
            Event::Close { index: 1 },
            opened(2, "call_a"),
            input(2, "{\"city\":"),
            input(2, "\"Boston\"}"),
            Event::Close { index: 2 },
            opened(3, "call_b"),
            input(3, "{\"city\":\"Madrid\"}"),
            Event::Close { index: 3 },
            Event::Stop(Stop::ToolUse),
            Event::Usage(usage),
            Event::Done,
        ]
    );
}

#[test]
fn calls_as_many_servers_send_them() {
    let ends = |events: &[Event]| {
        let mut all = vec![start()];
        all.extend_from_slice(events);
        all.extend([Event::Stop(Stop::ToolUse), Event::Done]);
        all
    };
    let one = |call: Value| (json!({"tool_calls": [call]}), None);
    let call = |index: Value, id: &str, arguments: Value| json!({"index": index, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let two = ends(&[
        opened(0, "a"),
        input(0, "{\"x\":1}"),
        Event::Close { index: 0 },
        opened(1, "b"),
        input(1, "{}"),
        Event::Close { index: 1 },
    ]);
    let cases = [
        // Whole calls in one chunk.
        (
            vec![(
                json!({"tool_calls": [call(json!(0), "a", json!("{\"x\":1}")), call(json!(1), "b", json!("{}"))]}),
                Some("tool_calls"),
            )],
            two.clone(),
        ),
        // All under index 0; without an index; as an object.
        (
            vec![one(call(json!(0), "a", json!("{\"x\":1}"))), one(call(json!(0), "b", json!("{}")))],
            two.clone(),
        ),
        (vec![one(call(json!(null), "a", json!({"x": 1}))), one(call(json!(null), "b", json!("{}")))], two),
        // Ids and names in every piece; `stop` at the end.
        (
            vec![
                one(call(json!(0), "a", json!("{\"x\""))),
                one(call(json!(0), "a", json!(":1}"))),
                (json!({}), Some("stop")),
            ],
            ends(&[opened(0, "a"), input(0, "{\"x\""), input(0, ":1}"), Event::Close { index: 0 }]),
        ),
        // No id; no arguments.
        (
            vec![one(call(json!(0), "", json!("")))],
            ends(&[opened(0, "call_c1_0"), Event::Close { index: 0 }]),
        ),
    ];
    for (chunks, expected) in cases {
        assert_eq!(deltas(&chunks, true).unwrap(), expected, "{chunks:?}");
    }
}

#[test]
fn ends_as_many_servers_have_them() {
    let text = |stop: Stop| {
        vec![
            start(),
            Event::Open { index: 0, block: Opening::Text },
            Event::Text { index: 0, text: owned("a") },
            Event::Close { index: 0 },
            Event::Stop(stop),
            Event::Done,
        ]
    };
    let a = || json!({"content": "a"});
    for (chunks, done, stop) in [
        (vec![(a(), None), (json!({}), Some("stop"))], true, Stop::End),
        // No `[DONE]`; no reason; the reason in every chunk.
        (vec![(a(), None), (json!({}), Some("length"))], false, Stop::Length),
        (vec![(a(), None)], true, Stop::End),
        (vec![(a(), Some("stop")), (json!({"content": ""}), Some("stop"))], true, Stop::End),
        (vec![(a(), Some("content_filter"))], true, Stop::Filtered),
    ] {
        assert_eq!(deltas(&chunks, done).unwrap(), text(stop), "{chunks:?}");
    }
    // Cut off: no end.
    let cut = deltas(&[(a(), None)], false).unwrap();
    assert!(!cut.contains(&Event::Done) && matches!(cut.last(), Some(Event::Text { .. })));
    let refused = deltas(&[(json!({"refusal": "no"}), None), (json!({}), Some("stop"))], true).unwrap();
    assert!(refused.contains(&Event::Stop(Stop::Refusal)));
}

#[test]
fn usage_wherever_it_stands() {
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
    let finish = r#""choices":[{"delta":{},"finish_reason":"stop"}]"#;
    let text = r#""choices":[{"delta":{"content":"a"}}]"#;
    let done = "data: [DONE]\n\n";
    for body in [
        format!("data: {{{text}}}\n\ndata: {{{finish},{usage}}}\n\n{done}"),
        format!("data: {{{text}}}\n\ndata: {{{finish}}}\n\ndata: {{\"choices\":[],{usage}}}\n\n{done}"),
        format!("data: {{{text},{usage}}}\n\ndata: {{{finish},\"usage\":null}}\n\n{done}"),
        format!("data: {{{text}}}\n\ndata: {{{finish},\"x_groq\":{{{usage}}}}}\n\n"),
    ] {
        let events = pieces(&[body.as_bytes()]).unwrap();
        let end = [Event::Stop(Stop::End), Event::Usage(Usage::of(3, 4)), Event::Done];
        assert!(events.ends_with(&end), "{body}: {events:?}");
    }
}

#[test]
fn thoughts_with_signatures() {
    let block =
        |text: &str, signature: &str| json!([{"type": "thinking", "thinking": text, "signature": signature}]);
    let events = deltas(
        &[
            (json!({"reasoning_content": "hm", "thinking_blocks": block("hm", "")}), None),
            (json!({"thinking_blocks": block("", "s")}), None),
            (json!({"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]}), None),
            (json!({"content": "a"}), Some("stop")),
        ],
        true,
    );
    assert_eq!(
        events.unwrap()[1..9],
        [
            Event::Open { index: 0, block: Opening::Thinking },
            Event::Thinking { index: 0, text: owned("hm") },
            Event::Signature { index: 0, signature: owned("s") },
            Event::Close { index: 0 },
            Event::Open { index: 1, block: Opening::RedactedThinking(owned("x")) },
            Event::Close { index: 1 },
            Event::Open { index: 2, block: Opening::Text },
            Event::Text { index: 2, text: owned("a") },
        ]
    );
}

#[test]
fn an_error_ends_it() {
    for (data, status) in [
        (r#"{"error":{"message":"boom","type":"server_error","code":null}}"#, 502),
        (
            r#"{"id":"x","choices":[{"delta":{},"finish_reason":"error"}],"error":{"message":"boom","code":502}}"#,
            502,
        ),
        (r#"{"object":"error","message":"boom","code":429}"#, 429),
    ] {
        let mut decoder = Decoder::default();
        let events = decoder.push("", data.as_bytes()).unwrap();
        let [Event::Error(ApiError { status: found, message, .. })] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((*found, message.as_str()), (status, "boom"), "{data}");
        assert_eq!((decoder.push("", b"[DONE]"), decoder.finish()), (Ok(vec![]), vec![]));
    }
}

#[test]
fn garbage() {
    for data in [
        "oops",
        "[]",
        "7",
        "{}",
        "[DONE]",
        r#"{"choices":7}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
    ] {
        assert!(Decoder::default().push("", data.as_bytes()).is_err(), "{data}");
    }
    let piece = |index: u64, id: &str| json!({"tool_calls": [{"index": index, "id": id, "function": {"name": "f", "arguments": "{}"}}]});
    let mixed = [(piece(0, "a"), None), (piece(1, "b"), None), (piece(0, "a"), None)];
    assert!(deltas(&mixed, true).unwrap_err().0.contains("after its input was whole"));
    assert_eq!(Decoder::default().push("", b"").unwrap(), []);
}

fn context() -> Context {
    Context { model: owned("m"), id: owned("own"), created: 0, usage_asked: true, renamed: Vec::new() }
}

/// Events as decoders make them: blocks one after the other.
fn stream() -> impl Strategy<Value = Vec<Event>> {
    let block = prop_oneof![
        proptest::collection::vec("[a-zé\"\n]{1,6}", 1..3).prop_map(|texts| (Opening::Text, texts)),
        proptest::collection::vec("[{}a-zé]{1,6}", 1..3)
            .prop_map(|texts| (Opening::ToolUse { id: owned("t"), name: owned("f") }, texts)),
        proptest::collection::vec("[a-z]{1,6}", 1..3).prop_map(|texts| (Opening::Thinking, texts)),
        "[a-z]{1,4}".prop_map(|data| (Opening::RedactedThinking(data), vec![])),
    ];
    (proptest::collection::vec(block, 0..6), 0u64..99).prop_map(|(blocks, tokens)| {
        let mut events = vec![Event::Start { id: owned("i"), model: owned("m") }];
        let mut stop = Stop::End;
        let mut before = None;
        for (index, (mut opening, mut texts)) in blocks.into_iter().enumerate() {
            // Neighbours of one kind would be one block to the decoder: chunks do not tell them apart.
            if before.replace(std::mem::discriminant(&opening)) == Some(std::mem::discriminant(&opening)) {
                opening = Opening::ToolUse { id: String::new(), name: owned("f") };
                before = None;
            }
            if let Opening::ToolUse { id, .. } = &mut opening {
                *id = format!("t{index}");
                stop = Stop::ToolUse;
                // Calls whose input is whole are closed before the next block.
                texts.iter_mut().for_each(|text| *text = text.replace('"', "'"));
                texts.insert(0, owned("{\"a\":\""));
                texts.push(owned("\"}"));
            }
            events.push(Event::Open { index, block: opening.clone() });
            events.extend(texts.into_iter().map(|text| match &opening {
                Opening::ToolUse { .. } => Event::Input { index, json: text },
                Opening::Thinking => Event::Thinking { index, text },
                _ => Event::Text { index, text },
            }));
            if matches!(opening, Opening::Thinking) {
                events.push(Event::Signature { index, signature: owned("s") });
            }
            events.push(Event::Close { index });
        }
        events.extend([Event::Stop(stop), Event::Usage(Usage::of(tokens, 1)), Event::Done]);
        events
    })
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_again(events in stream()) {
        let (mut encoder, mut out) = (Encoder::new(context()), Vec::new());
        for event in &events {
            encoder.encode(event, &mut out);
        }
        prop_assert_eq!(pieces(&[&out]).unwrap(), events);
    }

    #[test]
    fn damaged_streams_never_panic(at in 0usize..4000, byte in any::<u8>()) {
        let mut body = include_bytes!("../../../golden/openai/azure_tools.sse").to_vec();
        let at = at % body.len();
        body[at] = byte;
        let _ = pieces(&[&body]);
    }
}

#[test]
fn every_cut_gives_the_same_events() {
    let body = include_bytes!("../../../golden/openai/azure_tools.sse");
    let whole = pieces(&[body]).unwrap();
    for cut in 0..body.len() {
        assert_eq!(pieces(&[&body[..cut], &body[cut..]]).unwrap(), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(pieces(&bytes).unwrap(), whole);
}
