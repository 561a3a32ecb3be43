//! Tests of streams: whole ones as they are framed on the wire, cut everywhere, and broken ones.

use proptest::prelude::*;

use super::*;
use crate::provider::{
    Usage,
    bedrock::frame::{Splitter, tests::encode_frames},
    reply::{ApiError, Stop},
};

/// One event a line: its name, its payload.
fn golden(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once(' ')).collect()
}

fn named(name: &str, payload: &[u8]) -> Message {
    let kind = if name.ends_with("Exception") { Kind::Exception } else { Kind::Event };
    Message { kind, name: name.to_owned(), payload: payload.to_vec().into() }
}

fn decoded(events: &[(&str, &str)]) -> Result<Vec<Event>, Garbage> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for (name, payload) in events {
        all.extend(decoder.message(&named(name, payload.as_bytes()))?);
    }
    all.extend(decoder.finish());
    Ok(all)
}

/// Through the frames, in pieces.
fn framed(pieces: &[&[u8]]) -> (Vec<Event>, Option<Garbage>) {
    let mut splitter = Splitter::new(1 << 16);
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for piece in pieces {
        splitter.push(piece);
        loop {
            match splitter.next_message().and_then(|message| message.map(|m| decoder.message(&m)).transpose())
            {
                Ok(Some(events)) => all.extend(events),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
    }
    all.extend(decoder.finish());
    (all, None)
}

fn text(index: usize, text: &str) -> Event {
    Event::Text { index, text: text.to_owned() }
}

fn start() -> Event {
    Event::Start { id: String::new(), model: String::new() }
}

const TOOLS: &str = include_str!("../../../golden/bedrock/stream_tools.txt");

fn tools_expected() -> Vec<Event> {
    let tool = |id: &str, name: &str| Opening::ToolUse { id: id.to_owned(), name: name.to_owned() };
    let json = |index, json: &str| Event::Input { index, json: json.to_owned() };
    vec![
        start(),
        Event::Open { index: 0, block: Opening::Thinking },
        Event::Thinking { index: 0, text: "Both cities ".to_owned() },
        Event::Thinking { index: 0, text: "need a look.".to_owned() },
        Event::Signature { index: 0, signature: "c2lnbmVk".to_owned() },
        Event::Close { index: 0 },
        Event::Open { index: 1, block: Opening::RedactedThinking("aGlkZGVu".to_owned()) },
        Event::Close { index: 1 },
        Event::Open { index: 2, block: Opening::Text },
        text(2, "I look up Köln"),
        text(2, "."),
        Event::Close { index: 2 },
        Event::Open { index: 3, block: tool("tooluse_1", "get_weather") },
        json(3, r#"{"city":"#),
        json(3, r#" "Köln"}"#),
        Event::Close { index: 3 },
        Event::Open { index: 4, block: tool("tooluse_2", "now") },
        Event::Close { index: 4 },
        Event::Stop(Stop::ToolUse),
        Event::Usage(Usage { cached_input: 20, cache_creation_input: 5, ..Usage::of(35, 40) }),
        Event::Done,
    ]
}

#[test]
fn a_whole_stream() {
    assert_eq!(decoded(&golden(TOOLS)), Ok(tools_expected()));
}

#[test]
fn the_cut_does_not_matter_at_any_byte() {
    let stream = encode_frames(&golden(TOOLS));
    for cut in 0..=stream.len() {
        assert_eq!(framed(&[&stream[..cut], &stream[cut..]]), (tools_expected(), None), "{cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(framed(&bytes), (tools_expected(), None));
}

#[test]
fn a_stream_that_is_cut_off_is_never_done() {
    let events = golden(TOOLS);
    let stream = encode_frames(&events);
    let after_stop = encode_frames(&events[..events.len() - 1]).len();
    for end in 0..stream.len() {
        let (seen, error) = framed(&[&stream[..end]]);
        assert_eq!(error, None);
        // Only the usage is missing once the message has stopped.
        assert_eq!(seen.contains(&Event::Done), end >= after_stop, "{end}");
        let whole = seen.len() - usize::from(end >= after_stop);
        assert_eq!(seen[..whole], tools_expected()[..whole], "{end}");
    }
}

#[test]
fn stops_and_what_follows() {
    let stop = ("messageStop", r#"{"stopReason":"max_tokens"}"#);
    let delta = ("contentBlockDelta", r#"{"contentBlockIndex":7,"delta":{"text":"a"}}"#);
    let opened = |rest: Vec<Event>| {
        let block = [start(), Event::Open { index: 0, block: Opening::Text }, text(0, "a")];
        Ok(block.into_iter().chain(rest).collect::<Vec<_>>())
    };
    let ended = || vec![Event::Close { index: 0 }, Event::Stop(Stop::Length), Event::Done];
    // Neither a start nor the block's end was said; a second stop and later news say nothing.
    assert_eq!(decoded(&[delta, stop, stop, ("news", "?"), ("news", "")]), opened(ended()));
    // The usage before the stop.
    let usage = ("metadata", r#"{"usage":{"inputTokens":1,"outputTokens":2},"metrics":{"latencyMs":1}}"#);
    let mut with_usage = ended();
    with_usage.insert(0, Event::Usage(Usage::of(1, 2)));
    assert_eq!(decoded(&[delta, usage, stop]), opened(with_usage));
    // What follows the end is not looked at.
    let none = ("metadata", "{}");
    assert_eq!(decoded(&[delta, stop, none, delta, ("contentBlockDelta", "?")]), opened(ended()));
    // Pieces without content open nothing; citations are passed over.
    let empty =
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"","citation":{"title":"a"}}}"#);
    let close = ("contentBlockStop", r#"{"contentBlockIndex":0}"#);
    assert_eq!(
        decoded(&[("messageStart", "{}"), empty, close, stop]),
        Ok(vec![start(), Event::Stop(Stop::Length), Event::Done])
    );
    let sequence =
        r#"{"stopReason":"stop_sequence","additionalModelResponseFields":{"stop_sequence":"END"}}"#;
    assert_eq!(
        decoded(&[("messageStop", sequence)]).unwrap()[1],
        Event::Stop(Stop::Sequence(Some("END".into())))
    );
}

#[test]
fn exceptions() {
    for (name, status) in [
        ("throttlingException", 429),
        ("modelStreamErrorException", 424),
        ("validationException", 400),
        ("internalServerException", 500),
        ("serviceUnavailableException", 503),
        ("modelTimeoutException", 408),
        ("newException", 502),
    ] {
        let error = ApiError {
            status,
            kind: name.to_owned(),
            message: "too much".to_owned(),
            code: None,
            param: None,
        };
        let events = [("messageStart", "{}"), (name, r#"{"message":"too much"}"#), ("messageStop", "{}")];
        let expected = vec![start(), Event::Error(error)];
        assert_eq!(decoded(&events).unwrap(), expected, "{name}");
        assert_eq!(framed(&[&encode_frames(&events)]), (expected, None), "{name}");
    }
}

#[test]
fn what_is_no_stream_of_bedrocks() {
    let tool = r#"{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"a","name":"b"}}}"#;
    let piece = |delta: &str| format!(r#"{{"contentBlockIndex":0,"delta":{delta}}}"#);
    for (events, says) in [
        (vec![("contentBlockDelta", piece(r#"{"toolUse":{"input":"{"}}"#))], "not open"),
        (
            vec![("contentBlockStart", tool.into()), ("contentBlockDelta", piece(r#"{"text":"a"}"#))],
            "two kinds",
        ),
        (vec![("contentBlockStart", r#"{"contentBlockIndex":2,"start":{"image":{}}}"#.into())], "block 2"),
        (vec![("contentBlockDelta", piece(r#"{"image":{}}"#))], "image"),
        (vec![("contentBlockDelta", r#"{"delta":{"text":"a"}}"#.into())], "contentBlockIndex"),
        (vec![("messageStop", "{}".into())], "stopReason"),
        (vec![("messageStop", r#"{"stopReason":"malformed_tool_use"}"#.into())], "malformed_tool_use"),
        (
            vec![
                ("messageStop", r#"{"stopReason":"end_turn"}"#.into()),
                ("contentBlockDelta", piece(r#"{"text":"a"}"#)),
            ],
            "after `messageStop`",
        ),
    ] {
        let events: Vec<(&str, &str)> =
            events.iter().map(|(name, data): &(&str, String)| (*name, data.as_str())).collect();
        let error = decoded(&events).unwrap_err().to_string();
        assert!(error.contains(says), "{events:?}: {error}");
    }
}

/// The order that [`Event`] promises.
fn hold_order(events: &[Event]) {
    let mut open = None;
    let mut opened = 0;
    for (at, event) in events.iter().enumerate() {
        assert_eq!(at == 0 && !matches!(event, Event::Error(_)), matches!(event, Event::Start { .. }));
        match event {
            Event::Open { index, .. } => {
                assert_eq!((open, *index), (None, opened));
                open = Some(*index);
                opened += 1;
            }
            Event::Text { index, .. }
            | Event::Thinking { index, .. }
            | Event::Signature { index, .. }
            | Event::Input { index, .. } => assert_eq!(open, Some(*index)),
            Event::Close { index } => assert_eq!(open.take(), Some(*index)),
            Event::Stop(_) => assert_eq!(open, None),
            Event::Done | Event::Error(_) => assert_eq!(at, events.len() - 1),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_the_promised_one(picked in proptest::collection::vec(0usize..32, 0..40)) {
        let all = golden(TOOLS);
        let more = [("validationException", "{}"), ("metadata", "{}"), ("contentBlockStop", r#"{"contentBlockIndex":3}"#)];
        let all: Vec<_> = all.into_iter().chain(more).collect();
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for at in picked {
            let (name, payload) = all[at % all.len()];
            match decoder.message(&named(name, payload.as_bytes())) {
                Ok(events) => seen.extend(events),
                Err(_) => break,
            }
        }
        seen.extend(decoder.finish());
        hold_order(&seen);
    }

    #[test]
    fn damaged_streams_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut stream = encode_frames(&golden(TOOLS));
        let at = at.index(stream.len());
        stream[at] = byte;
        let cut = cut.index(stream.len());
        let (seen, _) = framed(&[&stream[..cut], &stream[cut..]]);
        hold_order(&seen);
    }

    #[test]
    fn any_payload(name in prop::sample::select(vec![
        "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "xException", "",
    ]), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Decoder::default().message(&named(name, &payload));
    }
}
