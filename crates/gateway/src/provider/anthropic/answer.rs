//! A whole answer: Anthropic's `message`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::wire::Block;
use crate::provider::{
    conversation::Content,
    reply::{Context, Garbage, Reply, Stop},
    usage::Usage,
};

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    #[serde(borrow)]
    content: Vec<Piece<'a>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    stop_details: Option<Value>,
    usage: Option<Value>,
}

/// A block of any type.
#[derive(Debug, Deserialize)]
pub(super) struct Piece<'a> {
    pub(super) r#type: String,
    pub(super) text: Option<String>,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    pub(super) thinking: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) data: Option<String>,
}

pub(crate) fn decode(body: &[u8]) -> Result<Reply, Garbage> {
    let message: Message<'_> = serde_json::from_slice(body)
        .map_err(|error| Garbage(format!("not an Anthropic message: {error}")))?;
    let mut blocks = Vec::new();
    for (index, piece) in message.content.into_iter().enumerate() {
        blocks.extend(content(piece, index)?);
    }
    let reason = message.stop_reason.ok_or_else(|| Garbage("`stop_reason` is missing".into()))?;
    let stop = stop(&reason, message.stop_sequence);
    blocks.extend(explanation(&stop, message.stop_details.as_ref()).map(Content::Refusal));
    let usage = message.usage.and_then(|usage| serde_json::from_value(usage).ok());
    Ok(Reply { id: message.id, model: message.model, blocks, stop, usage })
}

/// `None` for what only Anthropic's own tools bring: no translated request can ask for those.
fn content(piece: Piece<'_>, index: usize) -> Result<Option<Content>, Garbage> {
    let missing = |name: &str| Garbage(format!("`content[{index}].{name}` is missing"));
    Ok(Some(match piece.r#type.as_str() {
        "text" => Content::Text(piece.text.ok_or_else(|| missing("text"))?),
        "thinking" => Content::Thinking {
            text: piece.thinking.ok_or_else(|| missing("thinking"))?,
            signature: piece.signature.filter(|signature| !signature.is_empty()),
        },
        "redacted_thinking" => Content::RedactedThinking(piece.data.ok_or_else(|| missing("data"))?),
        "tool_use" => Content::ToolUse {
            id: piece.id.ok_or_else(|| missing("id"))?,
            name: piece.name.ok_or_else(|| missing("name"))?,
            input: piece.input.map_or("{}", RawValue::get).to_owned(),
        },
        _ => return Ok(None),
    }))
}

pub(super) fn stop(reason: &str, sequence: Option<String>) -> Stop {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::ToolUse,
        "stop_sequence" => Stop::Sequence(sequence),
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        // `end_turn`, and reasons to come: the answer is whole as far as it goes.
        _ => Stop::End,
    }
}

/// The provider's words on a refusal.
pub(super) fn explanation(stop: &Stop, details: Option<&Value>) -> Option<String> {
    let text = details?.get("explanation")?.as_str()?;
    (*stop == Stop::Refusal && !text.is_empty()).then(|| text.to_owned())
}

pub(super) fn stop_reason(stop: &Stop) -> (&'static str, Option<&str>) {
    match stop {
        Stop::End => ("end_turn", None),
        Stop::Length => ("max_tokens", None),
        Stop::ToolUse => ("tool_use", None),
        Stop::Sequence(sequence) => ("stop_sequence", sequence.as_deref()),
        Stop::Refusal | Stop::Filtered => ("refusal", None),
        Stop::Pause => ("pause_turn", None),
    }
}

#[derive(Debug, Serialize)]
struct Out<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: &'static str,
    stop_sequence: Option<&'a str>,
    usage: OutUsage,
}

/// `input_tokens` leaves the cache's tokens out.
#[derive(Debug, Serialize)]
pub(super) struct OutUsage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for OutUsage {
    fn from(usage: Usage) -> Self {
        let cached = usage.cached_input.saturating_add(usage.cache_creation_input);
        Self {
            input_tokens: usage.input.saturating_sub(cached),
            cache_creation_input_tokens: usage.cache_creation_input,
            cache_read_input_tokens: usage.cached_input,
            output_tokens: usage.output,
        }
    }
}

pub(super) fn or<'a>(given: &'a str, instead: &'a str) -> &'a str {
    if given.is_empty() { instead } else { given }
}

pub(crate) fn encode(reply: &Reply, context: &Context) -> Vec<u8> {
    let (stop_reason, stop_sequence) = stop_reason(&reply.stop);
    let out = Out {
        id: or(&reply.id, &context.id),
        r#type: "message",
        role: "assistant",
        model: or(&reply.model, &context.model),
        content: reply.blocks.iter().filter_map(|content| block(content, context)).collect(),
        stop_reason,
        stop_sequence,
        usage: reply.usage.unwrap_or_default().into(),
    };
    serde_json::to_vec(&out).unwrap_or_default()
}

fn block<'a>(content: &'a Content, context: &'a Context) -> Option<Block<'a>> {
    Some(match content {
        // An answer's text is never empty: clients could not send it back.
        Content::Text(text) | Content::Refusal(text) if text.is_empty() => return None,
        Content::Text(text) | Content::Refusal(text) => Block::text(text),
        Content::ToolUse { id, name, input } => Block::tool_use(id, context.tool(name), input),
        Content::Thinking { text, signature } => {
            Block::thinking(text, signature.as_deref().unwrap_or_default())
        }
        Content::RedactedThinking(data) => Block::redacted(data),
        // No answer holds these.
        Content::Image { .. } | Content::Document { .. } | Content::ToolResult { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            model: "asked".into(),
            id: "msg_own".into(),
            created: 1,
            usage_asked: false,
            renamed: Vec::new(),
        }
    }

    #[test]
    fn a_whole_answer() {
        let reply = decode(include_bytes!("../../../golden/anthropic/answer.json")).unwrap();
        let expected = Reply {
            id: "msg_01X".into(),
            model: "claude-sonnet-4-5-20250929".into(),
            blocks: vec![
                Content::Thinking { text: "Hm.".into(), signature: Some("EqoB".into()) },
                Content::RedactedThinking("EmwK".into()),
                Content::Text("It rains.".into()),
                Content::ToolUse {
                    id: "toolu_01".into(),
                    name: "weather".into(),
                    input: r#"{"exact": 1.50}"#.into(),
                },
            ],
            stop: Stop::ToolUse,
            usage: Some(Usage {
                input: 94,
                cached_input: 64,
                cache_creation_input: 20,
                output: 50,
                reasoning: 30,
                total: 144,
            }),
        };
        assert_eq!(reply, expected);
        let again = decode(&encode(&reply, &context())).unwrap();
        // How much of the output was thought has no member of its own in what is written.
        let usage = again.usage.map(|usage| Usage { reasoning: 30, ..usage });
        assert_eq!(Reply { usage, ..again }, expected);
    }

    #[test]
    fn reasons_to_stop() {
        for (reason, more, expected, written) in [
            ("end_turn", "", Stop::End, "end_turn"),
            ("max_tokens", "", Stop::Length, "max_tokens"),
            ("model_context_window_exceeded", "", Stop::Length, "max_tokens"),
            ("tool_use", "", Stop::ToolUse, "tool_use"),
            (
                "stop_sequence",
                r#","stop_sequence":"END""#,
                Stop::Sequence(Some("END".into())),
                "stop_sequence",
            ),
            ("pause_turn", "", Stop::Pause, "pause_turn"),
            ("refusal", "", Stop::Refusal, "refusal"),
            ("of_tomorrow", "", Stop::End, "end_turn"),
        ] {
            let body = format!(r#"{{"content":[],"stop_reason":"{reason}"{more}}}"#);
            let reply = decode(body.as_bytes()).unwrap();
            assert_eq!((&reply.stop, reply.usage), (&expected, None), "{reason}");
            let text = String::from_utf8(encode(&reply, &context())).unwrap();
            assert!(text.contains(&format!(r#""stop_reason":"{written}""#)), "{text}");
            assert!(text.contains(r#""id":"msg_own""#) && text.contains(r#""model":"asked""#), "{text}");
        }
        let refusal =
            br#"{"content":[],"stop_reason":"refusal","stop_details":{"type":"refusal","explanation":"no"}}"#;
        assert_eq!(decode(refusal).unwrap().blocks, [Content::Refusal("no".into())]);
    }

    #[test]
    fn garbage() {
        for (body, place) in [
            ("", "message"),
            ("<html>", "message"),
            (r#"{"content":[]}"#, "stop_reason"),
            (r#"{"content":[{"type":"text"}],"stop_reason":"end_turn"}"#, "content[0].text"),
            (r#"{"content":[{"type":"tool_use","id":"a"}],"stop_reason":"end_turn"}"#, "content[0].name"),
            (r#"{"stop_reason":"end_turn"}"#, "content"),
        ] {
            let error = decode(body.as_bytes()).unwrap_err();
            assert!(error.0.contains(place), "{body}: {error}");
        }
    }
}
