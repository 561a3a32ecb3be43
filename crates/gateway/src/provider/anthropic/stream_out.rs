//! A stream of events, written for a client: named events, one line of JSON each.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    answer::{OutUsage, or, stop_reason},
    error,
};
use crate::provider::{
    reply::{Context, Event, Opening, Stop},
    usage::Usage,
};

/// Why the model stopped and what it cost go into one event: they are held until the stream ends.
#[derive(Debug)]
pub(crate) struct Encoder {
    context: Context,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
struct Delta<'a> {
    r#type: &'static str,
    index: usize,
    delta: Piece<'a>,
}

#[derive(Debug, Default, Serialize)]
struct Piece<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_json: Option<&'a str>,
}

impl Encoder {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, stop: None, usage: None }
    }

    pub(crate) fn encode(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => self.start(id, model, out),
            Event::Open { index, block } => {
                let content_block = opening(block, &self.context);
                let data =
                    json!({"type": "content_block_start", "index": index, "content_block": content_block});
                write("content_block_start", &data, out);
            }
            // There are no refusals apart from text here; that it is one is in the reason to stop.
            Event::Text { index, text } | Event::Refusal { index, text } => {
                delta(*index, Piece { r#type: "text_delta", text: Some(text), ..Piece::default() }, out);
            }
            Event::Thinking { index, text } => {
                delta(
                    *index,
                    Piece { r#type: "thinking_delta", thinking: Some(text), ..Piece::default() },
                    out,
                );
            }
            Event::Signature { index, signature } => {
                let signature = Some(signature.as_str());
                delta(*index, Piece { r#type: "signature_delta", signature, ..Piece::default() }, out);
            }
            Event::Input { index, json } => {
                let partial_json = Some(json.as_str());
                delta(*index, Piece { r#type: "input_json_delta", partial_json, ..Piece::default() }, out);
            }
            Event::Close { index } => {
                write("content_block_stop", &json!({"type": "content_block_stop", "index": index}), out);
            }
            Event::Stop(stop) => self.stop = Some(stop.clone()),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Error(error) => out.extend_from_slice(&error::encode_event(error)),
            Event::Done => self.end(out),
            Event::Ping => write("ping", &json!({"type": "ping"}), out),
        }
    }

    /// What the input costs is known by then only where the backend tells it first; the last event repeats it.
    fn start(&self, id: &str, model: &str, out: &mut Vec<u8>) {
        let message = json!({
            "id": or(id, &self.context.id),
            "type": "message",
            "role": "assistant",
            "model": or(model, &self.context.model),
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": OutUsage::from(Usage::default()),
        });
        write("message_start", &json!({"type": "message_start", "message": message}), out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let stop = self.stop.take().unwrap_or(Stop::End);
        let (stop_reason, stop_sequence) = stop_reason(&stop);
        let data = json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
            "usage": OutUsage::from(self.usage.unwrap_or_default()),
        });
        write("message_delta", &data, out);
        write("message_stop", &json!({"type": "message_stop"}), out);
    }
}

fn opening(block: &Opening, context: &Context) -> Value {
    match block {
        Opening::Text | Opening::Refusal => json!({"type": "text", "text": ""}),
        Opening::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
        Opening::RedactedThinking(data) => json!({"type": "redacted_thinking", "data": data}),
        Opening::ToolUse { id, name } => {
            json!({"type": "tool_use", "id": super::wire::tool_id(id), "name": context.tool(name), "input": {}})
        }
    }
}

fn delta(index: usize, delta: Piece<'_>, out: &mut Vec<u8>) {
    write("content_block_delta", &Delta { r#type: "content_block_delta", index, delta }, out);
}

/// Strings and numbers always serialize, so no event is ever half written.
fn write(name: &str, data: &impl Serialize, out: &mut Vec<u8>) {
    let Ok(data) = serde_json::to_vec(data) else { return };
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\n\n");
}
