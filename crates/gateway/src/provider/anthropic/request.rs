//! A client's Messages request, made neutral; [`encode`] goes the other way.

use serde_json::{Value, value::RawValue};

pub(crate) use super::outgoing::encode;
use super::{
    blocks::{self, Place},
    fields::{Fields, wrong},
};
use crate::provider::{
    conversation::{Conversation, Extra, Format, Reasoning, Role, Tool, ToolChoice, Turn},
    error_body::BadRequest,
};

/// Fields that agents send with every request and that no answer's shape hangs on. Where a request is served
/// (`inference_geo`), and what runs beside the model (`container`, `mcp_servers`), is not among them.
const HARMLESS: [&str; 7] = [
    // Of requests written for Bedrock, and features that only this API's servers know.
    "anthropic_beta",
    "anthropic_version",
    // Which of the earlier tool results and thoughts are cleared away first: without it, the model reads all of them.
    "context_management",
    "diagnostics",
    // Which of the provider's capacities serves it, and how fast.
    "service_tier",
    "speed",
    "user_profile_id",
];

/// An empty list or text.
fn says_nothing(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_str().is_some_and(str::is_empty)
}

pub(crate) fn decode(body: &[u8]) -> Result<Conversation, BadRequest> {
    let mut fields = Fields::of_body(body)?;
    let mut conversation = Conversation {
        model: fields.needed_text("model")?,
        output_limit: fields.whole("max_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.whole("top_k")?,
        stop: fields.texts("stop_sequences")?.unwrap_or_default(),
        stream: fields.flag("stream")?.unwrap_or(false),
        ..Conversation::default()
    };
    if conversation.output_limit.is_none() {
        return Err(wrong("max_tokens", "is missing"));
    }
    if let Some(raw) = fields.take("system") {
        conversation.system = blocks::decode("system", raw, Place::System, &mut conversation.rest)?;
    }
    let raw = fields.take("messages");
    messages(fields.needed("messages", raw)?, &mut conversation)?;
    if let Some(raw) = fields.take("tools") {
        for fields in Fields::list_of("tools", raw)? {
            let tool = tool(fields, &mut conversation.rest)?;
            conversation.tools.push(tool);
        }
    }
    if let Some(choice) = fields.nested("tool_choice")? {
        tool_choice(choice, &mut conversation)?;
    }
    output(&mut fields, &mut conversation)?;
    if let Some(mut metadata) = fields.nested("metadata")? {
        conversation.user = metadata.text("user_id")?;
        left_over(metadata, true, &mut conversation)?;
    }
    cache_last(&mut fields, &mut conversation)?;
    for (name, value) in fields.rest()? {
        if says_nothing(&value) {
            continue;
        }
        let harmless = HARMLESS.contains(&name.as_str());
        conversation.rest.push(Extra { name, value, harmless });
    }
    Ok(conversation)
}

fn left_over(fields: Fields<'_>, harmless: bool, into: &mut Conversation) -> Result<(), BadRequest> {
    let extras = fields.rest()?.into_iter().map(|(name, value)| Extra { name, value, harmless });
    into.rest.extend(extras);
    Ok(())
}

fn messages(raw: &RawValue, into: &mut Conversation) -> Result<(), BadRequest> {
    for mut message in Fields::list_of("messages", raw)? {
        let role = message.needed_text("role")?;
        let content = message.take("content");
        let content = message.needed("content", content)?;
        let at = message.place("content");
        match role.as_str() {
            // In the middle of the conversation. Elsewhere such prompts stand before it.
            "system" => {
                let blocks = blocks::decode(&at, content, Place::System, &mut into.rest)?;
                into.system.extend(blocks);
            }
            "user" | "assistant" => {
                let role = if role == "user" { Role::User } else { Role::Assistant };
                let blocks = blocks::decode(&at, content, Place::Message, &mut into.rest)?;
                into.turns.push(Turn { role, blocks });
            }
            _ => return Err(wrong(&message.place("role"), "must be `user`, `assistant` or `system`")),
        }
        left_over(message, false, into)?;
    }
    if into.turns.is_empty() {
        return Err(wrong("messages", "must hold at least one message"));
    }
    Ok(())
}

fn tool(mut fields: Fields<'_>, rest: &mut Vec<Extra>) -> Result<Tool, BadRequest> {
    if let Some(kind) = fields.text("type")?.filter(|kind| kind != "custom") {
        let must = format!(
            "`{kind}` is a tool of Anthropic's own, which the provider that serves this model lacks; leave it out, \
             or ask for a model of an Anthropic backend"
        );
        return Err(wrong(&fields.place("type"), &must));
    }
    let schema = fields.object("input_schema")?;
    let tool = Tool {
        name: fields.needed_text("name")?,
        description: fields.text("description")?,
        schema: fields.needed("input_schema", schema)?,
        strict: fields.flag("strict")?,
        cache: blocks::cache(&mut fields)?,
    };
    for (name, value) in fields.rest()? {
        let harmless = match name.rsplit('.').next() {
            // How its input is streamed; examples are hints; and a tool that is not held back is there from the beginning.
            Some("eager_input_streaming" | "input_examples" | "defer_loading") => true,
            Some("allowed_callers") => value == serde_json::json!(["direct"]),
            _ => false,
        };
        rest.push(Extra { name, value, harmless });
    }
    Ok(tool)
}

fn tool_choice(mut fields: Fields<'_>, into: &mut Conversation) -> Result<(), BadRequest> {
    into.tool_choice = Some(match fields.needed_text("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Any,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(fields.needed_text("name")?),
        _ => return Err(wrong(&fields.place("type"), "must be `auto`, `any`, `tool` or `none`")),
    });
    into.parallel_tools = fields.flag("disable_parallel_tool_use")?.map(|disabled| !disabled);
    left_over(fields, false, into)
}

/// Thinking, effort and the format of the answer.
fn output(fields: &mut Fields<'_>, into: &mut Conversation) -> Result<(), BadRequest> {
    let mut effort = None;
    // `output_format` is the name that it had in its beta.
    let mut format = fields.nested("output_format")?;
    if let Some(mut config) = fields.nested("output_config")? {
        effort = config.text("effort")?;
        format = config.nested("format")?.or(format);
        for (name, value) in config.rest()? {
            // How many tokens the model is to make do with: it is only told.
            let harmless = name == "output_config.task_budget";
            into.rest.push(Extra { name, value, harmless });
        }
    }
    if let Some(mut format) = format {
        if format.needed_text("type")? != "json_schema" {
            return Err(wrong(&format.place("type"), "must be `json_schema`"));
        }
        let schema = format.object("schema")?;
        let schema = format.needed("schema", schema)?;
        into.format = Format::Schema { name: format.text("name")?, schema, strict: None };
        left_over(format, false, into)?;
    }
    let Some(mut thinking) = fields.nested("thinking")? else {
        into.reasoning = effort.map(Reasoning::Effort);
        return Ok(());
    };
    into.reasoning = Some(match thinking.needed_text("type")?.as_str() {
        "disabled" => Reasoning::Off,
        "adaptive" => effort.take().map_or(Reasoning::Adaptive, Reasoning::Effort),
        "enabled" => {
            let budget = thinking.whole("budget_tokens")?;
            Reasoning::Budget(thinking.needed("budget_tokens", budget)?)
        }
        _ => return Err(wrong(&thinking.place("type"), "must be `enabled`, `adaptive` or `disabled`")),
    });
    if let Some(effort) = effort {
        // Beside a budget, or without thinking, it is a hint on how long the answer may be.
        into.rest.push(Extra { name: "output_config.effort".into(), value: effort.into(), harmless: true });
    }
    // `display`: whether a summary of the thoughts is shown.
    left_over(thinking, true, into)
}

/// The request's own `cache_control` stands for one on its last block.
fn cache_last(fields: &mut Fields<'_>, into: &mut Conversation) -> Result<(), BadRequest> {
    if let Some(cache) = blocks::cache(fields)?
        && let Some(last) = into.turns.last_mut().and_then(|turn| turn.blocks.last_mut())
    {
        last.cache.get_or_insert(cache);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::conversation::{Block, Cache, Content, Source, Target};

    fn body(fields: &str) -> String {
        format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#)
    }

    #[test]
    fn a_whole_request_comes_out_as_it_went_in() {
        let golden = include_bytes!("../../../golden/anthropic/request.json");
        let conversation = decode(golden).unwrap();
        assert_eq!(conversation.rest, []);
        assert_eq!(conversation.system[0].cache, Some(Cache { ttl: Some("1h".into()) }));
        let target = Target { model: "claude-sonnet-4-5", output_limit: None };
        let out = encode(&conversation, &target).unwrap();
        assert_eq!((out.path.as_str(), out.dropped.as_slice()), ("/messages", &[][..]));
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(value(&out.body), value(golden));
        assert!(String::from_utf8(out.body.clone()).unwrap().contains(r#""exact": 1.50"#));
        assert_eq!(decode(&out.body).unwrap(), conversation);
    }

    #[test]
    fn thinking_effort_and_choice() {
        for (fields, reasoning, rest) in [
            ("", None, 0),
            (r#","thinking":{"type":"enabled","budget_tokens":2000}"#, Some(Reasoning::Budget(2000)), 0),
            (r#","thinking":{"type":"disabled"}"#, Some(Reasoning::Off), 0),
            (r#","thinking":{"type":"adaptive","display":"omitted"}"#, Some(Reasoning::Adaptive), 1),
            (r#","output_config":{"effort":"low"}"#, Some(Reasoning::Effort("low".into())), 0),
            (
                r#","thinking":{"type":"adaptive"},"output_config":{"effort":"max"}"#,
                Some(Reasoning::Effort("max".into())),
                0,
            ),
            (r#","thinking":{"type":"disabled"},"output_config":{"effort":"low"}"#, Some(Reasoning::Off), 1),
        ] {
            let conversation = decode(body(fields).as_bytes()).unwrap();
            assert_eq!((conversation.reasoning, conversation.rest.len()), (reasoning, rest), "{fields}");
        }
        let choice = r#","tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}"#;
        let conversation = decode(body(choice).as_bytes()).unwrap();
        assert_eq!(conversation.tool_choice, Some(ToolChoice::Named("f".into())));
        assert_eq!(conversation.parallel_tools, Some(false));
        let cached = decode(body(r#","cache_control":{"type":"ephemeral"}"#).as_bytes()).unwrap();
        assert_eq!(cached.turns[0].blocks[0].cache, Some(Cache::default()));
    }

    #[test]
    fn fields_of_this_dialect_alone() {
        for (fields, name, harmless) in [
            (r#","service_tier":"auto""#, "service_tier", true),
            (r#","metadata":{"x":1}"#, "metadata.x", true),
            (r#","container":"c""#, "container", false),
            (r#","inference_geo":"eu""#, "inference_geo", false),
            (r#","of_tomorrow":1"#, "of_tomorrow", false),
            (r#","context_management":{"edits":[]}"#, "context_management", true),
            (
                r#","output_config":{"task_budget":{"type":"tokens","total":9}}"#,
                "output_config.task_budget",
                true,
            ),
            (r#","output_config":{"of_tomorrow":1}"#, "output_config.of_tomorrow", false),
            (r#","mcp_servers":[{"url":"https://x"}]"#, "mcp_servers", false),
            (
                r#","tools":[{"name":"a","input_schema":{},"defer_loading":true}]"#,
                "tools[0].defer_loading",
                true,
            ),
        ] {
            let conversation = decode(body(fields).as_bytes()).unwrap();
            let rest: Vec<_> =
                conversation.rest.iter().map(|extra| (extra.name.as_str(), extra.harmless)).collect();
            assert_eq!(rest, [(name, harmless)]);
            let target = Target { model: "m", output_limit: None };
            match encode(&conversation, &target) {
                Ok(out) => assert!(harmless && out.dropped == [name]),
                Err(error) => assert!(!harmless && error.param == name, "{error}"),
            }
        }
        let nothing =
            r#","container":null,"mcp_servers":[],"tools":[],"stop_sequences":[],"system":"","metadata":{}"#;
        assert_eq!(decode(body(nothing).as_bytes()).unwrap().rest, []);
    }

    #[test]
    fn errors_name_the_place() {
        let block = |block: &str| {
            format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":[{block}]}}]}}"#)
        };
        let at = "messages[0].content[0]";
        for (body, place) in [
            (r#"{"max_tokens":9,"messages":[]}"#.to_owned(), "model".to_owned()),
            (r#"{"model":"m","messages":[]}"#.into(), "max_tokens".into()),
            (r#"{"model":"m","max_tokens":-1,"messages":[]}"#.into(), "max_tokens".into()),
            (r#"{"model":"m","max_tokens":1,"messages":[]}"#.into(), "messages".into()),
            (r#"{"model":"m","max_tokens":1,"messages":[1]}"#.into(), "messages[0]".into()),
            (
                r#"{"model":"m","max_tokens":1,"messages":[{"role":"tool","content":""}]}"#.into(),
                "messages[0].role".into(),
            ),
            (block("7"), at.into()),
            (block("{}"), format!("{at}.type")),
            (block(r#"{"type":"server_tool_use"}"#), format!("{at}.type")),
            (block(r#"{"type":"search_result"}"#), format!("{at}.type")),
            (block(r#"{"type":"text","text":1}"#), format!("{at}.text")),
            (
                block(r#"{"type":"image","source":{"type":"file","file_id":"f"}}"#),
                format!("{at}.source.type"),
            ),
            (block(r#"{"type":"tool_use","id":"a","name":"b","input":[]}"#), format!("{at}.input")),
            (
                block(r#"{"type":"tool_result","tool_use_id":"a","content":[{"type":"tool_use"}]}"#),
                format!("{at}.content[0].type"),
            ),
            (body(r#","system":[{"type":"image"}]"#), "system[0].type".into()),
            (body(r#","tools":[{"type":"web_search_20250305","name":"w"}]"#), "tools[0].type".into()),
            (body(r#","thinking":{"type":"enabled"}"#), "thinking.budget_tokens".into()),
            (body(r#","tool_choice":{"type":"x"}"#), "tool_choice.type".into()),
        ] {
            let error = decode(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(place.as_str()), "{body}: {error}");
            assert!(error.message.contains(&place), "{error}");
        }
        assert!(decode(b"[]").is_err() && decode(b"\xff").is_err() && decode(b"").is_err());
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(decode(deep.as_bytes()).is_err());
    }

    #[test]
    fn documents_of_blocks_become_text() {
        let body = br#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document",
            "source":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}]}"#;
        let expected: Block = Content::Document { source: Source::Text("a\n\nb".into()), name: None }.into();
        assert_eq!(decode(body).unwrap().turns[0].blocks, [expected]);
    }
}
