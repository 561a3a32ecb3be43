//! Converse's whole answer.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::usage::TokenUsage;
use crate::provider::{
    Usage,
    conversation::Content,
    reply::{Garbage, Reply, Stop},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    output: Output<'a>,
    stop_reason: String,
    usage: Option<TokenUsage>,
    additional_model_response_fields: Option<Value>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Vec<Piece<'a>>,
}

/// One of its members is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    text: Option<String>,
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
    reasoning_content: Option<Reasoning>,
    citations_content: Option<Citations>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse<'a> {
    tool_use_id: String,
    name: String,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    /// Of a tool that the provider runs itself: such ones are never asked for.
    r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    reasoning_text: Option<ReasoningText>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
struct ReasoningText {
    text: String,
    signature: Option<String>,
}

/// Text with its sources, which no client asked for.
#[derive(Deserialize)]
struct Citations {
    #[serde(default)]
    content: Vec<Cited>,
}

#[derive(Deserialize)]
struct Cited {
    text: Option<String>,
}

pub(crate) fn decode(body: &[u8]) -> Result<Reply, Garbage> {
    let wire: Wire<'_> = serde_json::from_slice(body)
        .map_err(|error| Garbage(format!("the answer is not one of Bedrock's Converse: {error}")))?;
    let mut blocks = Vec::new();
    for (index, piece) in wire.output.message.content.into_iter().enumerate() {
        let block =
            content(piece).map_err(|why| Garbage(format!("`output.message.content[{index}]` {why}")))?;
        blocks.extend(block);
    }
    Ok(Reply {
        id: String::new(),
        model: String::new(),
        blocks,
        stop: stop(&wire.stop_reason, wire.additional_model_response_fields.as_ref())?,
        usage: wire.usage.and_then(|usage| usage.usage()),
    })
}

/// The usage alone, of an answer that may be none.
pub(crate) fn usage(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Said {
        usage: TokenUsage,
    }
    serde_json::from_slice::<Said>(body).ok()?.usage.usage()
}

/// `None`: there is nothing in it.
fn content(piece: Piece<'_>) -> Result<Option<Content>, &'static str> {
    if let Some(text) = piece.text {
        return Ok((!text.is_empty()).then_some(Content::Text(text)));
    }
    if let Some(tool) = piece.tool_use {
        if tool.r#type.is_some() {
            return Err("is a call of a tool that the provider runs itself");
        }
        let input = tool.input.map_or("{}", RawValue::get);
        if !input.starts_with('{') {
            return Err("is a tool call whose input is not an object");
        }
        return Ok(Some(Content::ToolUse { id: tool.tool_use_id, name: tool.name, input: input.to_owned() }));
    }
    if let Some(reasoning) = piece.reasoning_content {
        let thinking = |thought: ReasoningText| Content::Thinking {
            text: thought.text,
            signature: thought.signature.filter(|signature| !signature.is_empty()),
        };
        let redacted = reasoning.redacted_content.map(Content::RedactedThinking);
        return Ok(reasoning.reasoning_text.map(thinking).or(redacted));
    }
    if let Some(cited) = piece.citations_content {
        let text: String = cited.content.into_iter().filter_map(|part| part.text).collect();
        return Ok((!text.is_empty()).then_some(Content::Text(text)));
    }
    Err("is of a kind that cannot be carried over")
}

/// A reason that is not known yet still is the end of a whole answer.
pub(super) fn stop(reason: &str, fields: Option<&Value>) -> Result<Stop, Garbage> {
    Ok(match reason {
        "tool_use" => Stop::ToolUse,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => {
            let sequence = fields.and_then(|fields| fields.get("stop_sequence")?.as_str());
            Stop::Sequence(sequence.map(str::to_owned))
        }
        "guardrail_intervened" | "content_filtered" => Stop::Filtered,
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        "malformed_model_output" | "malformed_tool_use" => {
            return Err(Garbage(format!("the model's output cannot be read (`{reason}`); ask again")));
        }
        _ => Stop::End,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: &str) -> Reply {
        decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_whole_answer() {
        let reply = decoded(include_str!("../../../golden/bedrock/answer.json"));
        assert_eq!((reply.id.as_str(), reply.model.as_str()), ("", ""));
        let texts = |text: &str| Content::Text(text.to_owned());
        assert_eq!(
            reply.blocks,
            [
                Content::Thinking {
                    text: "Both cities need a look.".to_owned(),
                    signature: Some("c2lnbmVk".to_owned())
                },
                Content::RedactedThinking("aGlkZGVu".to_owned()),
                texts("I look up both."),
                Content::ToolUse {
                    id: "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q".to_owned(),
                    name: "get_weather".to_owned(),
                    input: r#"{"city": "Köln", "days": 1.50}"#.to_owned(),
                },
                Content::ToolUse {
                    id: "tooluse_2".to_owned(),
                    name: "now".to_owned(),
                    input: "{}".to_owned()
                },
            ]
        );
        assert_eq!(reply.stop, Stop::ToolUse);
        let usage = Usage { cached_input: 1327, ..Usage::of(1336, 234) };
        assert_eq!(reply.usage, Some(usage));
    }

    #[test]
    fn reasons_to_stop() {
        for (reason, expected) in [
            ("end_turn", Stop::End),
            ("max_tokens", Stop::Length),
            ("model_context_window_exceeded", Stop::Length),
            ("guardrail_intervened", Stop::Filtered),
            ("content_filtered", Stop::Filtered),
            ("stop_sequence", Stop::Sequence(Some("END".to_owned()))),
            ("a new one", Stop::End),
        ] {
            let json = format!(
                r#"{{"output":{{"message":{{"role":"assistant","content":[{{"text":"a"}}]}}}},"stopReason":"{reason}",
                    "additionalModelResponseFields":{{"stop_sequence":"END"}}}}"#
            );
            let reply = decoded(&json);
            assert_eq!((reply.stop, reply.usage), (expected, None), "{reason}");
        }
        assert_eq!(stop("stop_sequence", None), Ok(Stop::Sequence(None)));
        assert!(stop("malformed_tool_use", None).is_err());
    }

    #[test]
    fn what_is_no_answer() {
        let with = |piece: &str| {
            format!(
                r#"{{"output":{{"message":{{"content":[{{"text":"a"}},{piece}]}}}},"stopReason":"end_turn"}}"#
            )
        };
        for (json, place) in [
            ("".to_owned(), "EOF"),
            ("<html>".to_owned(), "expected value"),
            ("{}".to_owned(), "missing field `output`"),
            (r#"{"output":{"message":{"content":[]}}}"#.to_owned(), "stopReason"),
            (with(r#"{"video":{}}"#), "content[1]"),
            (with(r#"{"toolUse":{"toolUseId":"a","name":"b","input":[1]}}"#), "content[1]"),
            (
                with(r#"{"toolUse":{"toolUseId":"a","name":"b","input":{},"type":"server_tool_use"}}"#),
                "content[1]",
            ),
            (with(r#"{"text":7}"#), "expected a string"),
        ] {
            let error = decode(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(place), "{json}: {error}");
        }
        let cited = r#"{"citationsContent":{"content":[{"text":"b"},{"text":"c"}],"citations":[{}]}}"#;
        assert_eq!(decoded(&with(cited)).blocks[1], Content::Text("bc".to_owned()));
    }
}
