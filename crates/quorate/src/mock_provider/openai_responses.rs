//! OpenAI's responses API: requests read, answers and their events written. Nothing is stored between requests.

use serde_json::{Value, json};

use super::ask::{Ask, Block, Part, Reply, Stop, Tool};
use super::error::Refusal;
use super::openai_chat::{self, CREATED};
use super::read::{self, field, list, text};

const FIELDS: [&str; 31] = [
    "model",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "max_output_tokens",
    "metadata",
    "temperature",
    "top_p",
    "user",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "store",
    "service_tier",
    "include",
    "previous_response_id",
    "truncation",
    "top_logprobs",
    "background",
    "conversation",
    "max_tool_calls",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "safety_identifier",
    "context_management",
    "moderation",
];

/// # Errors
/// What OpenAI would refuse.
pub(super) fn read(body: &Value) -> Result<Ask, Refusal> {
    if let Some(name) = read::unknown(body, &FIELDS) {
        return Err(Refusal::new(400, "unknown_parameter", format!("Unknown parameter: '{name}'.")));
    }
    let model = text(body, "model").filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Refusal::bad("Missing required parameter: 'model'."))?;
    if let Some(id) = text(body, "previous_response_id") {
        let message = format!("Previous response with id '{id}' not found.");
        return Err(Refusal::new(400, "previous_response_not_found", message));
    }
    read::bounded(body, "temperature", "temperature", 0.0, 2.0)?;
    let mut ask = Ask {
        model: model.to_owned(),
        stream: body["stream"] == true,
        system: text(body, "instructions").unwrap_or("").to_owned(),
        tokens_max: read::count(body, "max_output_tokens", "max_output_tokens")?,
        one_call: body["parallel_tool_calls"] == false,
        thinking_tokens: read::effort_tokens(text(&body["reasoning"], "effort"))?,
        ..Ask::default()
    };
    match field(body, "input") {
        Some(Value::String(text)) => ask.push(false, vec![Block::Text(text.clone())]),
        Some(Value::Array(items)) if !items.is_empty() => read_items(&mut ask, items)?,
        _ => {
            return Err(Refusal::new(
                400,
                "missing_required_parameter",
                "Missing required parameter: 'input'.",
            ));
        }
    }
    for (index, tool) in list(body, "tools").iter().enumerate() {
        if tool["type"] != "function" {
            continue;
        }
        let name = text(tool, "name");
        let name =
            name.ok_or_else(|| Refusal::bad(format!("Missing required parameter: 'tools[{index}].name'.")))?;
        openai_chat::check_tool_name(name, &format!("tools[{index}].name"))?;
        ask.tools.push(Tool { name: name.to_owned(), schema: tool["parameters"].clone() });
    }
    ask.tool_choice = openai_chat::read_choice(field(body, "tool_choice"), |choice| text(choice, "name"))?;
    openai_chat::check_choice(&ask)?;
    let format = &body["text"]["format"];
    ask.format = openai_chat::read_format(format, format, &ask)?;
    Ok(ask)
}

fn read_items(ask: &mut Ask, items: &[Value]) -> Result<(), Refusal> {
    let mut called: Vec<&str> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let missing =
            |name: &str| Refusal::bad(format!("Missing required parameter: 'input[{index}].{name}'."));
        match text(item, "type").unwrap_or("message") {
            "message" => {
                let blocks = read_content(item, index)?;
                match text(item, "role") {
                    Some("system" | "developer") => {
                        for block in blocks {
                            if let Block::Text(text) = block {
                                ask.add_system(&text);
                            }
                        }
                    }
                    Some("user") => ask.push(false, blocks),
                    Some("assistant") => ask.push(true, blocks),
                    _ => return Err(missing("role")),
                }
            }
            "function_call" => {
                let id = text(item, "call_id").ok_or_else(|| missing("call_id"))?;
                let name = text(item, "name").ok_or_else(|| missing("name"))?.to_owned();
                let arguments = text(item, "arguments").ok_or_else(|| missing("arguments"))?;
                let input = serde_json::from_str(arguments).unwrap_or(Value::Null);
                called.push(id);
                ask.push(true, vec![Block::Call { id: id.to_owned(), name, input }]);
            }
            "function_call_output" => {
                let id = text(item, "call_id").ok_or_else(|| missing("call_id"))?;
                if !called.contains(&id) {
                    return Err(Refusal::bad(format!(
                        "No tool call found for function call output with call_id {id}."
                    )));
                }
                let output = field(item, "output").ok_or_else(|| missing("output"))?;
                let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
                ask.push(false, vec![Block::Result { id: id.to_owned(), text }]);
            }
            "reasoning" => {}
            kind => return Err(Refusal::bad(format!("Invalid value: '{kind}'. (input[{index}].type)"))),
        }
    }
    let answered = |id: &&str| {
        let mut blocks = ask.turns.iter().flat_map(|turn| &turn.blocks);
        blocks.any(|block| matches!(block, Block::Result { id: of, .. } if of == id))
    };
    match called.iter().find(|id| !answered(id)) {
        Some(id) => Err(Refusal::bad(format!("No tool output found for function call {id}."))),
        None => Ok(()),
    }
}

fn read_content(item: &Value, index: usize) -> Result<Vec<Block>, Refusal> {
    let assistant = item["role"] == "assistant";
    let part = |part: &Value| {
        let kind = text(part, "type").unwrap_or("");
        let wrong = || Refusal::bad(format!("Invalid value: '{kind}'. (input[{index}].content)"));
        Ok(match kind {
            "input_text" if !assistant => Block::Text(text(part, "text").ok_or_else(wrong)?.to_owned()),
            "output_text" if assistant => Block::Text(text(part, "text").ok_or_else(wrong)?.to_owned()),
            "refusal" if assistant => Block::Text(text(part, "refusal").ok_or_else(wrong)?.to_owned()),
            "input_image" => Block::Media(read::media_type(text(part, "image_url").ok_or_else(wrong)?)?),
            "input_file" => Block::Media("application/pdf".to_owned()),
            _ => return Err(wrong()),
        })
    };
    match item.get("content") {
        Some(Value::String(text)) => Ok(vec![Block::Text(text.clone())]),
        Some(Value::Array(parts)) => parts.iter().map(part).collect(),
        _ => Err(Refusal::bad(format!("Missing required parameter: 'input[{index}].content'."))),
    }
}

fn usage(reply: &Reply) -> Value {
    let usage = &reply.usage;
    if reply.no_usage {
        return Value::Null;
    }
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    })
}

fn item(index: usize, part: &Part, done: bool) -> Value {
    let status = if done { "completed" } else { "in_progress" };
    let said = |part: &Part| if done { part.whole() } else { String::new() };
    match part {
        Part::Thinking(_) => json!({"id": format!("rs_mock_{index}"), "type": "reasoning", "summary": []}),
        Part::Call { number, name, .. } => {
            json!({"id": format!("fc_mock_{number}"), "type": "function_call", "status": status, "call_id": format!("call_mock_{number}"), "name": name, "arguments": said(part)})
        }
        Part::Text(_) | Part::Refusal(_) => {
            let content = if done { json!([content(part, true)]) } else { json!([]) };
            json!({"id": format!("msg_mock_{index}"), "type": "message", "status": status, "role": "assistant", "content": content})
        }
    }
}

fn content(part: &Part, done: bool) -> Value {
    let said = if done { part.whole() } else { String::new() };
    match part {
        Part::Refusal(_) => json!({"type": "refusal", "refusal": said}),
        _ => json!({"type": "output_text", "text": said, "annotations": [], "logprobs": []}),
    }
}

fn response(body: &Value, reply: &Reply, status: &str, output: Vec<Value>) -> Value {
    let or = |name: &str, default: Value| field(body, name).cloned().unwrap_or(default);
    let (details, usage) = match (status, &reply.stop) {
        ("incomplete", Stop::Filtered) => (json!({"reason": "content_filter"}), usage(reply)),
        ("incomplete", _) => (json!({"reason": "max_output_tokens"}), usage(reply)),
        ("in_progress", _) => (Value::Null, Value::Null),
        _ => (Value::Null, usage(reply)),
    };
    json!({
        "id": "resp_mock", "object": "response", "created_at": CREATED, "status": status, "error": null,
        "incomplete_details": details, "instructions": body["instructions"], "metadata": or("metadata", json!({})),
        "model": reply.model, "output": output, "parallel_tool_calls": or("parallel_tool_calls", true.into()),
        "temperature": or("temperature", json!(1.0)), "tool_choice": or("tool_choice", "auto".into()),
        "tools": or("tools", json!([])), "top_p": or("top_p", json!(1.0)), "max_output_tokens": body["max_output_tokens"],
        "previous_response_id": null, "reasoning": or("reasoning", json!({"effort": null, "summary": null})),
        "text": or("text", json!({"format": {"type": "text"}})), "truncation": "disabled", "usage": usage,
    })
}

fn status(reply: &Reply) -> &'static str {
    if matches!(reply.stop, Stop::Limit | Stop::Filtered) { "incomplete" } else { "completed" }
}

pub(super) fn answer(body: &Value, reply: &Reply) -> Value {
    let output = reply.parts.iter().enumerate().map(|(index, part)| item(index, part, true)).collect();
    response(body, reply, status(reply), output)
}

/// The events of a stream with the tokens of each.
pub(super) fn events(body: &Value, reply: &Reply) -> Vec<(Value, u64)> {
    let mut events: Vec<(Value, u64)> = Vec::new();
    let mut add = |kind: &str, mut event: Value, tokens: u64| {
        event["type"] = kind.into();
        event["sequence_number"] = events.len().into();
        events.push((event, tokens));
    };
    let begun = response(body, reply, "in_progress", Vec::new());
    add("response.created", json!({"response": begun}), 0);
    add("response.in_progress", json!({"response": begun}), 0);
    for (index, part) in reply.parts.iter().enumerate() {
        let (begun, done) = (item(index, part, false), item(index, part, true));
        let id = &done["id"];
        add("response.output_item.added", json!({"output_index": index, "item": begun}), 0);
        let (delta, end, key) = match part {
            Part::Thinking(_) => {
                let thought = part.pieces().len() as u64;
                add("response.output_item.done", json!({"output_index": index, "item": done}), thought);
                continue;
            }
            Part::Text(_) => ("response.output_text.delta", "response.output_text.done", "text"),
            Part::Refusal(_) => ("response.refusal.delta", "response.refusal.done", "refusal"),
            Part::Call { .. } => (
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "arguments",
            ),
        };
        let is_call = matches!(part, Part::Call { .. });
        let place = |mut event: Value| {
            event["item_id"] = id.clone();
            event["output_index"] = index.into();
            if !is_call {
                event["content_index"] = 0.into();
            }
            if key == "text" && event.get("part").is_none() {
                event["logprobs"] = json!([]);
            }
            event
        };
        if !is_call {
            add("response.content_part.added", place(json!({"part": content(part, false)})), 0);
        }
        for piece in part.pieces() {
            add(delta, place(json!({"delta": piece})), 1);
        }
        let mut ended = place(json!({key: part.whole()}));
        if let Part::Call { name, .. } = part {
            ended["name"] = name.as_str().into();
        }
        add(end, ended, 0);
        if !is_call {
            add("response.content_part.done", place(json!({"part": content(part, true)})), 0);
        }
        add("response.output_item.done", json!({"output_index": index, "item": done}), 0);
    }
    let last = if status(reply) == "completed" { "response.completed" } else { "response.incomplete" };
    add(last, json!({"response": answer(body, reply)}), 0);
    events
}
