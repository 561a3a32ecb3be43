//! OpenAI's chat completions: requests read, answers and their events written. Azure's are the same with filters.

use serde_json::{Value, json};

use super::ask::{Ask, Block, Format, Part, Reply, Stop, Tool, ToolChoice, Usage};
use super::error::Refusal;
use super::read::{self, field, list, text};

pub(super) const CREATED: u64 = 1_700_000_000;

const FIELDS: [&str; 38] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "metadata",
    "temperature",
    "top_p",
    "user",
    "seed",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "store",
    "service_tier",
    "modalities",
    "audio",
    "prediction",
    "verbosity",
    "web_search_options",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "functions",
    "function_call",
    "moderation",
    "data_sources",
];

/// What the answer has beside its words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub include_usage: bool,
    pub logprobs: bool,
    pub azure: bool,
}

pub(super) fn extras(body: &Value, azure: bool) -> Extras {
    Extras {
        include_usage: body["stream_options"]["include_usage"] == true,
        logprobs: body["logprobs"] == true,
        azure,
    }
}

/// # Errors
/// What OpenAI would refuse.
pub(super) fn read(body: &Value, model: Option<&str>) -> Result<Ask, Refusal> {
    if let Some(name) = read::unknown(body, &FIELDS) {
        return Err(Refusal::bad(format!("Unrecognized request argument supplied: {name}")));
    }
    let model = model.or_else(|| text(body, "model")).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Refusal::bad("you must provide a model parameter"))?;
    let limits = [
        read::count(body, "max_completion_tokens", "max_completion_tokens")?,
        read::count(body, "max_tokens", "max_tokens")?,
    ];
    if limits.iter().all(Option::is_some) {
        return Err(Refusal::bad(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        ));
    }
    read::bounded(body, "temperature", "temperature", 0.0, 2.0)?;
    read::bounded(body, "top_p", "top_p", 0.0, 1.0)?;
    let mut ask = Ask {
        model: model.to_owned(),
        stream: body["stream"] == true,
        choices: read::count(body, "n", "n")?.unwrap_or(1).min(16),
        stop: read::texts(field(body, "stop")),
        tokens_max: limits[0].or(limits[1]),
        one_call: body["parallel_tool_calls"] == false,
        thinking_tokens: read::effort_tokens(text(body, "reasoning_effort"))?,
        ..Ask::default()
    };
    if ask.stop.len() > 4 {
        return Err(Refusal::bad("Invalid 'stop': array too long. Expected an array with maximum length 4."));
    }
    if !ask.stream && field(body, "stream_options").is_some() {
        return Err(Refusal::bad("The 'stream_options' parameter is only allowed when 'stream' is enabled."));
    }
    read_messages(&mut ask, body)?;
    read_tools(&mut ask, body)?;
    let format = &body["response_format"];
    ask.format = read_format(format, &format["json_schema"], &ask)?;
    Ok(ask)
}

/// `{"type": "json_object"}` or a schema, which is at another place in each API.
pub(super) fn read_format(format: &Value, named: &Value, ask: &Ask) -> Result<Format, Refusal> {
    match text(format, "type") {
        None | Some("text") => Ok(Format::Text),
        Some("json_object") => {
            let turns = ask.turns.iter().flat_map(|turn| turn.texts());
            let mut said = turns.chain([ask.system.as_str()]);
            if said.any(|text| text.to_ascii_lowercase().contains("json")) {
                return Ok(Format::Json);
            }
            Err(Refusal::bad(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            ))
        }
        Some("json_schema") if text(named, "name").is_none() => {
            Err(Refusal::bad("Missing required parameter: 'response_format.json_schema.name'."))
        }
        Some("json_schema") => Ok(Format::Schema(named["schema"].clone())),
        Some(other) => Err(Refusal::bad(format!(
            "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        ))),
    }
}

fn read_messages(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    let messages = list(body, "messages");
    if messages.is_empty() {
        return Err(Refusal::bad("Missing required parameter: 'messages'."));
    }
    let mut open: Vec<String> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let role = text(message, "role").unwrap_or("");
        if role == "tool" {
            let id = text(message, "tool_call_id").unwrap_or("");
            let place = open.iter().position(|call| call == id).ok_or_else(|| {
                Refusal::bad("Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.")
            })?;
            open.swap_remove(place);
            let text = joined(&read_content(message, index)?);
            ask.push(false, vec![Block::Result { id: id.to_owned(), text }]);
            continue;
        }
        if !open.is_empty() {
            return Err(unanswered(&open));
        }
        let mut blocks = read_content(message, index)?;
        match role {
            "system" | "developer" => ask.add_system(&joined(&blocks)),
            "user" => ask.push(false, blocks),
            "assistant" => {
                for call in list(message, "tool_calls") {
                    let function = &call["function"];
                    let (Some(id), Some(name), Some(input)) =
                        (text(call, "id"), text(function, "name"), text(function, "arguments"))
                    else {
                        return Err(Refusal::bad(format!(
                            "Missing required parameter: 'messages[{index}].tool_calls[0]' needs id, type and function."
                        )));
                    };
                    open.push(id.to_owned());
                    let input = serde_json::from_str(input).unwrap_or(Value::Null);
                    blocks.push(Block::Call { id: id.to_owned(), name: name.to_owned(), input });
                }
                if blocks.is_empty() && field(message, "refusal").is_none() {
                    return Err(Refusal::bad(format!(
                        "Invalid value for 'content': expected a string, got null. (messages.[{index}].content)"
                    )));
                }
                ask.push(true, blocks);
            }
            role => {
                return Err(Refusal::bad(format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                )));
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(unanswered(&open)) }
}

fn unanswered(open: &[String]) -> Refusal {
    Refusal::bad(format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    ))
}

fn joined(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn read_content(message: &Value, index: usize) -> Result<Vec<Block>, Refusal> {
    let part = |part: &Value| {
        let missing = || Refusal::bad(format!("Missing required parameter: in 'messages[{index}].content'."));
        Ok(match text(part, "type").unwrap_or("") {
            kind @ ("text" | "refusal") => Block::Text(text(part, kind).ok_or_else(missing)?.to_owned()),
            "image_url" => {
                let url = text(&part["image_url"], "url").ok_or_else(missing)?;
                Block::Media(read::media_type(url)?)
            }
            "input_audio" => {
                Block::Media(format!("audio/{}", text(&part["input_audio"], "format").ok_or_else(missing)?))
            }
            "file" => match text(&part["file"], "file_data") {
                Some(url) => Block::Media(read::media_type(url)?),
                None => Block::Media("application/pdf".to_owned()),
            },
            kind => {
                return Err(Refusal::bad(format!(
                    "Invalid value: '{kind}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', and 'file'. (messages[{index}].content)"
                )));
            }
        })
    };
    match message.get("content") {
        Some(Value::String(text)) => Ok(vec![Block::Text(text.clone())]),
        Some(Value::Array(parts)) => parts.iter().map(part).collect(),
        None | Some(Value::Null) if message["role"] == "assistant" => Ok(Vec::new()),
        _ => Err(Refusal::bad(format!(
            "Invalid value for 'content': expected a string, got null. (messages.[{index}].content)"
        ))),
    }
}

fn read_tools(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    for (index, tool) in list(body, "tools").iter().enumerate() {
        let function = &tool["function"];
        let name = text(function, "name").filter(|_| tool["type"] == "function");
        let name = name.ok_or_else(|| {
            Refusal::bad(format!("Missing required parameter: 'tools[{index}].function.name'."))
        })?;
        check_tool_name(name, &format!("tools[{index}].function.name"))?;
        ask.tools.push(Tool { name: name.to_owned(), schema: function["parameters"].clone() });
    }
    let choice = field(body, "tool_choice");
    if choice.is_some() && ask.tools.is_empty() {
        return Err(Refusal::bad(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        ));
    }
    ask.tool_choice = read_choice(choice, |choice| text(&choice["function"], "name"))?;
    check_choice(ask)
}

pub(super) fn check_tool_name(name: &str, place: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(Refusal::bad(format!(
            "Invalid '{place}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )));
    }
    Ok(())
}

pub(super) fn read_choice(
    choice: Option<&Value>,
    name: impl Fn(&Value) -> Option<&str>,
) -> Result<ToolChoice, Refusal> {
    Ok(match choice.map(|choice| (choice.as_str(), choice)) {
        None | Some((Some("auto"), _)) => ToolChoice::Auto,
        Some((Some("none"), _)) => ToolChoice::None,
        Some((Some("required"), _)) => ToolChoice::Any,
        Some((None, choice)) if choice["type"] == "function" && name(choice).is_some() => {
            ToolChoice::Named(name(choice).unwrap_or("").to_owned())
        }
        Some((_, choice)) => return Err(Refusal::bad(format!("Invalid value for 'tool_choice': {choice}"))),
    })
}

pub(super) fn check_choice(ask: &Ask) -> Result<(), Refusal> {
    match &ask.tool_choice {
        ToolChoice::Named(name) if !ask.tools.iter().any(|tool| tool.name == *name) => {
            Err(Refusal::bad(format!("Tool choice '{name}' not found in 'tools' parameter.")))
        }
        _ => Ok(()),
    }
}

pub(super) fn usage(usage: &Usage) -> Value {
    let mut value = json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output});
    if usage.cached > 0 || usage.cache_write > 0 {
        value["prompt_tokens_details"] =
            json!({"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write});
    }
    if usage.reasoning > 0 {
        value["completion_tokens_details"] = json!({"reasoning_tokens": usage.reasoning});
    }
    value
}

pub(super) fn finish_reason(reply: &Reply) -> &'static str {
    match reply.stop {
        Stop::End | Stop::Sequence(_) | Stop::Refused => "stop",
        Stop::Limit => "length",
        Stop::Calls => "tool_calls",
        Stop::Filtered => "content_filter",
    }
}

fn call_id(number: &str) -> String {
    format!("call_mock_{number}")
}

fn logprobs(pieces: &[String], extras: Extras) -> Value {
    if !extras.logprobs {
        return Value::Null;
    }
    let token = |piece: &String| json!({"token": piece, "logprob": -0.1, "bytes": piece.as_bytes(), "top_logprobs": []});
    json!({"content": pieces.iter().map(token).collect::<Vec<_>>(), "refusal": null})
}

pub(super) fn answer(reply: &Reply, extras: Extras) -> Value {
    let mut content = Value::Null;
    let mut refusal = Value::Null;
    let (mut calls, mut probabilities) = (Vec::new(), Value::Null);
    for part in &reply.parts {
        match part {
            Part::Thinking(_) => {}
            Part::Text(pieces) => {
                content = part.whole().into();
                probabilities = logprobs(pieces, extras);
            }
            Part::Refusal(_) => refusal = part.whole().into(),
            Part::Call { number, name, .. } => {
                let function = json!({"name": name, "arguments": part.whole()});
                calls.push(json!({"id": call_id(number), "type": "function", "function": function}));
            }
        }
    }
    if content.is_null() && refusal.is_null() && calls.is_empty() {
        content = "".into();
    }
    let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let choice = |index: u64, message: Value| {
        let mut choice = json!({"index": index, "finish_reason": finish_reason(reply)});
        // Moved, not copied: this is what the benchmark asks for.
        choice["message"] = message;
        choice["logprobs"] = probabilities.clone();
        if extras.azure {
            choice["content_filter_results"] = filters();
        }
        choice
    };
    let mut choices: Vec<Value> = (1..reply.choices).map(|index| choice(index, message.clone())).collect();
    choices.insert(0, choice(0, message));
    let mut answer =
        json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": reply.model});
    answer["choices"] = choices.into();
    if extras.azure {
        answer["prompt_filter_results"] = json!([{"prompt_index": 0, "content_filter_results": filters()}]);
    }
    if !reply.no_usage {
        answer["usage"] = usage(&reply.usage);
    }
    answer
}

fn filters() -> Value {
    let safe = json!({"filtered": false, "severity": "safe"});
    json!({"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe})
}

/// The events of a stream with the tokens of each, without the last `[DONE]`.
pub(super) fn events(reply: &Reply, extras: Extras) -> Vec<(Value, u64)> {
    let chunk = |choices: Value| json!({"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": reply.model, "choices": choices});
    let piece = |index: u64, delta: Value, finish: Value| {
        chunk(json!([{"index": index, "delta": delta, "finish_reason": finish}]))
    };
    let mut events = Vec::new();
    if extras.azure {
        let prompt = json!([{"prompt_index": 0, "content_filter_results": filters()}]);
        let first = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": prompt});
        events.push((first, 0));
    }
    for index in 0..reply.choices {
        let thought: usize = reply
            .parts
            .iter()
            .map(|part| if let Part::Thinking(pieces) = part { pieces.len() } else { 0 })
            .sum();
        let first = json!({"role": "assistant", "content": "", "refusal": null});
        events.push((piece(index, first, Value::Null), thought as u64));
        let mut call = 0;
        for part in &reply.parts {
            match part {
                Part::Thinking(_) => {}
                Part::Text(pieces) => events.extend(pieces.iter().map(|text| {
                    let mut event = piece(index, json!({"content": text}), Value::Null);
                    if extras.logprobs {
                        event["choices"][0]["logprobs"] = logprobs(std::slice::from_ref(text), extras);
                    }
                    (event, 1)
                })),
                Part::Refusal(pieces) => events.extend(
                    pieces.iter().map(|text| (piece(index, json!({"refusal": text}), Value::Null), 1)),
                ),
                Part::Call { number, name, pieces } => {
                    let start = json!({"index": call, "id": call_id(number), "type": "function", "function": {"name": name, "arguments": ""}});
                    events.push((piece(index, json!({"tool_calls": [start]}), Value::Null), 0));
                    events.extend(pieces.iter().map(|text| {
                        let more = json!({"index": call, "function": {"arguments": text}});
                        (piece(index, json!({"tool_calls": [more]}), Value::Null), 1)
                    }));
                    call += 1;
                }
            }
        }
        events.push((piece(index, json!({}), finish_reason(reply).into()), 0));
    }
    if extras.include_usage && !reply.no_usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage(&reply.usage);
        events.push((last, 0));
    }
    events
}
