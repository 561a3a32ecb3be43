//! `messages` of a client, read into system prompts and turns.
//!
//! Prompts anywhere in the list go to the front, as the other dialects have them; results of tools become blocks of a user's turn.

use std::{borrow::Cow, collections::HashMap};

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{
    fields::{Fields, must},
    parts_in::{self, Speaker},
};
use crate::provider::{
    conversation::{Block, Content, Extra, Role, Turn},
    error_body::BadRequest,
};

#[derive(Default)]
pub(crate) struct Said {
    pub(crate) system: Vec<Block>,
    pub(crate) turns: Vec<Turn>,
}

pub(crate) fn decode(fields: &mut Fields, rest: &mut Vec<Extra>) -> Result<Said, BadRequest> {
    let messages = fields.list("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return Err(fields.wrong("messages", "must be a list of at least one message"));
    }
    let mut said = Said::default();
    let mut name = None;
    let mut after_tool = false;
    for (at, message) in messages.into_iter().enumerate() {
        let mut message = Fields::of(message, format!("messages[{at}]"))?;
        let role = message.needed("role")?;
        // Who of several people speaks: no other dialect has it, one header names it for all messages.
        let speaker = message.string("name")?.filter(|_| role != "tool");
        name = name.or(speaker);
        match role.as_str() {
            "system" | "developer" => said.system.extend(content(&mut message, Speaker::System, rest)?),
            "user" => {
                let blocks = content(&mut message, Speaker::User, rest)?;
                said.turns.push(Turn { role: Role::User, blocks });
            }
            "assistant" => {
                let blocks = assistant(&mut message, rest)?;
                said.turns.push(Turn { role: Role::Assistant, blocks });
            }
            "tool" => {
                let result = tool(&mut message, rest)?;
                match said.turns.last_mut().filter(|_| after_tool) {
                    Some(turn) => turn.blocks.push(result),
                    None => said.turns.push(Turn { role: Role::User, blocks: vec![result] }),
                }
            }
            // Deprecated, and without an id that would tell the call it belongs to.
            "function" => {
                message.take("content");
                rest.push(harmful(message.place().to_owned(), "function".into()));
            }
            _ => {
                return Err(
                    message.wrong("role", "must be `system`, `developer`, `user`, `assistant` or `tool`")
                );
            }
        }
        after_tool = role == "tool";
        rest.extend(message.left().filter_map(|(place, value)| elsewhere(place, value)));
    }
    if said.turns.is_empty() {
        // OpenAI answers prompts alone; the other dialects need someone who speaks.
        let blocks = std::mem::take(&mut said.system);
        said.turns.push(Turn { role: Role::User, blocks });
    }
    rest.extend(name.map(|name| Extra {
        name: "messages[].name".to_owned(),
        value: name.into(),
        harmless: true,
    }));
    Ok(said)
}

pub(crate) fn harmful(name: String, value: Value) -> Extra {
    Extra { name, value, harmless: false }
}

/// Fields of other servers' answers that clients send back as they came.
const ECHOES: [&str; 5] = ["extra_content", "id", "images", "provider_specific_fields", "reasoning_details"];

/// `None`: it says nothing.
fn elsewhere(name: String, value: Value) -> Option<Extra> {
    let harmless = name.rsplit('.').next().is_some_and(|field| ECHOES.contains(&field));
    let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
    (!empty).then_some(Extra { name, value, harmless })
}

/// What stands under `content`, which must be there. A `cache_control` beside it marks its last block, as LiteLLM has it.
fn content(message: &mut Fields, speaker: Speaker, rest: &mut Vec<Extra>) -> Result<Vec<Block>, BadRequest> {
    let place = message.at("content");
    let Some(value) = message.take("content") else {
        return Err(must(place, "is missing: a string or a list of parts"));
    };
    let mut blocks = parts_in::decode(value, &place, speaker, rest)?;
    mark_last(message, &mut blocks)?;
    Ok(blocks)
}

fn mark_last(message: &mut Fields, blocks: &mut [Block]) -> Result<(), BadRequest> {
    let cache = message.cache()?;
    if let Some(last) = blocks.last_mut().filter(|_| cache.is_some()) {
        last.cache = cache;
    }
    Ok(())
}

fn tool(message: &mut Fields, rest: &mut Vec<Extra>) -> Result<Block, BadRequest> {
    let id = message.needed("tool_call_id")?;
    let cache = message.cache()?;
    // Some clients send null for a tool that returns nothing.
    let blocks = if message.has("content") { content(message, Speaker::Tool, rest)? } else { Vec::new() };
    Ok(Block { content: Content::ToolResult { id, blocks, is_error: false }, cache })
}

/// In the order in which a model thinks, speaks and acts. Of an answer that was empty, nothing.
fn assistant(message: &mut Fields, rest: &mut Vec<Extra>) -> Result<Vec<Block>, BadRequest> {
    let mut blocks = thoughts(message)?;
    if let Some(value) = message.take("content") {
        let place = message.at("content");
        blocks.extend(parts_in::decode(value, &place, Speaker::Assistant, rest)?);
    }
    if let Some(refusal) = message.string("refusal")?.filter(|refusal| !refusal.is_empty()) {
        blocks.push(Content::Refusal(refusal).into());
    }
    let calls = message.list("tool_calls")?.unwrap_or_default();
    for (at, value) in calls.into_iter().enumerate() {
        let call = Fields::of(value, format!("{}[{at}]", message.at("tool_calls")))?;
        blocks.extend(tool_call(call, rest)?.map(Block::from));
    }
    mark_last(message, &mut blocks)?;
    if blocks.len() > 1 {
        // Clients send "" beside tool calls.
        blocks.retain(|block| !matches!(&block.content, Content::Text(text) if text.is_empty()));
    }
    // Of answers that clients send back as they came.
    message.take("annotations");
    Ok(blocks)
}

/// LiteLLM's `thinking_blocks` hold the signatures; `reasoning_content` repeats their text.
fn thoughts(message: &mut Fields) -> Result<Vec<Block>, BadRequest> {
    let plain = message.string("reasoning_content")?;
    let plain = message.string("reasoning")?.or(plain).filter(|text| !text.is_empty());
    let signed = message.list("thinking_blocks")?.unwrap_or_default();
    if signed.is_empty() {
        let thought = plain.map(|text| Content::Thinking { text, signature: None });
        return Ok(thought.map(Block::from).into_iter().collect());
    }
    let place = message.at("thinking_blocks");
    let blocks = signed.into_iter().enumerate().map(|(at, value)| {
        let mut block = Fields::of(value, format!("{place}[{at}]"))?;
        let content = match block.needed("type")?.as_str() {
            "thinking" => Content::Thinking {
                text: block.string("thinking")?.unwrap_or_default(),
                signature: block.string("signature")?.filter(|signature| !signature.is_empty()),
            },
            "redacted_thinking" => Content::RedactedThinking(block.needed("data")?),
            _ => return Err(block.wrong("type", "must be `thinking` or `redacted_thinking`")),
        };
        Ok(Block { content, cache: block.cache()? })
    });
    blocks.collect()
}

fn tool_call(mut call: Fields, rest: &mut Vec<Extra>) -> Result<Option<Content>, BadRequest> {
    let kind = call.string("type")?;
    if kind.is_some_and(|kind| kind != "function") {
        rest.push(harmful(call.place().to_owned(), "tool call".into()));
        return Ok(None);
    }
    let id = call.needed("id")?;
    let Some(mut function) = call.object("function")? else {
        return Err(call.wrong("function", "is missing: an object with `name` and `arguments`"));
    };
    let name = function.needed("name")?;
    let input = match function.take("arguments") {
        None => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        // As the model wrote it, broken or not: a conversation must be able to go on after that.
        Some(Value::String(text)) => text,
        // Ollama's clients send the object itself.
        Some(Value::Object(input)) => Value::Object(input).to_string(),
        Some(_) => return Err(function.wrong("arguments", "must be the text of a JSON object")),
    };
    // Clients that gather the pieces of a stream keep the index.
    call.take("index");
    rest.extend(call.left().chain(function.left()).filter_map(|(place, value)| elsewhere(place, value)));
    Ok(Some(Content::ToolUse { id, name, input }))
}

pub(crate) fn is_object(text: &str) -> bool {
    serde_json::from_str::<HashMap<Cow<'_, str>, IgnoredAny>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: Value) -> Result<(Said, Vec<Extra>), BadRequest> {
        let mut rest = Vec::new();
        let mut fields = Fields::of(json!({ "messages": messages }), "")?;
        Ok((decode(&mut fields, &mut rest)?, rest))
    }

    #[test]
    fn prompts_go_to_the_front_in_order() {
        let (said, rest) = read(json!([
            {"role": "system", "content": "a"},
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "developer", "content": [{"type": "text", "text": "b"}], "cache_control": {"type": "ephemeral"}},
        ]))
        .unwrap();
        let texts: Vec<&Content> = said.system.iter().map(|block| &block.content).collect();
        assert_eq!(texts, [&Content::Text("a".to_owned()), &Content::Text("b".to_owned())]);
        assert!(said.system[1].cache.is_some() && said.turns.len() == 1);
        assert_eq!((rest[0].name.as_str(), rest[0].harmless), ("messages[].name", true));
    }

    #[test]
    fn prompts_alone_are_said_by_the_user() {
        let (said, _) = read(json!([{"role": "system", "content": "Write a poem."}])).unwrap();
        assert_eq!((said.system.len(), said.turns.len(), said.turns[0].role), (0, 1, Role::User));
    }

    #[test]
    fn results_in_a_row_are_one_turn() {
        let tool = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "ok", "name": "f"});
        let user = json!({"role": "user", "content": "go on"});
        let (said, rest) = read(json!([user, tool("1"), tool("2"), user, tool("3")])).unwrap();
        let lengths: Vec<usize> = said.turns.iter().map(|turn| turn.blocks.len()).collect();
        assert_eq!((lengths, rest), (vec![1, 2, 1, 1], vec![]));
    }

    #[test]
    fn assistants() {
        let call =
            json!({"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": ""}});
        let (said, rest) = read(json!([
            {"role": "assistant", "content": "", "tool_calls": [call], "refusal": null, "audio": null, "annotations": []},
            {"role": "assistant", "content": null, "refusal": "no"},
            {"role": "assistant", "content": "4", "reasoning_content": "2+2"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": null, "tool_calls": []},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{\"a\":"}}]},
            {"role": "tool", "tool_call_id": "c", "content": null},
        ]))
        .unwrap();
        assert_eq!(rest, []);
        let blocks: Vec<Vec<Content>> = said
            .turns
            .into_iter()
            .map(|turn| turn.blocks.into_iter().map(|block| block.content).collect())
            .collect();
        let owned = str::to_owned;
        assert_eq!(
            blocks,
            [
                vec![Content::ToolUse { id: owned("c"), name: owned("f"), input: owned("{}") }],
                vec![Content::Refusal(owned("no"))],
                vec![Content::Thinking { text: owned("2+2"), signature: None }, Content::Text(owned("4"))],
                vec![Content::Text(String::new())],
                vec![],
                vec![Content::ToolUse { id: owned("c"), name: owned("f"), input: owned("{\"a\":") }],
                vec![Content::ToolResult { id: owned("c"), blocks: vec![], is_error: false }],
            ]
        );
    }

    #[test]
    fn what_servers_put_into_answers_may_come_back() {
        let call =
            json!({"id": "c", "type": "function", "extra_content": {"x": 1}, "function": {"name": "f"}});
        let echo =
            json!({"role": "assistant", "reasoning_details": [{}], "images": [], "tool_calls": [call]});
        let (_, rest) = read(json!([echo])).unwrap();
        let names: Vec<_> = rest.iter().map(|extra| (extra.name.as_str(), extra.harmless)).collect();
        let place = "messages[0].tool_calls[0].extra_content";
        assert_eq!(names, [(place, true), ("messages[0].reasoning_details", true)]);
    }

    #[test]
    fn what_other_dialects_do_not_have_is_kept_as_harmful() {
        for (message, place) in [
            (json!({"role": "function", "name": "f", "content": "x"}), "messages[0]"),
            (
                json!({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
                "messages[0].function_call",
            ),
            (json!({"role": "assistant", "audio": {"id": "a"}}), "messages[0].audio"),
            (json!({"role": "user", "content": "x", "mood": "good"}), "messages[0].mood"),
            (
                json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]}),
                "messages[0].tool_calls[0]",
            ),
        ] {
            let (_, rest) = read(json!([message])).unwrap();
            assert_eq!((rest[0].name.as_str(), rest[0].harmless), (place, false));
        }
    }

    #[test]
    fn bad_messages_are_named() {
        let call = |arguments: Value| json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]});
        let arguments = "messages[0].tool_calls[0].function.arguments";
        for (message, param) in [
            (json!("hi"), "messages[0]"),
            (json!({"content": "x"}), "messages[0].role"),
            (json!({"role": "boss", "content": "x"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": 7}), "messages[0].content"),
            (json!({"role": "tool", "content": "x"}), "messages[0].tool_call_id"),
            (call(json!([1])), arguments),
            (call(json!(7)), arguments),
            (json!({"role": "assistant", "tool_calls": [{"id": "c"}]}), "messages[0].tool_calls[0].function"),
            (json!({"role": "assistant", "tool_calls": [{"function": {}}]}), "messages[0].tool_calls[0].id"),
            (
                json!({"role": "assistant", "thinking_blocks": [{"type": "x"}]}),
                "messages[0].thinking_blocks[0].type",
            ),
        ] {
            let error = read(json!([message])).map(|_| ()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{message}");
        }
    }
}
