//! Converse's answers, and the events of ConverseStream before they become frames.

use serde_json::{Value, json};

use super::anthropic::signature;
use super::ask::{Part, Reply, Stop};

/// An event of a stream: its type, its payload and the tokens in it.
pub(super) type Event = (&'static str, Value, u64);

fn stop_reason(stop: &Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Limit => "max_tokens",
        Stop::Sequence(_) => "stop_sequence",
        Stop::Calls => "tool_use",
        Stop::Refused | Stop::Filtered => "content_filtered",
    }
}

/// Input without what a cache read or wrote, which are counted apart but in the total.
fn usage(reply: &Reply) -> Value {
    let usage = &reply.usage;
    json!({
        "inputTokens": usage.input.saturating_sub(usage.cached + usage.cache_write),
        "outputTokens": usage.output,
        "totalTokens": usage.input.max(usage.cached + usage.cache_write) + usage.output,
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.cache_write,
    })
}

fn call_id(number: &str) -> String {
    format!("tooluse_mock_{number}")
}

fn spoken(reply: &Reply) -> impl Iterator<Item = &Part> {
    reply.parts.iter().filter(|part| !part.pieces().is_empty())
}

pub(super) fn answer(reply: &Reply) -> Value {
    let block = |part: &Part| match part {
        Part::Thinking(_) => {
            let said = part.whole();
            json!({"reasoningContent": {"reasoningText": {"signature": signature(&said), "text": said}}})
        }
        Part::Text(_) | Part::Refusal(_) => json!({"text": part.whole()}),
        Part::Call { number, name, .. } => {
            json!({"toolUse": {"toolUseId": call_id(number), "name": name, "input": part.arguments()}})
        }
    };
    let content: Vec<Value> = spoken(reply).map(block).collect();
    let mut answer = json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop_reason(&reply.stop),
        "metrics": {"latencyMs": 1},
    });
    if !reply.no_usage {
        answer["usage"] = usage(reply);
    }
    answer
}

/// Only calls have a start event, as at the real one.
pub(super) fn events(reply: &Reply) -> Vec<Event> {
    let mut events = vec![("messageStart", json!({"role": "assistant"}), 0)];
    for (index, part) in spoken(reply).enumerate() {
        if let Part::Call { number, name, .. } = part {
            let start = json!({"toolUse": {"toolUseId": call_id(number), "name": name}});
            events.push(("contentBlockStart", json!({"start": start, "contentBlockIndex": index}), 0));
        }
        let delta = |piece: &str| match part {
            Part::Thinking(_) => json!({"reasoningContent": {"text": piece}}),
            Part::Text(_) | Part::Refusal(_) => json!({"text": piece}),
            Part::Call { .. } => json!({"toolUse": {"input": piece}}),
        };
        let of = |delta: Value| json!({"delta": delta, "contentBlockIndex": index});
        events.extend(part.pieces().iter().map(|piece| ("contentBlockDelta", of(delta(piece)), 1)));
        if let Part::Thinking(_) = part {
            let signed = json!({"reasoningContent": {"signature": signature(&part.whole())}});
            events.push(("contentBlockDelta", of(signed), 0));
        }
        events.push(("contentBlockStop", json!({"contentBlockIndex": index}), 0));
    }
    events.push(("messageStop", json!({"stopReason": stop_reason(&reply.stop)}), 0));
    let mut metadata = json!({"metrics": {"latencyMs": 1}});
    if !reply.no_usage {
        metadata["usage"] = usage(reply);
    }
    events.push(("metadata", metadata, 0));
    events
}
