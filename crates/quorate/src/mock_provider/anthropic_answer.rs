//! Anthropic's answers and the events of its streams.

use serde_json::{Value, json};

use super::anthropic::signature;
use super::ask::{Part, Reply, Stop, Usage};

pub(super) fn stop_reason(stop: &Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Limit => "max_tokens",
        Stop::Sequence(_) => "stop_sequence",
        Stop::Calls => "tool_use",
        Stop::Refused | Stop::Filtered => "refusal",
    }
}

/// Input without what a cache read or wrote, which are counted apart.
fn usage(usage: &Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.input.saturating_sub(usage.cached + usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

fn block(part: &Part) -> Value {
    let said = part.whole();
    match part {
        Part::Thinking(_) => json!({"type": "thinking", "signature": signature(&said), "thinking": said}),
        Part::Text(_) | Part::Refusal(_) => json!({"type": "text", "text": said}),
        Part::Call { number, name, .. } => {
            json!({"type": "tool_use", "id": format!("toolu_mock_{number}"), "name": name, "input": part.arguments()})
        }
    }
}

fn message(reply: &Reply, content: Vec<Value>, output: u64) -> Value {
    let mut message = json!({
        "id": "msg_mock", "type": "message", "role": "assistant", "model": reply.model, "content": content,
        "stop_reason": null, "stop_sequence": null,
    });
    if !reply.no_usage {
        message["usage"] = usage(&reply.usage, output);
    }
    message
}

fn stop_sequence(reply: &Reply) -> Value {
    match &reply.stop {
        Stop::Sequence(sequence) => sequence.as_str().into(),
        _ => Value::Null,
    }
}

pub(super) fn answer(reply: &Reply) -> Value {
    let content = reply.parts.iter().filter(|part| !part.pieces().is_empty()).map(block).collect();
    let mut answer = message(reply, content, reply.usage.output);
    answer["stop_reason"] = stop_reason(&reply.stop).into();
    answer["stop_sequence"] = stop_sequence(reply);
    answer
}

/// The events with the tokens of each; every one names its own type.
pub(super) fn events(reply: &Reply) -> Vec<(Value, u64)> {
    let mut events = vec![
        (json!({"type": "message_start", "message": message(reply, Vec::new(), 1)}), 0),
        (json!({"type": "ping"}), 0),
    ];
    let parts = reply.parts.iter().filter(|part| !part.pieces().is_empty());
    for (index, part) in parts.enumerate() {
        let empty = match part {
            Part::Thinking(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Part::Text(_) | Part::Refusal(_) => json!({"type": "text", "text": ""}),
            Part::Call { .. } => {
                let mut call = block(part);
                call["input"] = json!({});
                call
            }
        };
        let delta = |piece: &str| match part {
            Part::Thinking(_) => json!({"type": "thinking_delta", "thinking": piece}),
            Part::Text(_) | Part::Refusal(_) => json!({"type": "text_delta", "text": piece}),
            Part::Call { .. } => json!({"type": "input_json_delta", "partial_json": piece}),
        };
        let of = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        events.push((json!({"type": "content_block_start", "index": index, "content_block": empty}), 0));
        events.extend(part.pieces().iter().map(|piece| (of(delta(piece)), 1)));
        if let Part::Thinking(_) = part {
            events.push((of(json!({"type": "signature_delta", "signature": signature(&part.whole())})), 0));
        }
        events.push((json!({"type": "content_block_stop", "index": index}), 0));
    }
    let delta = json!({"stop_reason": stop_reason(&reply.stop), "stop_sequence": stop_sequence(reply)});
    let mut last = json!({"type": "message_delta", "delta": delta});
    // The SDKs need a usage here; one without it says nothing of the input.
    last["usage"] = if reply.no_usage { json!({}) } else { usage(&reply.usage, reply.usage.output) };
    events.push((last, 0));
    events.push((json!({"type": "message_stop"}), 0));
    events
}
