//! What whole answers and the chunks of a stream have in common: the reasons to stop, usage, ids.

use serde_json::{Value, json};

use crate::provider::{reply::Stop, usage::Usage};

/// `finish_reason`, and vLLM's `stop_reason`, which names the sequence.
pub(crate) fn stop(choice: &Value) -> Option<Stop> {
    let word = choice.get("finish_reason")?.as_str()?;
    Some(match word {
        "length" | "max_tokens" | "model_length" => Stop::Length,
        "tool_calls" | "function_call" => Stop::ToolUse,
        "content_filter" => Stop::Filtered,
        // `stop`, and other servers' words for it (`eos`, `end_turn`).
        _ => match choice.get("stop_reason").and_then(Value::as_str) {
            Some(sequence) => Stop::Sequence(Some(sequence.to_owned())),
            None => Stop::End,
        },
    })
}

/// Servers say `stop` after a forced tool call, and with a refusal: what the answer holds tells more.
pub(crate) fn settled(stop: Stop, used_tools: bool, refused: bool) -> Stop {
    match stop {
        Stop::End if used_tools => Stop::ToolUse,
        Stop::End if refused => Stop::Refusal,
        stop => stop,
    }
}

/// `refused`: the refusal is in the answer as such.
pub(crate) fn finish_reason(stop: &Stop, refused: bool) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence(_) | Stop::Pause => "stop",
        Stop::Refusal if refused => "stop",
        Stop::Length => "length",
        Stop::ToolUse => "tool_calls",
        Stop::Refusal | Stop::Filtered => "content_filter",
    }
}

pub(crate) fn usage(usage: &Usage) -> Value {
    let mut prompt = json!({"cached_tokens": usage.cached_input, "audio_tokens": 0});
    if usage.cache_creation_input > 0 {
        // Of newer SDKs and OpenRouter; where nothing was written it would only be noise.
        prompt["cache_write_tokens"] = usage.cache_creation_input.into();
    }
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// For a call that came without one: unique like the end of the answer's own id, in the letters that all dialects allow,
/// and short enough to go back to OpenAI.
pub(crate) fn call_id(answer: &str, at: usize) -> String {
    let fits = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let kept: Vec<char> = answer.chars().filter(fits).collect();
    let kept: String = kept[kept.len().saturating_sub(24)..].iter().collect();
    format!("call_{kept}_{at}")
}

/// A string member; absent, null or another kind counts as empty.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Text that may come as a string or, from some servers, as a list of parts.
pub(crate) fn said(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text(part, "text")).collect(),
        _ => String::new(),
    }
}

/// Under the names of DeepSeek and vLLM, or of OpenRouter and Groq.
pub(crate) fn reasoning(message: &Value) -> &str {
    match text(message, "reasoning_content") {
        "" => text(message, "reasoning"),
        text => text,
    }
}

/// Arguments as text; some servers send the object itself.
pub(crate) fn arguments(function: &Value) -> String {
    match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(object @ Value::Object(_)) => object.to_string(),
        _ => String::new(),
    }
}

pub(crate) fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::openai::messages_out::CALL_ID_CHARS_MAX;

    #[test]
    fn reasons_to_stop() {
        for (choice, expected) in [
            (json!({}), None),
            (json!({"finish_reason": null}), None),
            (json!({"finish_reason": "stop"}), Some(Stop::End)),
            (json!({"finish_reason": "eos"}), Some(Stop::End)),
            (
                json!({"finish_reason": "stop", "stop_reason": "END"}),
                Some(Stop::Sequence(Some("END".to_owned()))),
            ),
            (json!({"finish_reason": "stop", "stop_reason": 128_001}), Some(Stop::End)),
            (json!({"finish_reason": "length"}), Some(Stop::Length)),
            (json!({"finish_reason": "tool_calls"}), Some(Stop::ToolUse)),
            (json!({"finish_reason": "function_call"}), Some(Stop::ToolUse)),
            (json!({"finish_reason": "content_filter"}), Some(Stop::Filtered)),
        ] {
            assert_eq!(stop(&choice), expected, "{choice}");
        }
        assert_eq!(settled(Stop::End, true, false), Stop::ToolUse);
        assert_eq!(settled(Stop::End, false, true), Stop::Refusal);
        assert_eq!(settled(Stop::Length, true, true), Stop::Length);
        assert_eq!(finish_reason(&Stop::Refusal, true), "stop");
        assert_eq!(finish_reason(&Stop::Refusal, false), "content_filter");
    }

    #[test]
    fn usage_is_read_as_it_was_written() {
        let all = Usage {
            input: 100,
            cached_input: 64,
            cache_creation_input: 20,
            output: 50,
            reasoning: 30,
            total: 150,
        };
        for written in [all, Usage::of(3, 4), Usage::default()] {
            assert_eq!(serde_json::from_value::<Usage>(usage(&written)).unwrap(), written);
        }
    }

    #[test]
    fn made_up_ids_suit_every_dialect() {
        assert_eq!(call_id("chatcmpl-1.ä/x", 2), "call_chatcmpl-1x_2");
        assert!(call_id(&"x".repeat(500), 99_999_999).len() <= CALL_ID_CHARS_MAX);
    }
}
