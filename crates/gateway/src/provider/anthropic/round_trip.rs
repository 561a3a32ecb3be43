//! Requests that are written and read again: property tests only.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};
use serde_json::json;

use super::request::{decode, encode};
use crate::provider::conversation::{
    Block, Cache, Content, Conversation, Format, Reasoning, Role, Source, Target, Tool, ToolChoice, Turn,
};

fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\é\n]{0,8}x"
}

fn id() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,12}"
}

fn cached(content: impl Strategy<Value = Content>) -> impl Strategy<Value = Block> {
    let ttl = option::of(select(vec!["5m".to_owned(), "1h".to_owned()]));
    (content, option::of(ttl.prop_map(|ttl| Cache { ttl })))
        .prop_map(|(content, cache)| Block { content, cache })
}

fn source(media_type: &'static str) -> impl Strategy<Value = Source> {
    prop_oneof![
        text().prop_map(Source::Url),
        "[a-zA-Z0-9]{4}".prop_map(move |data| Source::Base64 { media_type: media_type.into(), data }),
    ]
}

fn shown() -> impl Strategy<Value = Content> {
    let document = prop_oneof![source("application/pdf"), text().prop_map(Source::Text)];
    prop_oneof![
        text().prop_map(Content::Text),
        source("image/png").prop_map(|source| Content::Image { source, detail: None }),
        (document, option::of(text())).prop_map(|(source, name)| Content::Document { source, name }),
    ]
}

fn result() -> impl Strategy<Value = Block> {
    let result = (id(), vec(cached(shown()), 0..3), any::<bool>());
    cached(result.prop_map(|(id, blocks, is_error)| Content::ToolResult { id, blocks, is_error }))
}

fn said() -> impl Strategy<Value = Block> {
    let input = select(vec!["{}", "{ \"a\" : 1.50 }", "{\"b\":{\"c\":[null]}}"]);
    let thought =
        (text(), text()).prop_map(|(text, signature)| Content::Thinking { text, signature: Some(signature) });
    prop_oneof![
        cached(text().prop_map(Content::Text)),
        cached((id(), text(), input).prop_map(|(id, name, input)| Content::ToolUse {
            id,
            name,
            input: input.into()
        })),
        thought.prop_map(Block::from),
        text().prop_map(|data| Content::RedactedThinking(data).into()),
    ]
}

/// Turns alternate, results come first: what is written so is read the same.
fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let user = (vec(result(), 0..3), vec(cached(shown()), 1..3)).prop_map(|(results, more)| {
        let blocks = results.into_iter().chain(more).collect();
        Turn { role: Role::User, blocks }
    });
    let assistant = vec(said(), 1..4).prop_map(|blocks| Turn { role: Role::Assistant, blocks });
    vec((user, assistant), 1..4).prop_map(|pairs| pairs.into_iter().flat_map(|(a, b)| [a, b]).collect())
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {}}, "additionalProperties": false});
    let tool = (text(), option::of(text()), option::of(Just(true)), option::of(Just(Cache::default())));
    let tool = tool.prop_map(move |(name, description, strict, cache)| Tool {
        name,
        description,
        schema: schema.clone(),
        strict,
        cache,
    });
    // None at all would be made up where turns use some.
    vec(tool, 1..3)
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let choice = select(vec![
        None,
        Some(ToolChoice::Auto),
        Some(ToolChoice::None),
        Some(ToolChoice::Any),
        Some(ToolChoice::Named("f".into())),
    ]);
    let reasoning = select(vec![
        None,
        Some(Reasoning::Off),
        Some(Reasoning::Adaptive),
        Some(Reasoning::Effort("medium".into())),
    ]);
    let format = select(vec![
        Format::Text,
        Format::Schema { name: None, schema: json!({"type": "object"}), strict: None },
    ]);
    let prompt = vec(cached(text().prop_map(Content::Text)), 0..3);
    let rest = (option::of(text()), vec(text(), 0..2), any::<bool>(), any::<Index>(), 1u64..9000);
    (prompt, turns(), tools(), choice, reasoning, format, rest).prop_map(
        |(system, turns, tools, choice, reasoning, format, (user, stop, stream, index, limit))| {
            let tool_choice = choice.filter(|_| !tools.is_empty());
            // Only a choice can say it, and `none` has no word for it.
            let says = tool_choice.as_ref().is_some_and(|choice| *choice != ToolChoice::None);
            let parallel_tools = (says && index.index(2) == 0).then_some(false);
            let forced = matches!(tool_choice, Some(ToolChoice::Any | ToolChoice::Named(_)));
            let reasoning = reasoning.filter(|_| !forced);
            Conversation {
                model: "claude-opus-4-7".into(),
                system,
                turns,
                tools,
                tool_choice,
                parallel_tools,
                output_limit: Some(limit),
                stop,
                format,
                reasoning,
                stream,
                user,
                ..Conversation::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn requests_are_read_as_they_were_written(conversation in conversation()) {
        let out = encode(&conversation, &Target { model: "claude-opus-4-7", output_limit: None }).unwrap();
        prop_assert_eq!(&out.dropped, &Vec::<String>::new());
        prop_assert_eq!(decode(&out.body).unwrap(), conversation);
    }

    /// A request cut off or with a byte changed is an error or another request, never a panic.
    #[test]
    fn damaged_requests_do_not_panic(at in any::<Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut body = include_bytes!("../../../golden/anthropic/request.json").to_vec();
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = byte }
        if let Ok(conversation) = decode(&body) {
            let _ = encode(&conversation, &Target { model: "claude-sonnet-4-5", output_limit: None });
        }
    }
}
