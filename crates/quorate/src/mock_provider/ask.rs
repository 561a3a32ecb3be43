//! What a request asks and what the answer is, in words of no dialect. Not how either looks on the wire.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use super::error::Refusal;

const CACHE_MARKS_MAX: usize = 4;

/// A conversation that waits for its next turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub model: String,
    pub stream: bool,
    pub system: String,
    pub turns: Vec<Turn>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// At most one tool call.
    pub one_call: bool,
    pub format: Format,
    pub stop: Vec<String>,
    pub tokens_max: Option<u64>,
    /// Tokens to think for, if thinking was asked for.
    pub thinking_tokens: u64,
    pub choices: u64,
    /// The input up to each mark of a cache: a hash of what it says, and its tokens.
    pub cache_marks: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    pub assistant: bool,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    Text(String),
    /// An image or a document, by its media type.
    Media(String),
    Call {
        id: String,
        name: String,
        input: Value,
    },
    Result {
        id: String,
        text: String,
    },
    Thinking(String),
}

#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub name: String,
    pub schema: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum ToolChoice {
    #[default]
    Auto,
    None,
    Any,
    Named(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
    Schema(Value),
}

#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub model: String,
    pub parts: Vec<Part>,
    pub stop: Stop,
    pub usage: Usage,
    pub choices: u64,
    pub no_usage: bool,
}

/// Part of an answer. Each piece is a token, and an event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Thinking(Vec<String>),
    Text(Vec<String>),
    /// A call has no id of its own kind: each dialect puts its prefix before this number.
    Call {
        number: String,
        name: String,
        pieces: Vec<String>,
    },
    Refusal(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    Limit,
    Sequence(String),
    Calls,
    Refused,
    Filtered,
}

/// Tokens. Cached and written ones are of the input, reasoning of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub input: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Ask {
    /// A token for four bytes of text, the usual rule of thumb, and 85 for an image.
    pub fn input_tokens(&self) -> u64 {
        let mut bytes = self.system.len();
        let mut media = 0;
        for turn in &self.turns {
            bytes += if turn.assistant { "assistant".len() } else { "user".len() };
            for block in &turn.blocks {
                match block {
                    Block::Text(text) | Block::Thinking(text) => bytes += text.len(),
                    Block::Media(_) => media += 85,
                    Block::Call { name, input, .. } => bytes += name.len() + input.to_string().len(),
                    Block::Result { text, .. } => bytes += text.len(),
                }
            }
        }
        for tool in &self.tools {
            bytes += tool.name.len() + tool.schema.to_string().len();
        }
        bytes.div_ceil(4) as u64 + media
    }

    /// Texts of the last turn, if the user has it.
    pub fn last_text(&self) -> String {
        let Some(turn) = self.turns.last().filter(|turn| !turn.assistant) else { return String::new() };
        turn.texts().collect::<Vec<_>>().join(" ")
    }

    /// Adds to the last turn if the same side has it, as a new turn otherwise.
    pub fn push(&mut self, assistant: bool, blocks: Vec<Block>) {
        match self.turns.last_mut() {
            Some(turn) if turn.assistant == assistant => turn.blocks.extend(blocks),
            _ => self.turns.push(Turn { assistant, blocks }),
        }
    }

    /// Marks everything so far as what is to be cached.
    ///
    /// # Errors
    /// There are as many marks as there may be.
    pub fn mark_cache(&mut self) -> Result<(), Refusal> {
        if self.cache_marks.len() == CACHE_MARKS_MAX {
            return Err(Refusal::bad("A maximum of 4 blocks with cache_control may be provided. Found 5."));
        }
        let said = format!("{:?}{:?}{:?}{}", self.tools, self.system, self.turns, self.model);
        let mut hasher = DefaultHasher::new();
        said.hash(&mut hasher);
        self.cache_marks.push((hasher.finish(), self.input_tokens()));
        Ok(())
    }

    pub fn add_system(&mut self, text: &str) {
        if !self.system.is_empty() {
            self.system.push('\n');
        }
        self.system.push_str(text);
    }
}

impl Turn {
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Ids of its calls.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Call { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }

    /// Ids of the calls that it has the results of.
    pub fn results(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Result { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }
}

impl Part {
    pub fn pieces(&self) -> &[String] {
        match self {
            Self::Thinking(pieces)
            | Self::Text(pieces)
            | Self::Refusal(pieces)
            | Self::Call { pieces, .. } => pieces,
        }
    }

    pub fn pieces_mut(&mut self) -> &mut Vec<String> {
        match self {
            Self::Thinking(pieces)
            | Self::Text(pieces)
            | Self::Refusal(pieces)
            | Self::Call { pieces, .. } => pieces,
        }
    }

    pub fn whole(&self) -> String {
        self.pieces().concat()
    }

    /// Arguments as a value: cut ones are no JSON, and real providers then give an empty object.
    pub fn arguments(&self) -> Value {
        serde_json::from_str(&self.whole()).unwrap_or_else(|_| Value::Object(serde_json::Map::new()))
    }
}
