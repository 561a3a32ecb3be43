//! System prompts and turns as OpenAI's `messages`.

use serde::Serialize;

use super::parts_out::{self, Part, Said};
use crate::provider::{
    conversation::{Block, Content, Conversation, Role},
    reply::Unsupported,
};

/// Of a tool call's id: OpenAI takes no more.
pub(crate) const CALL_ID_CHARS_MAX: usize = 40;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    role: &'static str,
    /// Null beside tool calls only.
    content: Option<Said>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// Names what was left out in `dropped`, once each.
pub(crate) fn encode(
    conversation: &Conversation,
    dropped: &mut Vec<String>,
) -> Result<Vec<Message>, Unsupported> {
    let mut messages = Vec::with_capacity(conversation.turns.len() + 1);
    messages.extend(system(&conversation.system));
    for (at, turn) in conversation.turns.iter().enumerate() {
        let place = format!("messages[{at}]");
        match turn.role {
            Role::User => user(&turn.blocks, &place, &mut messages)?,
            Role::Assistant => {
                if let Some(message) = assistant(&turn.blocks, &place, dropped)? {
                    add(message, &mut messages);
                }
            }
        }
    }
    if let Some(last) = conversation.turns.last().filter(|turn| turn.role == Role::Assistant) {
        // OpenAI would answer anew, and the client would put both together.
        let acted = last.blocks.iter().any(|block| matches!(block.content, Content::ToolUse { .. }));
        let why = if acted {
            "calls tools; add their results"
        } else {
            "is the beginning of an answer, which OpenAI's API does not continue; end with a message of the user"
        };
        return Err(Unsupported {
            param: format!("messages[{}]", conversation.turns.len() - 1),
            why: why.to_owned(),
        });
    }
    Ok(messages)
}

/// Calls that one turn after another made are one message, as OpenAI wants their results right behind it.
fn add(mut message: Message, messages: &mut Vec<Message>) {
    let acted = |message: &Message| message.role == "assistant" && !message.tool_calls.is_empty();
    let Some(last) = messages.last_mut().filter(|last| acted(last)) else {
        messages.push(message);
        return;
    };
    last.tool_calls.append(&mut message.tool_calls);
    last.content = match (last.content.take(), message.content) {
        (Some(Said::Text(text)), Some(Said::Text(more))) => Some(Said::Text(format!("{text}\n\n{more}"))),
        (text, more) => text.or(more),
    };
    if let Some(why) = message.refusal {
        last.refusal.get_or_insert_default().push_str(&why);
    }
}

/// One message at the front, its prompts joined: every server's template takes that.
fn system(blocks: &[Block]) -> Option<Message> {
    let texts = blocks.iter().filter_map(|block| match &block.content {
        Content::Text(text) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    });
    let texts: Vec<&str> = texts.collect();
    let content = Some(Said::Text(texts.join("\n\n")));
    (!texts.is_empty()).then(|| Message { role: "system", content, ..Message::default() })
}

/// Results first, as they must follow their calls, also those of a later turn of the user's; then what else the user says.
fn user(blocks: &[Block], place: &str, messages: &mut Vec<Message>) -> Result<(), Unsupported> {
    let mut parts = Vec::new();
    let mut attached = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content[{at}]");
        match &block.content {
            Content::ToolResult { id, blocks, is_error } => {
                let result = tool(id, blocks, *is_error, &place, &mut attached)?;
                let behind = messages.iter().rposition(|message| message.role != "user");
                messages.insert(behind.map_or(0, |at| at + 1), result);
            }
            // Some servers refuse empty parts.
            Content::Text(text) if text.is_empty() => {}
            content => parts.push(parts_out::encode(content, &place)?),
        }
    }
    attached.append(&mut parts);
    let only_results = blocks.iter().all(|block| matches!(block.content, Content::ToolResult { .. }));
    if attached.is_empty() && (only_results && !blocks.is_empty()) {
        return Ok(());
    }
    if attached.is_empty() {
        // Of a turn of empty texts: its place is kept, so that roles go on taking turns.
        attached.push(Part::text(""));
    }
    messages.push(Message { role: "user", content: Some(attached.into()), ..Message::default() });
    Ok(())
}

/// OpenAI's `tool` messages hold text only: images and files of a result go into the user's message that follows, each
/// under a line that says which call they are of. A failure, for which OpenAI has no flag, is told in the text.
fn tool(
    id: &str,
    blocks: &[Block],
    is_error: bool,
    place: &str,
    attached: &mut Vec<Part>,
) -> Result<Message, Unsupported> {
    let mut texts = Vec::new();
    let mut files = 0;
    for (at, block) in blocks.iter().enumerate() {
        match parts_out::encode(&block.content, &format!("{place}.content[{at}]"))? {
            Part::Text { text } => texts.push(text),
            file => {
                if files == 0 {
                    attached.push(Part::text(format!("Result of the tool call {id}:")));
                }
                files += 1;
                attached.push(file);
            }
        }
    }
    if files > 0 {
        texts.push("(See the files in the next message.)".to_owned());
    }
    let mut text = texts.join("\n\n");
    if is_error && !text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error")) {
        text = if text.is_empty() { "Error".to_owned() } else { format!("Error: {text}") };
    }
    let content = Some(Said::Text(text));
    Ok(Message { role: "tool", content, tool_call_id: Some(short(id).to_owned()), ..Message::default() })
}

/// The end of a longer id, which OpenAI would refuse: what makes it unique stands there.
fn short(id: &str) -> &str {
    let letters = id.chars().count();
    let cut = id.char_indices().nth(letters.saturating_sub(CALL_ID_CHARS_MAX));
    cut.map_or(id, |(start, _)| &id[start..])
}

/// `None`: nothing is left of it.
fn assistant(
    blocks: &[Block],
    place: &str,
    dropped: &mut Vec<String>,
) -> Result<Option<Message>, Unsupported> {
    let mut text = String::new();
    let mut text_before = true;
    let mut message = Message { role: "assistant", ..Message::default() };
    for (at, block) in blocks.iter().enumerate() {
        let is_text = matches!(block.content, Content::Text(_));
        match &block.content {
            Content::Text(said) => {
                if !text_before && !text.is_empty() && !said.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str(said);
            }
            Content::ToolUse { id, name, input } => message.tool_calls.push(Call {
                id: short(id).to_owned(),
                r#type: "function",
                function: Function { name: name.clone(), arguments: input.clone() },
            }),
            Content::Refusal(why) => message.refusal.get_or_insert_default().push_str(why),
            // Signed for another provider's eyes; OpenAI takes no thoughts back, not even its own.
            Content::Thinking { .. } | Content::RedactedThinking(_) => {
                note(dropped, "messages[].content[].thinking");
            }
            _ => {
                let param = format!("{place}.content[{at}]");
                return Err(Unsupported {
                    param,
                    why: "cannot stand in an assistant's message; leave it out".to_owned(),
                });
            }
        }
        text_before = is_text;
    }
    let empty = message.tool_calls.is_empty() && message.refusal.is_none();
    message.content = (!text.is_empty()).then_some(Said::Text(text));
    Ok((message.content.is_some() || !empty).then_some(message))
}

pub(crate) fn note(dropped: &mut Vec<String>, name: &str) {
    if !dropped.iter().any(|known| known == name) {
        dropped.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::conversation::{Source, Turn};

    fn text(text: &str) -> Block {
        Content::Text(text.to_owned()).into()
    }

    fn written(turns: &[(Role, Vec<Block>)]) -> Result<(Value, Vec<String>), Unsupported> {
        let turns = turns.iter().map(|(role, blocks)| Turn { role: *role, blocks: blocks.clone() }).collect();
        let conversation = Conversation { turns, ..Conversation::default() };
        let mut dropped = Vec::new();
        let messages = encode(&conversation, &mut dropped)?;
        Ok((serde_json::to_value(messages).unwrap(), dropped))
    }

    #[test]
    fn results_go_before_what_else_is_said() {
        let image = Content::Image { source: Source::Url("https://x/a.png".to_owned()), detail: None };
        let result = |id: &str, blocks, is_error| {
            Block::from(Content::ToolResult { id: id.to_owned(), blocks, is_error })
        };
        let blocks = vec![
            text("and?"),
            result("1", vec![text("a"), image.into(), text("b")], false),
            result("2", vec![text("no such city")], true),
            result("3", vec![], true),
        ];
        let (messages, dropped) = written(&[(Role::User, blocks)]).unwrap();
        assert_eq!(
            messages,
            json!([
                {"role": "tool", "tool_call_id": "1", "content": "a\n\nb\n\n(See the files in the next message.)"},
                {"role": "tool", "tool_call_id": "2", "content": "Error: no such city"},
                {"role": "tool", "tool_call_id": "3", "content": "Error"},
                {"role": "user", "content": [
                    {"type": "text", "text": "Result of the tool call 1:"},
                    {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
                    {"type": "text", "text": "and?"},
                ]},
            ])
        );
        assert!(dropped.is_empty());
    }

    #[test]
    fn assistants() {
        let call = |id: &str| {
            Block::from(Content::ToolUse {
                id: id.to_owned(),
                name: "f".to_owned(),
                input: "{\"a\": 1.0}".to_owned(),
            })
        };
        let thought = Content::Thinking { text: "hm".to_owned(), signature: Some("s".to_owned()) };
        let blocks = vec![thought.clone().into(), text("a"), text("b"), call("1"), text("c")];
        let only_thoughts = vec![thought.into()];
        let user = (Role::User, vec![text("x")]);
        let (messages, dropped) = written(&[
            (Role::Assistant, blocks),
            (Role::Assistant, only_thoughts),
            (Role::Assistant, vec![call("2")]),
            user,
        ])
        .unwrap();
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1.0}"}});
        assert_eq!(
            messages,
            json!([
                {"role": "assistant", "content": "ab\n\nc", "tool_calls": [call("1"), call("2")]},
                {"role": "user", "content": "x"},
            ])
        );
        assert_eq!(dropped, ["messages[].content[].thinking"]);
    }

    #[test]
    fn long_ids_keep_their_end() {
        let id = format!("{}é{}", "x".repeat(50), "y".repeat(39));
        assert_eq!(short(&id), &id[50..]);
        assert_eq!((short("call_1"), short("")), ("call_1", ""));
    }

    #[test]
    fn what_openai_cannot_say_is_refused() {
        let begun =
            written(&[(Role::User, vec![text("x")]), (Role::Assistant, vec![text("{")])]).unwrap_err();
        assert!(begun.param == "messages[1]" && begun.why.contains("does not continue"));
        let document = Content::Document { source: Source::Url("https://x".to_owned()), name: None };
        let result =
            Content::ToolResult { id: "1".to_owned(), blocks: vec![document.into()], is_error: false };
        let refused = written(&[(Role::User, vec![text("x"), result.into()])]).unwrap_err();
        assert_eq!(refused.param, "messages[0].content[1].content[0]");
    }
}
