//! A neutral conversation made into a Messages request. The model may be one of several generations: see [`Model`].

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Number, Value};

use super::{
    media,
    model::Model,
    thinking::{Plan, Thinking},
    wire::{Block as Wire, CacheControl, tool_id},
};
use crate::provider::{
    closed_schema::closed,
    conversation::{Block, Content, Conversation, Format, OUTPUT_LIMIT_DEFAULT, Role, Target, ToolChoice},
    reply::{Outgoing, Unsupported},
};

/// There is no JSON mode without a schema (a schema must close its objects, so none stands for any object). OpenAI's own
/// JSON mode makes the client ask for JSON in its prompt; this says so once more, and the field counts as dropped.
const JSON_MODE: &str =
    "Answer with one valid JSON object and nothing else: no prose around it, no code fence.";

#[derive(Debug, Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Wire<'a>>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Wire<'a>>,
}

#[derive(Debug, Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Cow<'a, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl<'a>>,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

#[derive(Debug, Serialize)]
struct OutputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<JsonFormat>,
}

#[derive(Debug, Serialize)]
struct JsonFormat {
    r#type: &'static str,
    schema: Value,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

pub(crate) fn encode(conversation: &Conversation, target: &Target<'_>) -> Result<Outgoing, Unsupported> {
    let mut dropped = Vec::new();
    for extra in &conversation.rest {
        if !extra.harmless {
            return Err(refused(&extra.name, "cannot be carried over to Anthropic's API; leave it out"));
        }
        dropped.push(extra.name.clone());
    }
    if conversation.stop.iter().any(|stop| stop.trim().is_empty()) {
        return Err(refused("stop", "holds only white space, which Anthropic's API refuses; leave it out"));
    }
    let model = Model::named(target.model);
    let max_tokens = conversation.limit(target).unwrap_or(OUTPUT_LIMIT_DEFAULT);
    let plan = Plan::of(conversation, model, max_tokens)?;
    dropped.extend(plan.dropped.map(str::to_owned));
    let sampling = Sampling::of(conversation, model, plan.thinks(), &mut dropped);
    let mut system: Vec<Wire<'_>> = Vec::new();
    for block in &conversation.system {
        system.extend(wire(block, "system", &mut dropped)?);
    }
    let format = match &conversation.format {
        Format::Text => None,
        Format::Json => {
            system.push(Wire::text(JSON_MODE));
            dropped.push("response_format".into());
            None
        }
        Format::Schema { schema, .. } => {
            let (schema, told) = closed(schema);
            dropped.extend(told.into_iter().map(str::to_owned));
            Some(JsonFormat { r#type: "json_schema", schema })
        }
    };
    let mut tools: Vec<Tool<'_>> = conversation.tools.iter().map(|given| tool(given, &mut dropped)).collect();
    let mut choice = tool_choice(conversation);
    if let Some(used) = conversation.used_tools().filter(|_| tools.is_empty()) {
        // "Requests which include `tool_use` or `tool_result` blocks must define tools": agents that sum up what they did
        // send none.
        tools.extend(used.into_iter().map(undefined));
        choice = Some(Choice { r#type: "none", name: None, disable_parallel_tool_use: false });
    }
    let effort = plan.effort;
    let body = Body {
        model: target.model,
        max_tokens,
        system,
        messages: messages(conversation, &mut dropped)?,
        tools,
        tool_choice: choice,
        stop_sequences: &conversation.stop,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        thinking: plan.thinking,
        output_config: (effort.is_some() || format.is_some()).then_some(OutputConfig { effort, format }),
        metadata: conversation.user.as_deref().map(|user_id| Metadata { user_id }),
        stream: conversation.stream,
    };
    let body = serde_json::to_vec(&body).map_err(|error| refused("messages", &error.to_string()))?;
    dropped.sort();
    dropped.dedup();
    Ok(Outgoing { path: "/messages".into(), body, dropped })
}

pub(super) fn refused(param: &str, why: &str) -> Unsupported {
    Unsupported { param: param.into(), why: why.into() }
}

#[derive(Debug, Default)]
struct Sampling<'a> {
    temperature: Option<Number>,
    top_p: Option<&'a Number>,
    top_k: Option<u64>,
}

impl<'a> Sampling<'a> {
    /// No client can rely on chance: what the model does not take is dropped. The range of `temperature` ends at 1 here,
    /// elsewhere at 2: beyond its end it is sent as 1, which is named too.
    fn of(from: &'a Conversation, model: Model, thinks: bool, dropped: &mut Vec<String>) -> Self {
        let mut sampling =
            Self { temperature: from.temperature.clone(), top_p: from.top_p.as_ref(), top_k: from.top_k };
        let value = |number: &Number| number.as_f64().unwrap_or(1.0);
        if sampling.temperature.as_ref().is_some_and(|number| value(number) > 1.0) {
            sampling.temperature = Some(1.into());
            dropped.push("temperature".into());
        }
        // With thinking: a temperature of 1, and a `top_p` of at least 0.95.
        let neutral = sampling.temperature.as_ref().is_none_or(|number| value(number) == 1.0);
        if !model.sampling || (thinks && !neutral) {
            note(&mut sampling.temperature, "temperature", dropped);
        }
        let narrow = sampling.top_p.is_some_and(|number| value(number) < 0.95);
        let both = model.one_sampler && sampling.temperature.is_some();
        if !model.sampling || (thinks && narrow) || both {
            note(&mut sampling.top_p, "top_p", dropped);
        }
        if !model.sampling || thinks {
            note(&mut sampling.top_k, "top_k", dropped);
        }
        sampling
    }
}

fn note<T>(field: &mut Option<T>, name: &str, dropped: &mut Vec<String>) {
    if field.take().is_some() {
        dropped.push(name.into());
    }
}

fn tool<'a>(tool: &'a crate::provider::conversation::Tool, dropped: &mut Vec<String>) -> Tool<'a> {
    let mut schema = Cow::Borrowed(&tool.schema);
    if tool.strict == Some(true) {
        let (closed, told) = closed(&tool.schema);
        dropped.extend(told.into_iter().map(str::to_owned));
        schema = Cow::Owned(closed);
    }
    // OpenAI takes a tool without parameters; here a schema must say that it is an object.
    if schema.get("type").is_none_or(Value::is_null)
        && let Some(object) = schema.to_mut().as_object_mut()
    {
        object.insert("type".into(), "object".into());
    }
    Tool {
        name: &tool.name,
        description: tool.description.as_deref(),
        input_schema: schema,
        // `false` is the default, which older models' servers do not know by name.
        strict: tool.strict.filter(|strict| *strict),
        cache_control: tool.cache.as_ref().map(CacheControl::from),
    }
}

/// A tool that messages used but the request no longer defines. It is not going to be used.
fn undefined(name: &str) -> Tool<'_> {
    let input_schema = Cow::Owned(serde_json::json!({"type": "object"}));
    Tool { name, description: None, input_schema, strict: None, cache_control: None }
}

fn tool_choice(conversation: &Conversation) -> Option<Choice<'_>> {
    if conversation.tools.is_empty() {
        return None;
    }
    let single = conversation.parallel_tools == Some(false);
    let (kind, name) = match &conversation.tool_choice {
        None if single => ("auto", None),
        None => return None,
        Some(ToolChoice::Auto) => ("auto", None),
        Some(ToolChoice::Any) => ("any", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Named(name)) => ("tool", Some(name.as_str())),
    };
    Some(Choice { r#type: kind, name, disable_parallel_tool_use: single && kind != "none" })
}

/// Neighbours of one role become one turn, in which the results of tools come first, as the API wants them.
fn messages<'a>(
    conversation: &'a Conversation,
    dropped: &mut Vec<String>,
) -> Result<Vec<Message<'a>>, Unsupported> {
    let mut messages: Vec<Message<'a>> = Vec::new();
    for (index, turn) in conversation.turns.iter().enumerate() {
        let role = if turn.role == Role::User { "user" } else { "assistant" };
        let at = format!("messages[{index}].content");
        let mut content = Vec::new();
        for block in &turn.blocks {
            content.extend(wire(block, &at, dropped)?);
        }
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.append(&mut content),
            _ if content.is_empty() => {}
            _ => messages.push(Message { role, content }),
        }
    }
    if messages.is_empty() {
        return Err(refused("messages", "hold no text; send at least one message that is not empty"));
    }
    // "Final assistant content cannot end with trailing whitespace."
    if let Some(Message { role: "assistant", content }) = messages.last_mut()
        && let Some(text) = content.last_mut().and_then(|block| block.text.as_mut())
    {
        *text = text.trim_end();
    }
    for message in &mut messages {
        message.content.sort_by_key(|block| block.r#type != "tool_result");
    }
    Ok(messages)
}

/// `None`: nothing that could be sent.
fn wire<'a>(block: &'a Block, at: &str, dropped: &mut Vec<String>) -> Result<Option<Wire<'a>>, Unsupported> {
    let mut wire = match &block.content {
        Content::Text(text) | Content::Refusal(text) => {
            // Text without a letter is refused.
            if text.trim().is_empty() {
                return Ok(None);
            }
            Wire::text(text)
        }
        Content::Image { source, detail } => {
            if detail.as_ref().is_some_and(|detail| detail != "auto") {
                dropped.push(format!("{at}.detail"));
            }
            Wire { r#type: "image", source: Some(media::image(source, at)?), ..Wire::default() }
        }
        Content::Document { source, name } => {
            let source = Some(media::document(source, at)?);
            Wire { r#type: "document", source, title: name.as_deref(), ..Wire::default() }
        }
        Content::ToolUse { id, name, input } => Wire::tool_use(id, name, input),
        Content::ToolResult { id, blocks, is_error } => {
            let mut content = Vec::new();
            for block in blocks {
                content.extend(wire(block, at, dropped)?);
            }
            Wire {
                r#type: "tool_result",
                tool_use_id: Some(tool_id(id)),
                content: (!content.is_empty()).then_some(content),
                is_error: is_error.then_some(true),
                ..Wire::default()
            }
        }
        Content::Thinking { text, signature: Some(signature) } => {
            return Ok(Some(Wire::thinking(text, signature)));
        }
        // Unsigned thoughts are another model's, or lost their signature on the way: the API refuses them.
        Content::Thinking { signature: None, .. } => {
            dropped.push("reasoning_content".into());
            return Ok(None);
        }
        Content::RedactedThinking(data) => return Ok(Some(Wire::redacted(data))),
    };
    wire.cache_control = block.cache.as_ref().map(CacheControl::from);
    Ok(Some(wire))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::conversation::Source;
    use crate::provider::conversation::{Reasoning, Turn};

    fn hello() -> Conversation {
        let blocks = vec![Content::Text("hi".into()).into()];
        Conversation { turns: vec![Turn { role: Role::User, blocks }], ..Conversation::default() }
    }

    fn sent(conversation: &Conversation, model: &str, output_limit: Option<u64>) -> (Value, Vec<String>) {
        let out = encode(conversation, &Target { model, output_limit }).unwrap();
        (serde_json::from_slice(&out.body).unwrap(), out.dropped)
    }

    #[test]
    fn thinking_as_the_model_takes_it() {
        let (old, new) = ("claude-sonnet-4-5", "claude-opus-4-7");
        for (model, effort, limit, thinking, config, dropped) in [
            (old, "low", 9000, json!({"type": "enabled", "budget_tokens": 1024}), json!(null), false),
            (old, "high", 9000, json!({"type": "enabled", "budget_tokens": 6750}), json!(null), true),
            (old, "high", 1200, json!(null), json!(null), true),
            (old, "none", 9000, json!(null), json!(null), false),
            (new, "minimal", 100, json!({"type": "adaptive"}), json!({"effort": "low"}), false),
            (new, "xhigh", 100, json!({"type": "adaptive"}), json!({"effort": "xhigh"}), false),
            ("claude-opus-4-6", "xhigh", 100, json!({"type": "adaptive"}), json!({"effort": "high"}), true),
            (new, "none", 100, json!({"type": "disabled"}), json!(null), false),
        ] {
            let reasoning = Some(Reasoning::Effort(effort.into()));
            let (body, named) = sent(&Conversation { reasoning, ..hello() }, model, Some(limit));
            assert_eq!((&body["thinking"], &body["output_config"]), (&thinking, &config), "{model} {effort}");
            assert_eq!(named, vec!["reasoning_effort"; usize::from(dropped)], "{model} {effort}");
            assert_eq!(body["max_tokens"], limit);
        }
        let odd = Conversation { reasoning: Some(Reasoning::Effort("odd".into())), ..hello() };
        assert!(encode(&odd, &Target { model: old, output_limit: None }).is_err());
        let budget = Conversation { reasoning: Some(Reasoning::Budget(5000)), ..hello() };
        assert_eq!(sent(&budget, old, Some(2000)).0["thinking"]["budget_tokens"], 1999);
        // A tool's answer without the thoughts before it, and a forced tool: no thinking.
        let tool_use = Content::ToolUse { id: "a".into(), name: "f".into(), input: "{}".into() };
        let mut history = Conversation { reasoning: Some(Reasoning::Budget(5000)), ..hello() };
        history.turns.push(Turn { role: Role::Assistant, blocks: vec![tool_use.into()] });
        let (body, named) = sent(&history, old, Some(9000));
        assert_eq!((&body["thinking"], named), (&json!(null), vec!["reasoning_effort".to_owned()]));
    }

    #[test]
    fn sampling() {
        let number = |value: f64| Number::from_f64(value);
        for (model, temperature, top_p, thinks, expected, dropped) in [
            ("claude-3-haiku-20240307", 1.5, 0.5, false, json!([1, 0.5, 5]), "temperature"),
            ("claude-sonnet-4-5", 0.2, 0.5, false, json!([0.2, null, 5]), "top_p"),
            ("claude-opus-4-7", 0.2, 0.5, false, json!([null, null, null]), "temperature top_k top_p"),
            ("claude-3-7-sonnet-20250219", 0.2, 0.96, true, json!([null, 0.96, null]), "temperature top_k"),
        ] {
            let reasoning = thinks.then_some(Reasoning::Budget(2000));
            let (temperature, top_p) = (number(temperature), number(top_p));
            let given = Conversation { temperature, top_p, top_k: Some(5), reasoning, ..hello() };
            let (body, named) = sent(&given, model, None);
            assert_eq!(json!([body["temperature"], body["top_p"], body["top_k"]]), expected, "{model}");
            assert_eq!(named.join(" "), dropped, "{model}");
            assert_eq!(body["max_tokens"], OUTPUT_LIMIT_DEFAULT);
        }
    }

    #[test]
    fn turns_merge_and_results_come_first() {
        let text = |text: &str| Block::from(Content::Text(text.into()));
        let result = |id: &str| {
            Block::from(Content::ToolResult { id: id.into(), blocks: vec![text("")], is_error: false })
        };
        let thought = Content::Thinking { text: "t".into(), signature: None };
        let turn = |role, blocks| Turn { role, blocks };
        let turns = vec![
            turn(Role::User, vec![text("a"), text(" ")]),
            turn(Role::Assistant, vec![thought.into()]),
            turn(Role::User, vec![text("b")]),
            turn(Role::User, vec![result("c:1")]),
        ];
        let (body, named) = sent(&Conversation { turns, ..Conversation::default() }, "m", None);
        assert_eq!(
            body["messages"],
            json!([{"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c_1"},
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
            ]}])
        );
        assert_eq!(named, ["reasoning_content"]);
        let empty = Conversation { turns: vec![turn(Role::User, vec![text("")])], ..Conversation::default() };
        assert!(encode(&empty, &Target { model: "m", output_limit: None }).is_err());
    }

    #[test]
    fn used_tools_are_defined() {
        let used = Content::ToolUse { id: "a".into(), name: "f".into(), input: "{}".into() };
        let result = Content::ToolResult { id: "a".into(), blocks: vec![], is_error: false };
        let mut history = hello();
        history.turns.push(Turn { role: Role::Assistant, blocks: vec![used.into()] });
        history.turns.push(Turn { role: Role::User, blocks: vec![result.into()] });
        let (body, named) = sent(&history, "m", None);
        assert_eq!(body["tools"], json!([{"name": "f", "input_schema": {"type": "object"}}]));
        assert_eq!((&body["tool_choice"], named), (&json!({"type": "none"}), vec![]));
    }

    #[test]
    fn json_mode_files_and_refusals() {
        let (body, named) = sent(&Conversation { format: Format::Json, ..hello() }, "m", None);
        assert_eq!(
            (&body["system"][0]["text"], named),
            (&json!(JSON_MODE), vec!["response_format".to_owned()])
        );
        let file = |media_type: &str, data: &str| Source::Base64 {
            media_type: media_type.into(),
            data: data.into(),
        };
        let with = |content: Content| {
            let mut conversation = hello();
            conversation.turns[0].blocks.push(content.into());
            encode(&conversation, &Target { model: "m", output_limit: None })
        };
        let document = |source| Content::Document { source, name: None };
        let picture = |source| Content::Image { source, detail: None };
        let text = with(document(file("text/csv", "YSxi"))).unwrap();
        assert!(String::from_utf8(text.body).unwrap().contains(r#""media_type":"text/plain","data":"a,b""#));
        for content in [
            document(file("text/csv", "!")),
            document(file("application/zip", "")),
            picture(file("image/tiff", "")),
            picture(Source::Text(String::new())),
        ] {
            assert_eq!(with(content).unwrap_err().param, "messages[0].content");
        }
        let stop = Conversation { stop: vec!["\n".into()], ..hello() };
        assert_eq!(encode(&stop, &Target { model: "m", output_limit: None }).unwrap_err().param, "stop");
    }
}
