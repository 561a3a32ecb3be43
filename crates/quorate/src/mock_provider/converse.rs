//! Bedrock's Converse: requests read, and refused where the real one refuses them. Its answers: `converse_answer.rs`.

use serde_json::Value;

use super::anthropic;
use super::ask::{Ask, Block, Format, Tool, ToolChoice};
use super::error::Refusal;
use super::read::{self, field, list, text};

const FIELDS: [&str; 14] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
    "projectIdentifier",
    "modelId",
];

/// # Errors
/// What Bedrock would refuse.
pub(super) fn read(body: &Value, model: &str) -> Result<Ask, Refusal> {
    extra(body, &FIELDS, "#")?;
    let mut ask = Ask { model: model.to_owned(), ..Ask::default() };
    if let Some(config) = field(body, "inferenceConfig") {
        extra(config, &["maxTokens", "temperature", "topP", "stopSequences"], "#/inferenceConfig")?;
        ask.tokens_max = read::count(config, "maxTokens", "inferenceConfig.maxTokens")?;
        read::bounded(config, "temperature", "inferenceConfig.temperature", 0.0, 1.0)?;
        read::bounded(config, "topP", "inferenceConfig.topP", 0.0, 1.0)?;
        ask.stop = read::texts(field(config, "stopSequences"));
        if ask.stop.iter().any(String::is_empty) {
            return Err(Refusal::bad(
                "inferenceConfig.stopSequences: Member must have length greater than or equal to 1",
            ));
        }
    }
    read_tools(&mut ask, body)?;
    for (index, block) in list(body, "system").iter().enumerate() {
        let (kind, value) = union(block, &format!("system.{index}"))?;
        match kind {
            "text" => ask.add_system(filled(value, &format!("system.{index}"))?),
            "cachePoint" => mark(&mut ask, value)?,
            "guardContent" => {}
            _ => return Err(no_member(kind, &format!("system.{index}"))),
        }
    }
    read_messages(&mut ask, body)?;
    if let Some(more) = field(body, "additionalModelRequestFields") {
        ask.thinking_tokens = anthropic::read_thinking(more, ask.tokens_max)?;
    }
    ask.format = read_format(body)?;
    Ok(ask)
}

fn extra(value: &Value, allowed: &[&str], place: &str) -> Result<(), Refusal> {
    if !value.is_object() {
        return Err(Refusal::bad(format!(
            "Malformed input request: {place}: expected an object, please reformat your input and try again."
        )));
    }
    match read::unknown(value, allowed) {
        Some(name) => Err(Refusal::bad(format!(
            "Malformed input request: {place}: extraneous key [{name}] is not permitted, please reformat your input and try again."
        ))),
        None => Ok(()),
    }
}

/// The one member of a union.
fn union<'a>(value: &'a Value, place: &str) -> Result<(&'a str, &'a Value), Refusal> {
    let fields = value.as_object().filter(|fields| fields.len() == 1);
    let one = fields.and_then(|fields| fields.iter().next());
    one.map(|(name, value)| (name.as_str(), value)).ok_or_else(|| {
        Refusal::bad(format!("The value at {place} is a union: exactly one member must be set."))
    })
}

fn no_member(kind: &str, place: &str) -> Refusal {
    Refusal::bad(format!(
        "Malformed input request: {place}: extraneous key [{kind}] is not permitted, please reformat your input and try again."
    ))
}

fn missing(place: &str) -> Refusal {
    Refusal::bad(format!(
        "1 validation error detected: Value null at '{place}' failed to satisfy constraint: Member must not be null"
    ))
}

fn filled<'a>(value: &'a Value, place: &str) -> Result<&'a str, Refusal> {
    value.as_str().filter(|text| !text.trim().is_empty()).ok_or_else(|| {
        Refusal::bad(format!("The text field in the ContentBlock object at {place} is blank. Add text to the text field, and try again."))
    })
}

fn mark(ask: &mut Ask, value: &Value) -> Result<(), Refusal> {
    if value["type"] != "default" {
        return Err(missing("cachePoint.type"));
    }
    ask.mark_cache()
}

fn read_tools(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    let Some(config) = field(body, "toolConfig") else { return Ok(()) };
    extra(config, &["tools", "toolChoice"], "#/toolConfig")?;
    if list(config, "tools").is_empty() {
        return Err(Refusal::bad(
            "1 validation error detected: Value at 'toolConfig.tools' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ));
    }
    for (index, tool) in list(config, "tools").iter().enumerate() {
        let place = format!("toolConfig.tools.{index}");
        match union(tool, &place)? {
            ("toolSpec", spec) => {
                let place = format!("{place}.toolSpec");
                extra(spec, &["name", "description", "inputSchema", "strict"], &place)?;
                if field(spec, "description").is_some_and(|description| description == "") {
                    return Err(Refusal::bad(format!(
                        "Value at '{place}.description' failed to satisfy constraint: Member must have length greater than or equal to 1"
                    )));
                }
                let name = text(spec, "name").ok_or_else(|| missing(&format!("{place}.name")))?;
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                    return Err(Refusal::bad(format!(
                        "Value '{name}' at '{place}.name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
                    )));
                }
                let schema = field(&spec["inputSchema"], "json")
                    .ok_or_else(|| missing(&format!("{place}.inputSchema.json")))?;
                if schema["type"] != "object" {
                    return Err(Refusal::bad(format!(
                        "The value at {place}.inputSchema.json.type must be one of the following: object."
                    )));
                }
                ask.tools.push(Tool { name: name.to_owned(), schema: schema.clone() });
            }
            ("cachePoint", point) => mark(ask, point)?,
            ("systemTool", _) => {}
            (kind, _) => return Err(no_member(kind, &place)),
        }
    }
    let Some(choice) = field(config, "toolChoice") else { return Ok(()) };
    ask.tool_choice = match union(choice, "toolConfig.toolChoice")? {
        ("auto", _) => ToolChoice::Auto,
        ("any", _) => ToolChoice::Any,
        ("tool", tool) => {
            let name = text(tool, "name").ok_or_else(|| missing("toolConfig.toolChoice.tool.name"))?;
            if !ask.tools.iter().any(|tool| tool.name == name) {
                return Err(Refusal::bad(format!(
                    "The tool {name} of toolConfig.toolChoice is not among toolConfig.tools."
                )));
            }
            ToolChoice::Named(name.to_owned())
        }
        (kind, _) => return Err(no_member(kind, "toolConfig.toolChoice")),
    };
    Ok(())
}

fn read_messages(ask: &mut Ask, body: &Value) -> Result<(), Refusal> {
    let messages = list(body, "messages");
    if messages.is_empty() {
        return Err(missing("messages"));
    }
    for (index, message) in messages.iter().enumerate() {
        extra(message, &["role", "content"], &format!("#/messages/{index}"))?;
        let assistant = match text(message, "role") {
            Some("user") => false,
            Some("assistant") => true,
            other => {
                return Err(Refusal::bad(format!(
                    "Value '{}' at 'messages.{index}.role' failed to satisfy constraint: Member must satisfy enum value set: [user, assistant]",
                    other.unwrap_or("")
                )));
            }
        };
        if index == 0 && assistant {
            return Err(Refusal::bad(
                "A conversation must start with a user message. Try again with a conversation that starts with a user message.",
            ));
        }
        if ask.turns.last().is_some_and(|turn| turn.assistant == assistant) {
            return Err(Refusal::bad(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.",
            ));
        }
        let blocks = list(message, "content");
        if blocks.is_empty() {
            return Err(Refusal::bad(format!(
                "The content field in the Message object at messages.{index} is empty. Add a ContentBlock object to the content field and try again."
            )));
        }
        ask.push(assistant, Vec::new());
        for (at, block) in blocks.iter().enumerate() {
            let place = format!("messages.{index}.content.{at}");
            match union(block, &place)? {
                ("cachePoint", point) => mark(ask, point)?,
                ("guardContent" | "searchResult" | "citationsContent", _) => {}
                (kind, value) => {
                    let block = read_block(kind, value, assistant, &place)?;
                    ask.push(assistant, vec![block]);
                }
            }
        }
    }
    check_calls(ask)
}

fn read_block(kind: &str, value: &Value, assistant: bool, place: &str) -> Result<Block, Refusal> {
    let need = |name: &str| text(value, name).ok_or_else(|| missing(&format!("{place}.{kind}.{name}")));
    let only = |fields: &[&str]| extra(value, fields, &format!("{place}.{kind}"));
    Ok(match (kind, assistant) {
        ("text", _) => Block::Text(filled(value, place)?.to_owned()),
        ("image", false) => {
            only(&["format", "source"])?;
            Block::Media(format!("image/{}", read_file(value, &["png", "jpeg", "gif", "webp"], place)?))
        }
        ("document", false) => {
            only(&["format", "name", "source", "context", "citations"])?;
            need("name")?;
            let formats = ["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"];
            Block::Media(format!("application/{}", read_file(value, &formats, place)?))
        }
        ("toolUse", true) => {
            only(&["toolUseId", "name", "input", "type"])?;
            let input = field(value, "input").filter(|input| input.is_object());
            let input = input.ok_or_else(|| Refusal::bad(format!("The format of the value at {place}.toolUse.input is invalid. Provide a json object for the field and try again.")))?;
            Block::Call { id: call_id(value, place)?, name: need("name")?.to_owned(), input: input.clone() }
        }
        ("toolResult", false) => {
            only(&["toolUseId", "content", "status", "type"])?;
            if field(value, "status").is_some_and(|status| status != "success" && status != "error") {
                return Err(Refusal::bad(format!(
                    "Value at '{place}.toolResult.status' failed to satisfy constraint: Member must satisfy enum value set: [success, error]"
                )));
            }
            Block::Result { id: call_id(value, place)?, text: result_text(value, place)? }
        }
        ("reasoningContent", true) => {
            let (kind, thought) = union(value, place)?;
            if kind == "redactedContent" {
                return Ok(Block::Thinking(thought.as_str().unwrap_or("").to_owned()));
            }
            let said = text(thought, "text")
                .ok_or_else(|| missing(&format!("{place}.reasoningContent.reasoningText.text")))?;
            if text(thought, "signature") != Some(&anthropic::signature(said)) {
                return Err(Refusal::bad(format!("{place}: Invalid `signature` in `thinking` block")));
            }
            Block::Thinking(said.to_owned())
        }
        _ => return Err(no_member(kind, place)),
    })
}

fn call_id(value: &Value, place: &str) -> Result<String, Refusal> {
    let id = text(value, "toolUseId").ok_or_else(|| missing(&format!("{place}.toolUseId")))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if id.is_empty() || id.len() > 64 || !id.chars().all(fits) {
        return Err(Refusal::bad(format!(
            "Value '{id}' at '{place}.toolUseId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.:-]+"
        )));
    }
    Ok(id.to_owned())
}

fn read_file<'a>(value: &'a Value, formats: &[&str], place: &str) -> Result<&'a str, Refusal> {
    let format = text(value, "format").ok_or_else(|| missing(&format!("{place}.format")))?;
    if !formats.contains(&format) {
        return Err(Refusal::bad(format!(
            "Value '{format}' at '{place}.format' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
            formats.join(", ")
        )));
    }
    match union(&value["source"], &format!("{place}.source"))? {
        ("bytes", bytes) => {
            read::decode(bytes.as_str().unwrap_or(""))
                .map_err(|_| Refusal::bad(format!("{place}.source.bytes: invalid base64 data")))?;
        }
        ("s3Location" | "text" | "content", _) => {}
        (kind, _) => return Err(no_member(kind, place)),
    }
    Ok(format)
}

fn result_text(value: &Value, place: &str) -> Result<String, Refusal> {
    let mut said = Vec::new();
    let parts = value["content"].as_array().ok_or_else(|| missing(&format!("{place}.toolResult.content")))?;
    for (at, part) in parts.iter().enumerate() {
        let place = format!("{place}.toolResult.content.{at}");
        match union(part, &place)? {
            ("text", text) => said.push(filled(text, &place)?.to_owned()),
            ("json", json) => said.push(json.to_string()),
            ("image", image) => {
                said.push(format!("image/{}", read_file(image, &["png", "jpeg", "gif", "webp"], &place)?))
            }
            ("document" | "video" | "searchResult", _) => {}
            (kind, _) => return Err(no_member(kind, &place)),
        }
    }
    Ok(said.join(" "))
}

fn check_calls(ask: &Ask) -> Result<(), Refusal> {
    let uses_tools =
        ask.turns.iter().any(|turn| turn.calls().next().is_some() || turn.results().next().is_some());
    if uses_tools && ask.tools.is_empty() {
        return Err(Refusal::bad(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        ));
    }
    for (index, turn) in ask.turns.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| ask.turns.get(before));
        let calls: Vec<&str> = before.map_or_else(Vec::new, |before| before.calls().collect());
        let results: Vec<&str> = turn.results().collect();
        if results.len() > calls.len() {
            return Err(Refusal::bad(format!(
                "The number of toolResult blocks at messages.{index}.content exceeds the number of toolUse blocks of previous turn."
            )));
        }
        let missing: Vec<&str> = calls.iter().copied().filter(|id| !results.contains(id)).collect();
        if !missing.is_empty() {
            return Err(Refusal::bad(format!(
                "Expected toolResult blocks at messages.{index}.content for the following Ids: {}",
                missing.join(", ")
            )));
        }
    }
    Ok(())
}

fn read_format(body: &Value) -> Result<Format, Refusal> {
    let Some(config) = field(body, "outputConfig") else { return Ok(Format::Text) };
    extra(config, &["textFormat", "effort"], "#/outputConfig")?;
    let Some(format) = field(config, "textFormat") else { return Ok(Format::Text) };
    extra(format, &["type", "structure"], "#/outputConfig/textFormat")?;
    if text(format, "type") != Some("json_schema") {
        return Err(missing("outputConfig.textFormat.type"));
    }
    let (kind, structure) = union(&format["structure"], "outputConfig.textFormat.structure")?;
    if kind != "jsonSchema" {
        return Err(no_member(kind, "outputConfig.textFormat.structure"));
    }
    extra(structure, &["schema", "name", "description"], "#/outputConfig/textFormat/structure/jsonSchema")?;
    // The schema is a text with JSON in it.
    let schema = text(structure, "schema")
        .ok_or_else(|| missing("outputConfig.textFormat.structure.jsonSchema.schema"))?;
    let schema = serde_json::from_str(schema)
        .map_err(|error| Refusal::bad(format!("outputConfig: the schema is no JSON: {error}")))?;
    Ok(Format::Schema(schema))
}
