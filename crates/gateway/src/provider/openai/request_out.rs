//! A [`Conversation`] as a request to OpenAI, Azure OpenAI or a compatible server.
//!
//! Made for clients of other dialects, in whose words refusals and dropped fields are named.

use serde::Serialize;
use serde_json::{Number, Value, json};

use super::{
    effort,
    messages_out::{self, Message, note},
    strict,
};
use crate::provider::{
    conversation::{Block, Content, Conversation, Format, Target, Tool, ToolChoice},
    reply::{Outgoing, Unsupported},
    splice::OutputField,
};

/// More are refused by OpenAI.
const STOPS_MAX: usize = 4;
/// A longer `user` is refused; Claude Code's are.
const USER_CHARS_MAX: usize = 64;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
}

/// `field`: the name of the output limit, and with it whether this is OpenAI itself (or Azure), which refuses what it does
/// not know, or a server that takes more. `stream_usage`: the server knows `stream_options`.
pub(crate) fn encode(
    conversation: &Conversation,
    target: &Target<'_>,
    field: OutputField,
    stream_usage: bool,
) -> Result<Outgoing, Unsupported> {
    let mut dropped = Vec::new();
    for extra in &conversation.rest {
        if !extra.harmless {
            let why = "cannot be carried over to OpenAI's chat completions; leave it out".to_owned();
            return Err(Unsupported { param: extra.name.clone(), why });
        }
        note(&mut dropped, &extra.name);
    }
    let openai = field == OutputField::MaxCompletionTokens;
    if openai && conversation.stop.len() > STOPS_MAX {
        let why =
            format!("names more than {STOPS_MAX} sequences, which is all that OpenAI takes; name fewer");
        return Err(Unsupported { param: "stop_sequences".to_owned(), why });
    }
    let messages = messages_out::encode(conversation, &mut dropped)?;
    if caches(conversation) {
        // OpenAI caches by itself.
        note(&mut dropped, "cache_control");
    }
    let reasoning = conversation.reasoning.as_ref().map(|reasoning| effort::word(reasoning, target.model));
    let reasoning_effort = reasoning.unwrap_or(Ok(None)).unwrap_or_else(|()| {
        note(&mut dropped, "thinking");
        None
    });
    // OpenAI's reasoning models refuse all but the default: sampling is nothing that a client can rely on.
    let fixed = openai && effort::is_reasoning(target.model);
    let mut sampling = |name: &str, number: &'_ Option<Number>| -> bool {
        let kept = number.as_ref().is_some_and(|number| !fixed || number.as_f64() == Some(1.0));
        if number.is_some() && !kept {
            note(&mut dropped, name);
        }
        kept
    };
    let (warm, nucleus) =
        (sampling("temperature", &conversation.temperature), sampling("top_p", &conversation.top_p));
    if openai && conversation.top_k.is_some() {
        note(&mut dropped, "top_k");
    }
    let user = conversation.user.as_deref().filter(|user| !openai || user.chars().count() <= USER_CHARS_MAX);
    if user.is_none() && conversation.user.is_some() {
        note(&mut dropped, "metadata.user_id");
    }
    let limit = conversation.limit(target);
    let tools = !conversation.tools.is_empty();
    let body = Body {
        model: target.model,
        messages,
        tools: conversation.tools.iter().map(|given| tool(given, &mut dropped)).collect(),
        tool_choice: conversation.tool_choice.as_ref().filter(|_| tools).map(choice),
        // Yes is the default; some models know no such field.
        parallel_tool_calls: conversation.parallel_tools.filter(|parallel| tools && !parallel),
        max_completion_tokens: limit.filter(|_| openai),
        max_tokens: limit.filter(|_| !openai),
        temperature: conversation.temperature.as_ref().filter(|_| warm),
        top_p: conversation.top_p.as_ref().filter(|_| nucleus),
        top_k: conversation.top_k.filter(|_| !openai),
        stop: &conversation.stop,
        response_format: format(&conversation.format),
        reasoning_effort,
        user,
        stream: conversation.stream,
        stream_options: (conversation.stream && stream_usage).then(|| json!({"include_usage": true})),
    };
    let body = serde_json::to_vec(&body).map_err(|error| Unsupported {
        param: "messages".to_owned(),
        why: format!("cannot be written as JSON: {error}"),
    })?;
    Ok(Outgoing { path: "/chat/completions".to_owned(), body, dropped })
}

fn caches(conversation: &Conversation) -> bool {
    fn marked(blocks: &[Block]) -> bool {
        blocks.iter().any(|block| {
            block.cache.is_some()
                || matches!(&block.content, Content::ToolResult { blocks, .. } if marked(blocks))
        })
    }
    marked(&conversation.system)
        || conversation.turns.iter().any(|turn| marked(&turn.blocks))
        || conversation.tools.iter().any(|tool| tool.cache.is_some())
}

fn tool(tool: &Tool, dropped: &mut Vec<String>) -> Value {
    let mut schema = tool.schema.clone();
    if let Some(object) = schema.as_object_mut() {
        // OpenAI refuses objects that do not say what is in them; tools of MCP servers without parameters do not.
        if object.get("type").is_none_or(Value::is_null) {
            object.insert("type".to_owned(), "object".into());
        }
        if object["type"] == "object" {
            object.entry("properties").or_insert_with(|| json!({}));
        }
    }
    let mut function = json!({"name": tool.name, "parameters": &schema});
    if let Some(description) = &tool.description {
        function["description"] = description.as_str().into();
    }
    match tool.strict {
        Some(true) if !strict::fits(&schema) => note(dropped, "tools[].strict"),
        Some(strict) => function["strict"] = strict.into(),
        None => {}
    }
    json!({"type": "function", "function": function})
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Any => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn format(format: &Format) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::Json => Some(json!({"type": "json_object"})),
        Format::Schema { name, schema, strict } => {
            // OpenAI wants a name.
            let mut of = json!({"name": name.as_deref().unwrap_or("answer"), "schema": schema});
            // Unsaid, it is off at OpenAI, and on in the dialects that do not say it.
            if let Some(strict) = strict.or(strict::fits(schema).then_some(true)) {
                of["strict"] = strict.into();
            }
            Some(json!({"type": "json_schema", "json_schema": of}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::conversation::{Cache, Extra, Reasoning, Role, Source, Turn};

    fn hello() -> Conversation {
        let blocks = vec![Content::Text("hi".to_owned()).into()];
        Conversation {
            model: "claude".to_owned(),
            turns: vec![Turn { role: Role::User, blocks }],
            ..Conversation::default()
        }
    }

    fn sent(conversation: &Conversation, model: &str, field: OutputField) -> (Value, Vec<String>) {
        let target = Target { model, output_limit: None };
        let out = encode(conversation, &target, field, true).unwrap();
        assert_eq!(out.path, "/chat/completions");
        (serde_json::from_slice(&out.body).unwrap(), out.dropped)
    }

    const OPENAI: OutputField = OutputField::MaxCompletionTokens;

    #[test]
    fn an_agents_conversation() {
        let call = Content::ToolUse {
            id: "toolu_1".to_owned(),
            name: "look".to_owned(),
            input: "{\"q\":1}".to_owned(),
        };
        let image = Content::Image {
            source: Source::Base64 { media_type: "image/png".to_owned(), data: "iVBORw==".to_owned() },
            detail: None,
        };
        let result = Content::ToolResult {
            id: "toolu_1".to_owned(),
            blocks: vec![Content::Text("found".to_owned()).into()],
            is_error: false,
        };
        let marked = Block { content: Content::Text("Be brief.".to_owned()), cache: Some(Cache::default()) };
        let conversation = Conversation {
            system: vec![Content::Text("You help.".to_owned()).into(), marked],
            turns: vec![
                Turn { role: Role::User, blocks: vec![Content::Text("see".to_owned()).into(), image.into()] },
                Turn { role: Role::Assistant, blocks: vec![call.into()] },
                Turn {
                    role: Role::User,
                    blocks: vec![result.into(), Content::Text("so?".to_owned()).into()],
                },
            ],
            tools: vec![Tool {
                name: "look".to_owned(),
                description: Some("Looks.".to_owned()),
                schema: json!({"type": "object"}),
                strict: None,
                cache: None,
            }],
            tool_choice: Some(ToolChoice::Any),
            parallel_tools: Some(false),
            output_limit: Some(300),
            temperature: Number::from_f64(0.5),
            top_k: Some(5),
            stop: vec!["END".to_owned()],
            reasoning: Some(Reasoning::Budget(20_000)),
            stream: true,
            user: Some("u".to_owned()),
            ..hello()
        };
        let (body, dropped) = sent(&conversation, "gpt-5", OPENAI);
        let expected: Value =
            serde_json::from_str(include_str!("../../../golden/openai/from_messages.json")).unwrap();
        assert_eq!(body, expected);
        assert_eq!(dropped, ["cache_control", "temperature", "top_k"]);
    }

    #[test]
    fn servers_that_are_not_openai() {
        let conversation = Conversation {
            output_limit: Some(9),
            top_k: Some(5),
            temperature: Number::from_f64(0.5),
            reasoning: Some(Reasoning::Budget(2_000)),
            ..hello()
        };
        let (body, dropped) = sent(&conversation, "llama-3.3-70b", OutputField::MaxTokens);
        assert_eq!(
            (&body["max_tokens"], &body["top_k"], &body["temperature"]),
            (&json!(9), &json!(5), &json!(0.5))
        );
        assert!(body.get("stream").is_none() && body.get("reasoning_effort").is_none());
        assert_eq!(dropped, ["thinking"]);
    }

    #[test]
    fn the_reserved_limit_goes_before_the_clients() {
        let conversation = Conversation { output_limit: Some(900), stream: true, ..hello() };
        let target = Target { model: "gpt-4o", output_limit: Some(50) };
        let out = encode(&conversation, &target, OPENAI, false).unwrap();
        let body: Value = serde_json::from_slice(&out.body).unwrap();
        assert_eq!((&body["max_completion_tokens"], &body["stream"]), (&json!(50), &json!(true)));
        assert!(body.get("stream_options").is_none());
    }

    #[test]
    fn formats_and_choices() {
        let (body, _) = sent(&Conversation { format: Format::Json, ..hello() }, "gpt-4o", OPENAI);
        assert_eq!(body["response_format"], json!({"type": "json_object"}));
        let schema = Format::Schema { name: None, schema: json!({"type": "object"}), strict: Some(true) };
        let (body, _) = sent(&Conversation { format: schema, ..hello() }, "gpt-4o", OPENAI);
        let expected = json!({"name": "answer", "schema": {"type": "object"}, "strict": true});
        assert_eq!(body["response_format"]["json_schema"], expected);
        let named = choice(&ToolChoice::Named("f".to_owned()));
        assert_eq!(named, json!({"type": "function", "function": {"name": "f"}}));
        // Without tools OpenAI refuses a choice.
        let choosing =
            Conversation { tool_choice: Some(ToolChoice::Auto), parallel_tools: Some(true), ..hello() };
        let (body, _) = sent(&choosing, "gpt-4o", OPENAI);
        assert!(body.get("tool_choice").is_none() && body.get("parallel_tool_calls").is_none());
    }

    #[test]
    fn what_does_harm_is_refused_and_the_rest_named() {
        let extra = |name: &str, harmless| Extra { name: name.to_owned(), value: Value::Null, harmless };
        let rest = vec![extra("service_tier", true), extra("mcp_servers", false)];
        let target = Target { model: "gpt-4o", output_limit: None };
        let refused = encode(&Conversation { rest, ..hello() }, &target, OPENAI, true).unwrap_err();
        assert_eq!(refused.param, "mcp_servers");
        let (_, dropped) =
            sent(&Conversation { rest: vec![extra("service_tier", true)], ..hello() }, "gpt-4o", OPENAI);
        assert_eq!(dropped, ["service_tier"]);
        let long = Conversation { user: Some("u".repeat(65)), ..hello() };
        let (body, dropped) = sent(&long, "gpt-4o", OPENAI);
        assert_eq!((body.get("user"), dropped), (None, vec!["metadata.user_id".to_owned()]));
        let stop = vec!["a".to_owned(); 5];
        let many = Conversation { stop, ..hello() };
        assert_eq!(encode(&many, &target, OPENAI, true).unwrap_err().param, "stop_sequences");
        assert!(encode(&many, &target, OutputField::MaxTokens, true).is_ok());
    }
}
