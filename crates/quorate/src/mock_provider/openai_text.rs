//! OpenAI's older text completions, embeddings and the list of models.

use serde_json::{Value, json};

use super::ask::{Ask, Block, Part, Reply};
use super::error::Refusal;
use super::openai_chat::{CREATED, Extras, finish_reason, usage};
use super::read::{self, field, text};

/// A prompt as one user turn. Text or token ids, one or many.
///
/// # Errors
/// There is no model or no prompt.
pub(super) fn read(body: &Value, model: Option<&str>, key: &str) -> Result<Ask, Refusal> {
    let model = model.or_else(|| text(body, "model")).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Refusal::bad("you must provide a model parameter"))?;
    let prompt = field(body, key);
    let prompt = prompt.ok_or_else(|| Refusal::bad(format!("Missing required parameter: '{key}'.")))?;
    let mut ask = Ask {
        model: model.to_owned(),
        stream: body["stream"] == true,
        choices: read::count(body, "n", "n")?.unwrap_or(1).min(16),
        stop: read::texts(field(body, "stop")),
        tokens_max: body.get("max_tokens").and_then(Value::as_u64),
        ..Ask::default()
    };
    ask.push(false, read::texts(Some(prompt)).into_iter().map(Block::Text).collect());
    Ok(ask)
}

/// A prompt has no roles, which the count of a conversation includes.
pub(super) fn input_tokens(ask: &Ask) -> u64 {
    let bytes: usize = ask.turns.iter().flat_map(|turn| turn.texts()).map(str::len).sum();
    bytes.div_ceil(4) as u64
}

pub(super) fn completion(reply: &Reply) -> Value {
    let said: String = reply.parts.iter().map(Part::whole).collect();
    let choice = |index| json!({"index": index, "text": said, "finish_reason": finish_reason(reply), "logprobs": null});
    let choices: Vec<Value> = (0..reply.choices).map(choice).collect();
    let mut answer = json!({"id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": reply.model, "choices": choices});
    if !reply.no_usage {
        answer["usage"] = usage(&reply.usage);
    }
    answer
}

pub(super) fn completion_events(reply: &Reply, extras: Extras) -> Vec<(Value, u64)> {
    let chunk = |choices: Value| json!({"id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": reply.model, "choices": choices});
    let piece = |index: u64, text: &str, finish: Value| {
        chunk(json!([{"index": index, "text": text, "finish_reason": finish}]))
    };
    let mut events = Vec::new();
    for index in 0..reply.choices {
        let pieces = reply.parts.iter().flat_map(|part| part.pieces());
        events.extend(pieces.map(|text| (piece(index, text, Value::Null), 1)));
        events.push((piece(index, "", finish_reason(reply).into()), 0));
    }
    if extras.include_usage && !reply.no_usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage(&reply.usage);
        events.push((last, 0));
    }
    events
}

/// As base64 of little-endian floats if asked, which the SDKs do by default.
pub(super) fn embeddings(body: &Value, reply: &Reply) -> Value {
    const VECTOR: [f32; 3] = [0.25, -0.5, 0.125];
    let input = &body["input"];
    // A list of numbers is one text as token ids.
    let inputs =
        input.as_array().map_or(1, |items| if items.iter().any(Value::is_u64) { 1 } else { items.len() });
    let vector = if body["encoding_format"] == "base64" {
        read::encode(VECTOR.map(f32::to_le_bytes).concat()).into()
    } else {
        json!(VECTOR)
    };
    let data: Vec<Value> = (0..inputs.max(1))
        .map(|index| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    let mut answer = json!({"object": "list", "data": data, "model": reply.model});
    if !reply.no_usage {
        answer["usage"] = json!({"prompt_tokens": reply.usage.input, "total_tokens": reply.usage.input});
    }
    answer
}

pub(super) fn models() -> Value {
    let model = |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"});
    let models = ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"].map(model);
    json!({"object": "list", "data": models})
}
