//! Names of tools that are longer than most APIs take. Anthropic's takes 128 characters, and agents put the name of a
//! server before that of its tool. They go out shortened, and come back as the client knows them.

use crate::provider::conversation::{Content, Conversation, ToolChoice};

/// OpenAI's and Bedrock's limit.
const CHARS_MAX: usize = 64;
const HASH_CHARS: usize = 8;

/// A name as the provider knows it, and as the client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renamed {
    pub(crate) sent: String,
    pub(crate) client: String,
}

/// Shortens every long name. The same name always comes out the same, so that prompt caches go on to fit.
pub(crate) fn shorten(conversation: &mut Conversation) -> Vec<Renamed> {
    let mut renamed: Vec<Renamed> = Vec::new();
    let mut one = |name: &mut String| {
        if name.chars().count() <= CHARS_MAX {
            return;
        }
        let client = std::mem::replace(name, short(name));
        if !renamed.iter().any(|known| known.sent == *name) {
            renamed.push(Renamed { sent: name.clone(), client });
        }
    };
    conversation.tools.iter_mut().for_each(|tool| one(&mut tool.name));
    if let Some(ToolChoice::Named(name)) = &mut conversation.tool_choice {
        one(name);
    }
    for block in conversation.turns.iter_mut().flat_map(|turn| &mut turn.blocks) {
        if let Content::ToolUse { name, .. } = &mut block.content {
            one(name);
        }
    }
    renamed
}

/// Its beginning, and a hash of the whole (FNV-1a).
fn short(name: &str) -> String {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let begin: String = name.chars().take(CHARS_MAX - HASH_CHARS - 1).collect();
    format!("{begin}_{hash:08x}")
}

/// As the client knows it.
pub(crate) fn original<'a>(renamed: &'a [Renamed], sent: &'a str) -> &'a str {
    renamed.iter().find(|known| known.sent == sent).map_or(sent, |known| &known.client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::conversation::{Role, Tool, Turn};

    #[test]
    fn long_names_go_out_short_and_come_back() {
        let long = |end: &str| format!("mcp__{}{end}", "server_".repeat(10));
        let tool = |name: String| Tool {
            name,
            description: None,
            schema: serde_json::json!({}),
            strict: None,
            cache: None,
        };
        let used = Content::ToolUse { id: "1".into(), name: long("a"), input: "{}".into() };
        let mut conversation = Conversation {
            tools: vec![tool("plain".into()), tool("x".repeat(64)), tool(long("a")), tool(long("b"))],
            tool_choice: Some(ToolChoice::Named(long("b"))),
            turns: vec![Turn { role: Role::Assistant, blocks: vec![used.into()] }],
            ..Conversation::default()
        };
        let renamed = shorten(&mut conversation);
        let names: Vec<&str> = conversation.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert!(names.iter().all(|name| name.len() <= CHARS_MAX), "{names:?}");
        assert_eq!((names[0], names[1].len(), renamed.len()), ("plain", 64, 2));
        assert_ne!(names[2], names[3]);
        assert_eq!(conversation.tool_choice, Some(ToolChoice::Named(names[3].to_owned())));
        let Content::ToolUse { name, .. } = &conversation.turns[0].blocks[0].content else { panic!() };
        assert_eq!(name, names[2]);
        assert_eq!(original(&renamed, names[2]), long("a"));
        assert_eq!((original(&renamed, "plain"), original(&[], names[2])), ("plain", names[2]));
        assert_eq!(shorten(&mut conversation), []);
    }
}
