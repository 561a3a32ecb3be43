//! Anthropic's messages API: requests read, and refused where the real one refuses them. Its answers: `anthropic_answer.rs`.
//!
//! Bedrock's `invoke` takes the same body, with a version in it in place of model and stream.

use serde_json::Value;

use super::ask::{Ask, Block, Format, Tool, ToolChoice};
use super::error::Refusal;
use super::read::{self, field, list, text};

const FIELDS: [&str; 24] = [
    "model",
    "messages",
    "max_tokens",
    "metadata",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "service_tier",
    "container",
    "cache_control",
    "context_management",
    "mcp_servers",
    "inference_geo",
    "speed",
    "diagnostics",
    "betas",
];
const BEDROCK_FIELDS: [&str; 15] = [
    "anthropic_version",
    "anthropic_beta",
    "messages",
    "max_tokens",
    "stop_sequences",
    "system",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "metadata",
];
const THINKING_LEAST: u64 = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Anthropic,
    Bedrock,
    /// Counts tokens only: needs no `max_tokens`.
    Count,
}

/// # Errors
/// What Anthropic would refuse.
pub(super) fn read(body: &Value, host: Host, model: Option<&str>) -> Result<Ask, Refusal> {
    let allowed: &[&str] = if host == Host::Bedrock { &BEDROCK_FIELDS } else { &FIELDS };
    extra(body, allowed, "")?;
    if host == Host::Bedrock && !text(body, "anthropic_version").is_some_and(is_bedrock_version) {
        return Err(Refusal::bad("anthropic_version: Field required, as \"bedrock-2023-05-31\""));
    }
    let model = model.or_else(|| text(body, "model")).ok_or_else(|| required("model"))?;
    let tokens_max = read::count(body, "max_tokens", "max_tokens")?;
    if tokens_max.is_none() && host != Host::Count {
        return Err(required("max_tokens"));
    }
    read::bounded(body, "temperature", "temperature", 0.0, 1.0)?;
    read::bounded(body, "top_p", "top_p", 0.0, 1.0)?;
    let mut ask = Ask {
        model: model.to_owned(),
        stream: body["stream"] == true,
        stop: read::texts(field(body, "stop_sequences")),
        tokens_max,
        ..Ask::default()
    };
    if ask.stop.iter().any(|sequence| sequence.trim().is_empty()) {
        return Err(Refusal::bad("stop_sequences: each stop sequence must contain non-whitespace"));
    }
    // In the order in which a cache sees them: tools, system, messages.
    read_tools(&mut ask, body)?;
    read_system(&mut ask, body)?;
    read_messages(&mut ask, body)?;
    mark(&mut ask, body)?;
    ask.thinking_tokens = read_thinking(body, tokens_max)?;
    check_thinking(&ask, body)?;
    ask.format = read_format(body)?;
    Ok(ask)
}

/// `bedrock-2023-05-31`, or a version of Anthropic's own, as newer SDKs send it.
fn is_bedrock_version(version: &str) -> bool {
    read::is_date(version.strip_prefix("bedrock-").unwrap_or(version))
}

fn required(place: &str) -> Refusal {
    Refusal::bad(format!("{place}: Field required"))
}

fn extra(value: &Value, allowed: &[&str], place: &str) -> Result<(), Refusal> {
    match read::unknown(value, allowed) {
        Some(name) => Err(Refusal::bad(format!("{place}{name}: Extra inputs are not permitted"))),
        None => Ok(()),
    }
}

/// Tokens to think for, from `thinking` and `output_config.effort`; also as Converse passes them on.
pub(super) fn read_thinking(body: &Value, tokens_max: Option<u64>) -> Result<u64, Refusal> {
    let effort = text(&body["output_config"], "effort");
    let Some(thinking) = field(body, "thinking") else {
        read::effort_tokens(effort)?;
        return Ok(0);
    };
    match text(thinking, "type") {
        Some("disabled") => Ok(0),
        Some("adaptive") => Ok(read::effort_tokens(effort)?.max(8)),
        Some("enabled") => {
            extra(thinking, &["type", "budget_tokens", "display"], "thinking.enabled.")?;
            let budget = thinking["budget_tokens"]
                .as_u64()
                .ok_or_else(|| required("thinking.enabled.budget_tokens"))?;
            if budget < THINKING_LEAST {
                return Err(Refusal::bad(
                    "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
                ));
            }
            if tokens_max.is_some_and(|most| most <= budget) {
                return Err(Refusal::bad(
                    "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size",
                ));
            }
            Ok((budget / 512).min(16))
        }
        other => Err(Refusal::bad(format!(
            "thinking: Input tag '{}' found using 'type' does not match any of the expected tags: 'adaptive', 'disabled', 'enabled'",
            other.unwrap_or("")
        ))),
    }
}

/// What may not go together with thinking.
fn check_thinking(ask: &Ask, body: &Value) -> Result<(), Refusal> {
    if ask.thinking_tokens == 0 {
        return Ok(());
    }
    if matches!(ask.tool_choice, ToolChoice::Any | ToolChoice::Named(_)) {
        return Err(Refusal::bad("Thinking may not be enabled when tool_choice forces tool use."));
    }
    if field(body, "temperature").is_some_and(|temperature| temperature.as_f64() != Some(1.0)) {
        return Err(Refusal::bad("`temperature` may only be set to 1 when thinking is enabled."));
    }
    if field(body, "top_k").is_some() {
        return Err(Refusal::bad("`top_k` must be unset when thinking is enabled."));
    }
    // The turn that called the tools whose results are last must begin with its thoughts.
    let Some([before, last]) = ask.turns.last_chunk::<2>() else { return Ok(()) };
    let results = last.blocks.iter().any(|block| matches!(block, Block::Result { .. }));
    if results && before.assistant && !matches!(before.blocks.first(), Some(Block::Thinking(_))) {
        let index = ask.turns.len() - 2;
        return Err(Refusal::bad(format!(
            "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
        )));
    }
    Ok(())
}

fn read_format(body: &Value) -> Result<Format, Refusal> {
    let config = field(body, "output_config");
    if let Some(config) = config {
        extra(config, &["effort", "format"], "output_config.")?;
    }
    let format = config.and_then(|config| field(config, "format")).or_else(|| field(body, "output_format"));
    let Some(format) = format else { return Ok(Format::Text) };
    extra(format, &["type", "schema"], "output_config.format.")?;
    match (text(format, "type"), field(format, "schema")) {
        (Some("json_schema"), Some(schema)) => Ok(Format::Schema(schema.clone())),
        (Some("json_schema"), None) => Err(required("output_config.format.schema")),
        _ => Err(Refusal::bad("output_config.format.type: Input should be 'json_schema'")),
    }
}

fn read_tools(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    for (index, tool) in list(body, "tools").iter().enumerate() {
        let place = format!("tools.{index}.");
        // Tools of the server's own have other fields, and are not offered to the simulated model.
        if text(tool, "type").is_none_or(|kind| kind == "custom") {
            const FIELDS: [&str; 10] = [
                "type",
                "name",
                "description",
                "input_schema",
                "cache_control",
                "strict",
                "eager_input_streaming",
                "input_examples",
                "defer_loading",
                "allowed_callers",
            ];
            let place = format!("{place}custom.");
            extra(tool, &FIELDS, &place)?;
            let name = text(tool, "name").ok_or_else(|| required(&format!("{place}name")))?;
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
                return Err(Refusal::bad(format!(
                    "{place}name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
                )));
            }
            if ask.tools.iter().any(|tool| tool.name == name) {
                return Err(Refusal::bad("tools: Tool names must be unique."));
            }
            let schema =
                field(tool, "input_schema").ok_or_else(|| required(&format!("{place}input_schema")))?;
            if schema["type"] != "object" {
                return Err(Refusal::bad(format!("{place}input_schema.type: Field required, as 'object'")));
            }
            ask.tools.push(Tool { name: name.to_owned(), schema: schema.clone() });
        }
        mark(ask, tool)?;
    }
    let Some(choice) = field(body, "tool_choice") else { return Ok(()) };
    if list(body, "tools").is_empty() {
        return Err(Refusal::bad("tool_choice may only be specified while providing tools."));
    }
    extra(choice, &["type", "name", "disable_parallel_tool_use"], "tool_choice.")?;
    ask.one_call = choice["disable_parallel_tool_use"] == true;
    ask.tool_choice = match (text(choice, "type"), text(choice, "name")) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("any"), _) => ToolChoice::Any,
        (Some("none"), _) => ToolChoice::None,
        (Some("tool"), Some(name)) if ask.tools.iter().any(|tool| tool.name == name) => {
            ToolChoice::Named(name.to_owned())
        }
        (Some("tool"), Some(name)) => {
            return Err(Refusal::bad(format!("Tool '{name}' not found in provided tools")));
        }
        (Some("tool"), None) => return Err(required("tool_choice.tool.name")),
        (other, _) => {
            return Err(Refusal::bad(format!(
                "tool_choice: Input tag '{}' found using 'type' does not match any of the expected tags: 'any', 'auto', 'none', 'tool'",
                other.unwrap_or("")
            )));
        }
    };
    Ok(())
}

fn mark(ask: &mut Ask, value: &Value) -> Result<(), Refusal> {
    if field(value, "cache_control").is_some() { ask.mark_cache() } else { Ok(()) }
}

fn read_system(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    match field(body, "system") {
        None => Ok(()),
        Some(Value::String(system)) => {
            ask.system.clone_from(system);
            Ok(())
        }
        Some(Value::Array(blocks)) => {
            for (index, block) in blocks.iter().enumerate() {
                extra(block, &["type", "text", "cache_control", "citations"], &format!("system.{index}."))?;
                let said = text(block, "text").ok_or_else(|| required(&format!("system.{index}.text")))?;
                if said.is_empty() {
                    return Err(Refusal::bad("system: text content blocks must be non-empty"));
                }
                ask.add_system(said);
                mark(ask, block)?;
            }
            Ok(())
        }
        Some(_) => Err(Refusal::bad("system: Input should be a valid list")),
    }
}

fn read_messages(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    let messages = field(body, "messages").ok_or_else(|| required("messages"))?;
    let messages =
        messages.as_array().ok_or_else(|| Refusal::bad("messages: Input should be a valid list"))?;
    if messages.is_empty() {
        return Err(Refusal::bad("messages: at least one message is required"));
    }
    for (index, message) in messages.iter().enumerate() {
        extra(message, &["role", "content"], &format!("messages.{index}."))?;
        let assistant = match text(message, "role") {
            Some("user") => false,
            Some("assistant") => true,
            other => {
                return Err(Refusal::bad(format!(
                    "messages: Unexpected role \"{}\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role.",
                    other.unwrap_or("")
                )));
            }
        };
        if index == 0 && assistant {
            return Err(Refusal::bad("messages: first message must use the \"user\" role"));
        }
        let last = index + 1 == messages.len();
        let place = format!("messages.{index}");
        match field(message, "content") {
            Some(Value::String(said)) if said.is_empty() && !(last && assistant) => {
                return Err(empty(&place));
            }
            Some(Value::String(said)) => {
                if last && assistant && said.ends_with(char::is_whitespace) {
                    return Err(Refusal::bad(
                        "messages: final assistant content cannot end with trailing whitespace",
                    ));
                }
                ask.push(assistant, vec![Block::Text(said.clone())]);
            }
            Some(Value::Array(blocks)) if blocks.is_empty() && !(last && assistant) => {
                return Err(empty(&place));
            }
            Some(Value::Array(blocks)) => {
                // Before its content, so that marks within it cover what came before.
                ask.push(assistant, Vec::new());
                for (at, block) in blocks.iter().enumerate() {
                    let read = read_block(block, assistant, &format!("{place}.content.{at}"))?;
                    ask.push(assistant, read.into_iter().collect());
                    mark(ask, block)?;
                }
            }
            _ => return Err(required(&format!("{place}.content"))),
        }
    }
    check_calls(ask)
}

fn empty(place: &str) -> Refusal {
    Refusal::bad(format!(
        "{place}: all messages must have non-empty content except for the optional final assistant message"
    ))
}

fn read_block(block: &Value, assistant: bool, place: &str) -> Result<Option<Block>, Refusal> {
    let kind = text(block, "type").ok_or_else(|| required(&format!("{place}.type")))?;
    let need = |name: &str| text(block, name).ok_or_else(|| required(&format!("{place}.{kind}.{name}")));
    let only = |fields: &[&str]| extra(block, fields, &format!("{place}.{kind}."));
    Ok(Some(match (kind, assistant) {
        ("text", _) => {
            only(&["type", "text", "cache_control", "citations"])?;
            let said = need("text")?;
            if said.is_empty() {
                return Err(Refusal::bad("messages: text content blocks must be non-empty"));
            }
            Block::Text(said.to_owned())
        }
        ("image" | "document", false) => {
            only(&["type", "source", "title", "context", "citations", "cache_control"])?;
            Block::Media(read_source(&block["source"], kind, place)?)
        }
        ("tool_use", true) => {
            only(&["type", "id", "name", "input", "cache_control", "caller"])?;
            let input = field(block, "input").filter(|input| input.is_object());
            let input = input.ok_or_else(|| {
                Refusal::bad(format!("{place}.tool_use.input: Input should be a valid dictionary"))
            })?;
            Block::Call { id: need("id")?.to_owned(), name: need("name")?.to_owned(), input: input.clone() }
        }
        ("tool_result", false) => {
            only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
            Block::Result { id: need("tool_use_id")?.to_owned(), text: result_text(block, place)? }
        }
        ("thinking", true) => {
            only(&["type", "thinking", "signature"])?;
            let thought = need("thinking")?;
            if need("signature")? != signature(thought) {
                return Err(Refusal::bad(format!("{place}: Invalid `signature` in `thinking` block")));
            }
            Block::Thinking(thought.to_owned())
        }
        ("redacted_thinking", true) => Block::Thinking(need("data")?.to_owned()),
        ("search_result", false) => return Ok(None),
        _ => {
            return Err(Refusal::bad(format!(
                "{place}: Input tag '{kind}' found using 'type' does not match any of the expected tags for this role"
            )));
        }
    }))
}

fn read_source(source: &Value, kind: &str, place: &str) -> Result<String, Refusal> {
    let need =
        |name: &str| text(source, name).ok_or_else(|| required(&format!("{place}.{kind}.source.{name}")));
    match need("type")? {
        "base64" => {
            extra(source, &["type", "media_type", "data"], &format!("{place}.{kind}.source.base64."))?;
            let media = need("media_type")?;
            let allowed = ["image/jpeg", "image/png", "image/gif", "image/webp"];
            if kind == "image" && !allowed.contains(&media) {
                return Err(Refusal::bad(format!(
                    "{place}.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
                )));
            }
            read::decode(need("data")?)
                .map_err(|_| Refusal::bad(format!("{place}.{kind}.source.base64: invalid base64 data")))?;
            Ok(media.to_owned())
        }
        "url" => {
            extra(source, &["type", "url"], &format!("{place}.{kind}.source.url."))?;
            read::media_type(need("url")?)
        }
        "text" | "content" if kind == "document" => Ok("text/plain".to_owned()),
        other => Err(Refusal::bad(format!(
            "{place}.{kind}.source: Input tag '{other}' found using 'type' does not match any of the expected tags"
        ))),
    }
}

fn result_text(block: &Value, place: &str) -> Result<String, Refusal> {
    match field(block, "content") {
        None => Ok(String::new()),
        Some(Value::String(said)) => Ok(said.clone()),
        Some(Value::Array(parts)) => {
            let mut said = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                match read_block(part, false, &format!("{place}.tool_result.content.{at}"))? {
                    Some(Block::Text(text)) => said.push(text),
                    Some(Block::Media(kind)) => said.push(kind),
                    _ => {}
                }
            }
            Ok(said.join(" "))
        }
        Some(_) => Err(Refusal::bad(format!("{place}.tool_result.content: Input should be a valid list"))),
    }
}

/// Results follow their calls at once, and each has one.
fn check_calls(ask: &Ask) -> Result<(), Refusal> {
    for (index, turn) in ask.turns.iter().enumerate() {
        let calls: Vec<&str> = turn.calls().collect();
        let next = ask.turns.get(index + 1);
        if let Some(next) = next.filter(|_| !calls.is_empty()) {
            let missing: Vec<&str> =
                calls.iter().copied().filter(|id| !next.results().any(|of| of == *id)).collect();
            if !missing.is_empty() {
                return Err(Refusal::bad(format!(
                    "messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                    missing.join(", ")
                )));
            }
        }
        let before = index.checked_sub(1).and_then(|before| ask.turns.get(before));
        let known = |id: &str| before.is_some_and(|before| before.calls().any(|call| call == id));
        if let Some(id) = turn.results().find(|id| !known(id)) {
            return Err(Refusal::bad(format!(
                "messages.{index}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )));
        }
    }
    Ok(())
}

/// What proves that a thought was the simulated model's own.
pub(super) fn signature(thought: &str) -> String {
    read::encode(format!("mock:{thought}"))
}
