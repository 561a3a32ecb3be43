//! Events as the chunks of a streamed chat completion, for a client.

use serde_json::{Value, json};

use super::{answered, error};
use crate::provider::{
    reply::{Context, Event, Opening},
    usage::Usage,
};

#[derive(Debug)]
pub(crate) struct Encoder {
    context: Context,
    /// As the provider names itself, else as the context does.
    id: String,
    model: String,
    /// Tool calls so far: the block of each, and whether a piece of its input has come.
    calls: Vec<(usize, bool)>,
    /// The blocks of thoughts so far.
    thoughts: Vec<usize>,
    refused: bool,
    usage: Option<Usage>,
}

impl Encoder {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            id: context.id.clone(),
            model: context.model.clone(),
            context,
            calls: Vec::new(),
            thoughts: Vec::new(),
            refused: false,
            usage: None,
        }
    }

    pub(crate) fn encode(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                if !id.is_empty() {
                    self.id.clone_from(id);
                }
                if !model.is_empty() {
                    self.model.clone_from(model);
                }
                self.delta(json!({"role": "assistant", "content": "", "refusal": null}), out);
            }
            Event::Open { index, block } => self.open(*index, block, out),
            Event::Text { text, .. } => self.delta(json!({"content": text}), out),
            // Twice, as LiteLLM does: to show, and to gather for the way back.
            Event::Thinking { index, text } => {
                let at = self.thought(*index);
                let block = json!({"index": at, "type": "thinking", "thinking": text});
                self.delta(json!({"reasoning_content": text, "thinking_blocks": [block]}), out);
            }
            Event::Signature { index, signature } => {
                let at = self.thought(*index);
                let block = json!({"index": at, "type": "thinking", "thinking": "", "signature": signature});
                self.delta(json!({"thinking_blocks": [block]}), out);
            }
            Event::Refusal { text, .. } => self.delta(json!({"refusal": text}), out),
            Event::Input { index, json } => self.input(*index, json, out),
            // Clients parse what they have gathered: nothing at all would not be JSON.
            Event::Close { index } => {
                if self.calls.contains(&(*index, false)) {
                    self.input(*index, "{}", out);
                }
            }
            Event::Stop(stop) => {
                let reason = answered::finish_reason(stop, self.refused);
                self.choice(json!({}), reason.into(), out);
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Error(broken) => out.extend_from_slice(&error::encode_event(broken)),
            Event::Done => self.done(out),
            // A comment: clients do not see it.
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
        }
    }

    fn open(&mut self, index: usize, block: &Opening, out: &mut Vec<u8>) {
        match block {
            Opening::ToolUse { id, name } => {
                let at = self.calls.len();
                self.calls.push((index, false));
                let function = json!({"name": self.context.tool(name), "arguments": ""});
                let call = json!({"index": at, "id": id, "type": "function", "function": function});
                self.delta(json!({"tool_calls": [call]}), out);
            }
            Opening::RedactedThinking(data) => {
                let at = self.thought(index);
                let block = json!({"index": at, "type": "redacted_thinking", "data": data});
                self.delta(json!({"thinking_blocks": [block]}), out);
            }
            Opening::Refusal => self.refused = true,
            Opening::Text | Opening::Thinking => {}
        }
    }

    /// The place among `thinking_blocks`: the SDKs gather lists by their entries' `index`, and fail without one.
    fn thought(&mut self, block: usize) -> usize {
        self.thoughts.iter().position(|known| *known == block).unwrap_or_else(|| {
            self.thoughts.push(block);
            self.thoughts.len() - 1
        })
    }

    fn input(&mut self, index: usize, json: &str, out: &mut Vec<u8>) {
        // A piece of a block that was never opened has no place.
        let Some(at) = self.calls.iter().position(|(block, _)| *block == index) else { return };
        if json.is_empty() {
            return;
        }
        self.calls[at].1 = true;
        self.delta(json!({"tool_calls": [{"index": at, "function": {"arguments": json}}]}), out);
    }

    fn done(&self, out: &mut Vec<u8>) {
        if let Some(usage) = self.usage.as_ref().filter(|_| self.context.usage_asked) {
            self.chunk(json!([]), answered::usage(usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn delta(&self, delta: Value, out: &mut Vec<u8>) {
        self.choice(delta, Value::Null, out);
    }

    fn choice(&self, delta: Value, finish_reason: Value, out: &mut Vec<u8>) {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        self.chunk(json!([choice]), Value::Null, out);
    }

    /// OpenAI writes `usage` into every chunk where it was asked for, null up to the last.
    fn chunk(&self, choices: Value, usage: Value, out: &mut Vec<u8>) {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.context.created,
            "model": self.model,
            "choices": choices,
        });
        if self.context.usage_asked {
            chunk["usage"] = usage;
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(chunk.to_string().as_bytes());
        out.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::reply::{ApiError, Stop};

    fn encoder(usage_asked: bool) -> Encoder {
        let context = Context {
            model: "asked".to_owned(),
            id: "chatcmpl-own".to_owned(),
            created: 1_700_000_000,
            usage_asked,
            renamed: Vec::new(),
        };
        Encoder::new(context)
    }

    fn written(events: &[Event], usage_asked: bool) -> String {
        let (mut encoder, mut out) = (encoder(usage_asked), Vec::new());
        for event in events {
            encoder.encode(event, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    fn owned(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn a_whole_stream() {
        let call = |id: &str| Opening::ToolUse { id: owned(id), name: owned("f") };
        let events = [
            Event::Start { id: owned("msg_1"), model: owned("claude") },
            Event::Ping,
            Event::Open { index: 0, block: Opening::Thinking },
            Event::Thinking { index: 0, text: owned("hm") },
            Event::Signature { index: 0, signature: owned("s") },
            Event::Close { index: 0 },
            Event::Open { index: 1, block: Opening::Text },
            Event::Text { index: 1, text: owned("hé\"") },
            Event::Close { index: 1 },
            Event::Open { index: 2, block: call("a") },
            Event::Input { index: 2, json: owned("{\"x\":") },
            Event::Input { index: 2, json: owned("1}") },
            Event::Close { index: 2 },
            Event::Open { index: 3, block: call("b") },
            Event::Close { index: 3 },
            Event::Stop(Stop::ToolUse),
            Event::Usage(Usage::of(5, 7)),
            Event::Done,
        ];
        assert_eq!(written(&events, true), include_str!("../../../golden/openai/encoded.sse"));
        let unasked = written(&events, false);
        assert!(!unasked.contains("usage") && unasked.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn refusals_and_errors() {
        let refused = [
            Event::Start { id: String::new(), model: String::new() },
            Event::Open { index: 0, block: Opening::Refusal },
            Event::Refusal { index: 0, text: owned("no") },
            Event::Close { index: 0 },
            Event::Stop(Stop::Refusal),
        ];
        let text = written(&refused, false);
        assert!(text.contains(r#""delta":{"refusal":"no"}"#) && text.contains(r#""finish_reason":"stop""#));
        assert!(text.contains(r#""id":"chatcmpl-own""#) && text.contains(r#""model":"asked""#));
        assert!(written(&[Event::Stop(Stop::Refusal)], false).contains("content_filter"));
        let error = ApiError {
            status: 529,
            kind: owned("overloaded_error"),
            message: owned("busy"),
            code: None,
            param: None,
        };
        let text = written(&[Event::Error(error)], true);
        assert!(text.starts_with("data: {\"error\":{\"message\":\"busy\"") && !text.contains("[DONE]"));
    }

    #[test]
    fn a_piece_without_its_block_is_left_out() {
        assert_eq!(
            written(&[Event::Input { index: 4, json: owned("{}") }, Event::Close { index: 4 }], false),
            ""
        );
    }
}
