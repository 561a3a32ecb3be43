//! OpenAI's answers, as JSON and as events of a stream.

use serde_json::{Value, json};

use super::request::Plan;

const CREATED: u64 = 1_700_000_000;

pub(super) fn usage(plan: &Plan) -> Value {
    let output = plan.output_tokens * plan.choices;
    let mut usage = json!({"prompt_tokens": plan.input_tokens, "completion_tokens": output, "total_tokens": plan.input_tokens + output});
    if plan.cached_tokens > 0 || plan.cache_write_tokens > 0 {
        usage["prompt_tokens_details"] =
            json!({"cached_tokens": plan.cached_tokens, "cache_write_tokens": plan.cache_write_tokens});
    }
    if plan.reasoning_tokens > 0 {
        usage["completion_tokens_details"] = json!({"reasoning_tokens": plan.reasoning_tokens});
    }
    usage
}

fn finish_reason(plan: &Plan) -> &'static str {
    if plan.cut_by_limit { "length" } else { "stop" }
}

fn content(plan: &Plan) -> String {
    "ok ".repeat(usize::try_from(plan.output_tokens).unwrap_or(0))
}

fn with_usage(mut answer: Value, plan: &Plan) -> Value {
    if !plan.no_usage {
        answer["usage"] = usage(plan);
    }
    answer
}

pub(super) fn chat(plan: &Plan) -> Value {
    let choice = |index| {
        let message = json!({"role": "assistant", "content": content(plan), "refusal": null});
        json!({"index": index, "message": message, "finish_reason": finish_reason(plan), "logprobs": null})
    };
    let choices: Vec<Value> = (0..plan.choices).map(choice).collect();
    let answer = json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": plan.model, "choices": choices});
    with_usage(answer, plan)
}

pub(super) fn completion(plan: &Plan) -> Value {
    let choice = |index| json!({"index": index, "text": content(plan), "finish_reason": finish_reason(plan), "logprobs": null});
    let choices: Vec<Value> = (0..plan.choices).map(choice).collect();
    let answer = json!({"id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": plan.model, "choices": choices});
    with_usage(answer, plan)
}

pub(super) fn embeddings(plan: &Plan, inputs: usize) -> Value {
    let data: Vec<Value> = (0..inputs.max(1))
        .map(|index| json!({"object": "embedding", "index": index, "embedding": [0.25, -0.5, 0.125]}))
        .collect();
    json!({
        "object": "list", "data": data, "model": plan.model,
        "usage": {"prompt_tokens": plan.input_tokens, "total_tokens": plan.input_tokens},
    })
}

/// The events of a stream, without the last `[DONE]`.
pub(super) fn events(plan: &Plan, chat: bool) -> Vec<Value> {
    let (id, object) =
        if chat { ("chatcmpl-mock", "chat.completion.chunk") } else { ("cmpl-mock", "text_completion") };
    let chunk = |choices: Value| json!({"id": id, "object": object, "created": CREATED, "model": plan.model, "choices": choices});
    let piece = |index: u64, text: &str, finish: Value| {
        if chat {
            let delta = if text.is_empty() { json!({}) } else { json!({"content": text}) };
            chunk(json!([{"index": index, "delta": delta, "finish_reason": finish}]))
        } else {
            chunk(json!([{"index": index, "text": text, "finish_reason": finish}]))
        }
    };
    let mut events = Vec::new();
    for choice in 0..plan.choices {
        events.extend((0..plan.output_tokens).map(|_| piece(choice, "ok ", Value::Null)));
        events.push(piece(choice, "", finish_reason(plan).into()));
    }
    if plan.include_usage && !plan.no_usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage(plan);
        events.push(last);
    }
    events
}

pub(super) fn models() -> Value {
    let model = |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"});
    let models = ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"].map(model);
    json!({"object": "list", "data": models})
}

pub(super) fn error(status: u16) -> Value {
    let (kind, message) = match status {
        429 => ("rate_limit_exceeded", "the simulated provider is limited"),
        400..500 => ("invalid_request_error", "the simulated provider refuses the request"),
        _ => ("server_error", "the simulated provider fails"),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
}
