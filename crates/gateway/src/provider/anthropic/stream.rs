//! A stream of events, read; [`Encoder`] writes one.
//!
//! Source: Anthropic's page "Streaming Messages": unknown events and deltas are to be passed over.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use super::stream_out::Encoder;
use super::{
    answer::{Piece, explanation, stop},
    error,
};
use crate::provider::reply::{Event, Garbage, Opening};

#[derive(Debug, Deserialize)]
struct Wire<'a> {
    r#type: String,
    message: Option<Value>,
    index: Option<u64>,
    #[serde(borrow)]
    content_block: Option<Piece<'a>>,
    delta: Option<Value>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Redacted,
    Tool,
}

#[derive(Debug)]
struct Open {
    index: usize,
    kind: Kind,
    /// Input that came with the opening, in case that no pieces follow.
    input: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    /// By the provider's index; `None`: of a kind that is passed over.
    open: BTreeMap<u64, Option<Open>>,
    opened: usize,
    usage: Map<String, Value>,
    stopped: bool,
    done: bool,
}

impl Decoder {
    pub(crate) fn push(&mut self, _name: &str, data: &[u8]) -> Result<Vec<Event>, Garbage> {
        let mut events = Vec::new();
        // `[DONE]` is not of this dialect, but some that speak it end with one.
        if self.done || data.is_empty() || data == b"[DONE]" {
            return Ok(events);
        }
        let wire: Wire<'_> = serde_json::from_slice(data)
            .map_err(|error| Garbage(format!("not an Anthropic event: {error}")))?;
        match wire.r#type.as_str() {
            "message_start" => self.start(wire.message, &mut events)?,
            "content_block_start" | "content_block_delta" | "content_block_stop" | "message_delta"
                if !self.started =>
            {
                return Err(Garbage(format!("`{}` before `message_start`", wire.r#type)));
            }
            "content_block_start" => self.block_start(wire, &mut events)?,
            "content_block_delta" => self.block_delta(&wire, &mut events)?,
            "content_block_stop" => {
                let index = wire.index.ok_or_else(|| missing("index"))?;
                let open = self.open.remove(&index);
                close(open.ok_or_else(|| not_open(index))?, &mut events);
            }
            "message_delta" => self.message_delta(wire, &mut events)?,
            "message_stop" if !self.stopped => {
                return Err(Garbage("`message_stop` without a `stop_reason`".into()));
            }
            "message_stop" => {
                self.done = true;
                events.push(Event::Done);
            }
            "error" => {
                self.done = true;
                events.push(Event::Error(error::decode_event(wire.error.as_ref())));
            }
            "ping" => events.push(Event::Ping),
            _ => {}
        }
        Ok(events)
    }

    /// Of a stream that goes to a client as it is: an event of some type that is out of order is the client's to judge, as
    /// servers that speak this dialect differ; it only says nothing here.
    pub(crate) fn read(&mut self, data: &[u8]) -> Result<Vec<Event>, Garbage> {
        let out_of_order = match self.push("", data) {
            Err(garbage) => garbage,
            events => return events,
        };
        let Ok(Typed { kind }) = serde_json::from_slice(data) else { return Err(out_of_order) };
        self.done = self.done || kind == "message_stop";
        Ok(if self.done { vec![Event::Done] } else { Vec::new() })
    }

    pub(crate) fn finish(&mut self) -> Vec<Event> {
        if self.stopped && !self.done {
            self.done = true;
            return vec![Event::Done];
        }
        Vec::new()
    }

    fn start(&mut self, message: Option<Value>, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let mut message = message.ok_or_else(|| missing("message"))?;
        if self.started {
            return Err(Garbage("a second `message_start`".into()));
        }
        self.started = true;
        let word = |name| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        events.push(Event::Start { id: word("id"), model: word("model") });
        self.count(message.get_mut("usage").map(Value::take), events);
        Ok(())
    }

    /// Later numbers replace earlier ones: they are cumulative.
    fn count(&mut self, usage: Option<Value>, events: &mut Vec<Event>) {
        let Some(Value::Object(usage)) = usage else { return };
        let says_output = usage.get("output_tokens").is_some_and(|tokens| !tokens.is_null());
        self.usage.extend(usage.into_iter().filter(|(_, value)| !value.is_null()));
        // What is known of the output is older than this event.
        if !says_output && !matches!(events.last(), Some(Event::Start { .. })) {
            return;
        }
        if let Ok(usage) = serde_json::from_value(Value::Object(self.usage.clone())) {
            events.push(Event::Usage(usage));
        }
    }

    fn block_start(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let at = wire.index.ok_or_else(|| missing("index"))?;
        let piece = wire.content_block.ok_or_else(|| missing("content_block"))?;
        if self.open.contains_key(&at) {
            return Err(Garbage(format!("block {at} is opened twice")));
        }
        let index = self.opened;
        let (kind, block) = match piece.r#type.as_str() {
            "text" => (Kind::Text, Opening::Text),
            "thinking" => (Kind::Thinking, Opening::Thinking),
            "redacted_thinking" => (
                Kind::Redacted,
                Opening::RedactedThinking(piece.data.ok_or_else(|| missing("content_block.data"))?),
            ),
            "tool_use" => {
                let id = piece.id.ok_or_else(|| missing("content_block.id"))?;
                let name = piece.name.ok_or_else(|| missing("content_block.name"))?;
                (Kind::Tool, Opening::ToolUse { id, name })
            }
            _ => {
                self.open.insert(at, None);
                return Ok(());
            }
        };
        self.opened += 1;
        events.push(Event::Open { index, block });
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        events.extend(some(piece.text).map(|text| Event::Text { index, text }));
        events.extend(some(piece.thinking).map(|text| Event::Thinking { index, text }));
        events.extend(some(piece.signature).map(|signature| Event::Signature { index, signature }));
        let input = piece.input.map(|input| input.get().to_owned()).filter(|input| input != "{}");
        self.open.insert(at, Some(Open { index, kind, input }));
        Ok(())
    }

    fn block_delta(&mut self, wire: &Wire<'_>, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let at = wire.index.ok_or_else(|| missing("index"))?;
        let delta = wire.delta.as_ref().ok_or_else(|| missing("delta"))?;
        let Some(open) = self.open.get_mut(&at).ok_or_else(|| not_open(at))? else { return Ok(()) };
        let index = open.index;
        let (name, kind): (_, _) = match delta.get("type").and_then(Value::as_str) {
            Some("text_delta") => ("text", Kind::Text),
            Some("thinking_delta") => ("thinking", Kind::Thinking),
            Some("signature_delta") => ("signature", Kind::Thinking),
            Some("input_json_delta") => ("partial_json", Kind::Tool),
            // Citations, and what is to come.
            Some(_) => return Ok(()),
            None => return Err(missing("delta.type")),
        };
        if kind != open.kind {
            return Err(Garbage(format!("`delta.{name}` in a block {at} of another kind")));
        }
        let text = delta.get(name).and_then(Value::as_str);
        let text = text.ok_or_else(|| missing(&format!("delta.{name}")))?.to_owned();
        if !text.is_empty() {
            events.push(match name {
                "text" => Event::Text { index, text },
                "thinking" => Event::Thinking { index, text },
                "signature" => Event::Signature { index, signature: text },
                _ => {
                    open.input = None;
                    Event::Input { index, json: text }
                }
            });
        }
        Ok(())
    }

    fn message_delta(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let delta = wire.delta.ok_or_else(|| missing("delta"))?;
        let word = |name| delta.get(name).and_then(Value::as_str);
        if let Some(reason) = word("stop_reason").filter(|_| !self.stopped) {
            self.stopped = true;
            for open in std::mem::take(&mut self.open).into_values() {
                close(open, events);
            }
            let stop = stop(reason, word("stop_sequence").map(str::to_owned));
            if let Some(text) = explanation(&stop, delta.get("stop_details")) {
                let index = self.opened;
                self.opened += 1;
                events.push(Event::Open { index, block: Opening::Refusal });
                events.push(Event::Refusal { index, text });
                events.push(Event::Close { index });
            }
            events.push(Event::Stop(stop));
        }
        self.count(wire.usage, events);
        Ok(())
    }
}

fn missing(name: &str) -> Garbage {
    Garbage(format!("`{name}` is missing"))
}

fn not_open(index: u64) -> Garbage {
    Garbage(format!("block {index} is not open"))
}

fn close(open: Option<Open>, events: &mut Vec<Event>) {
    let Some(Open { index, input, .. }) = open else { return };
    events.extend(input.map(|json| Event::Input { index, json }));
    events.push(Event::Close { index });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::{
        reply::{Context, Stop},
        sse::{self, Splitter},
        usage::Usage,
    };

    const GOLDEN: &[u8] = include_bytes!("../../../golden/anthropic/stream.sse");

    fn events(pieces: &[&[u8]]) -> Vec<Event> {
        let (mut splitter, mut decoder, mut events) =
            (Splitter::new(1 << 20), Decoder::default(), Vec::new());
        for piece in pieces {
            splitter.push(bytes::Bytes::copy_from_slice(piece));
            while let Some(event) = splitter.next_event().unwrap() {
                if let Some(data) = sse::data(event) {
                    events.extend(decoder.push("", &data).unwrap());
                }
            }
        }
        events.extend(decoder.finish());
        events
    }

    fn usage(output: u64, reasoning: u64) -> Event {
        let total = 94 + output;
        Event::Usage(Usage {
            input: 94,
            cached_input: 64,
            cache_creation_input: 20,
            output,
            reasoning,
            total,
        })
    }

    #[test]
    fn a_whole_stream() {
        let expected = vec![
            Event::Start { id: "msg_01X".into(), model: "claude-sonnet-4-5-20250929".into() },
            usage(1, 0),
            Event::Open { index: 0, block: Opening::Thinking },
            Event::Ping,
            Event::Thinking { index: 0, text: "Hm.".into() },
            Event::Signature { index: 0, signature: "EqoB".into() },
            Event::Close { index: 0 },
            Event::Open { index: 1, block: Opening::Text },
            Event::Text { index: 1, text: "Es regnet für immer.".into() },
            Event::Close { index: 1 },
            Event::Open {
                index: 2,
                block: Opening::ToolUse { id: "toolu_01".into(), name: "weather".into() },
            },
            Event::Input { index: 2, json: "{\"place\": \"Be".into() },
            Event::Input { index: 2, json: "rn\"}".into() },
            Event::Close { index: 2 },
            Event::Open { index: 3, block: Opening::ToolUse { id: "toolu_02".into(), name: "now".into() } },
            Event::Close { index: 3 },
            Event::Stop(Stop::ToolUse),
            usage(50, 30),
            Event::Done,
        ];
        assert_eq!(events(&[GOLDEN]), expected);
        for cut in 0..=GOLDEN.len() {
            let (head, tail) = GOLDEN.split_at(cut);
            assert_eq!(events(&[head, tail]), expected, "{cut}");
        }
        assert_eq!(events(&GOLDEN.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let given = events(&[GOLDEN]);
        let context = Context {
            model: "m".into(),
            id: "i".into(),
            created: 0,
            usage_asked: false,
            renamed: Vec::new(),
        };
        let (mut encoder, mut out) = (Encoder::new(context), Vec::new());
        for event in &given {
            encoder.encode(event, &mut out);
        }
        let plain = |events: Vec<Event>| -> Vec<Event> {
            events.into_iter().filter(|event| !matches!(event, Event::Usage(_))).collect()
        };
        let again = events(&[&out]);
        let last = again.iter().rev().find(|event| matches!(event, Event::Usage(_)));
        assert_eq!(last, Some(&usage(50, 0)));
        assert_eq!(plain(again), plain(given));
    }

    const START: &str = r#"{"type":"message_start","message":{"id":"a","model":"m"}}"#;

    fn of(lines: &[&str]) -> Result<Vec<Event>, Garbage> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for line in lines {
            events.extend(decoder.push("", line.as_bytes())?);
        }
        events.extend(decoder.finish());
        Ok(events)
    }

    #[test]
    fn ends() {
        let stop =
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#;
        // Cut off before the end: no `Done`. Cut off after the stop: whole.
        assert!(!of(&[START]).unwrap().contains(&Event::Done));
        assert_eq!(of(&[START, stop]).unwrap().last(), Some(&Event::Done));
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        let events = of(&[START, error, stop, "[DONE]"]).unwrap();
        let Some(Event::Error(error)) = events.last() else { panic!("{events:?}") };
        assert_eq!((error.status, error.kind.as_str()), (529, "overloaded_error"));
        let refusal = r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"explanation":"no"}}}"#;
        assert!(of(&[START, refusal]).unwrap().contains(&Event::Refusal { index: 0, text: "no".into() }));
        // Input that came whole with its opening.
        let open = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{"a":1}}}"#;
        let close = r#"{"type":"content_block_stop","index":0}"#;
        let input = Event::Input { index: 0, json: r#"{"a":1}"#.into() };
        assert_eq!(of(&[START, open, close]).unwrap()[2], input);
    }

    #[test]
    fn garbage() {
        let open = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        for lines in [
            &["nonsense"][..],
            &["{}"],
            &[open],
            &[START, START],
            &[START, open, open],
            &[START, r#"{"type":"content_block_stop","index":4}"#],
            &[START, r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#],
            &[
                START,
                open,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"x"}}"#,
            ],
            &[START, open, r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}"#],
            &[START, r#"{"type":"message_stop"}"#],
        ] {
            assert!(of(lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn what_passes_is_only_read() {
        let mut decoder = Decoder::default();
        let stray = r#"{"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"x"}}"#;
        for line in [stray, START, START, stray, r#"{"type":"content_block_stop"}"#] {
            let events = decoder.read(line.as_bytes()).unwrap();
            assert!(!events.contains(&Event::Done), "{line}");
        }
        for garbage in ["oops", "{}", "[]", r#"{"type":7}"#] {
            assert!(decoder.read(garbage.as_bytes()).is_err(), "{garbage}");
        }
        assert_eq!(decoder.read(br#"{"type":"message_stop"}"#).unwrap(), [Event::Done]);
    }

    proptest! {
        #[test]
        fn nothing_panics(lines in proptest::collection::vec("[ -~]{0,40}|\\{\"type\":\"(message_start|content_block_start|content_block_delta|message_delta|error)\",\"(message|index|delta|error)\":(0|\\{\\}|\"x\"|null)\\}", 0..8)) {
            let mut decoder = Decoder::default();
            for line in &lines {
                let _ = decoder.push("", line.as_bytes());
            }
        }
    }
}
