//! An answer in no house's dialect, whole or event by event: between a backend's decoder and the client's encoder.

use crate::provider::{
    conversation::Content,
    tool_names::{self, Renamed},
    usage::Usage,
};

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Empty: the provider gave none.
    pub(crate) id: String,
    /// Empty: the provider gave none.
    pub(crate) model: String,
    /// Text, thinking, tool uses, refusals.
    pub(crate) blocks: Vec<Content>,
    pub(crate) stop: Stop,
    pub(crate) usage: Option<Usage>,
}

impl Reply {
    /// What the model wrote, for counting.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            match block {
                Content::Text(said) | Content::Refusal(said) | Content::RedactedThinking(said) => {
                    text.push_str(said);
                }
                Content::Thinking { text: thought, .. } => text.push_str(thought),
                Content::ToolUse { name, input, .. } => {
                    text.push_str(name);
                    text.push_str(input);
                }
                // No answer holds these.
                Content::Image { .. } | Content::Document { .. } | Content::ToolResult { .. } => {}
            }
        }
        text
    }
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It was finished.
    End,
    /// At the limit of tokens, or of its context.
    Length,
    ToolUse,
    /// A sequence that the client named, where the provider says which.
    Sequence(Option<String>),
    Refusal,
    /// A filter of the provider stepped in.
    Filtered,
    /// The provider pauses a long turn; the client is to send it back.
    Pause,
}

/// One event of a stream. Each block is opened before and closed after its pieces; `index` counts blocks from 0 in the
/// order in which they are opened. A stream ends with [`Event::Stop`], then perhaps [`Event::Usage`], then [`Event::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// First, once.
    Start {
        id: String,
        model: String,
    },
    Open {
        index: usize,
        block: Opening,
    },
    Text {
        index: usize,
        text: String,
    },
    Thinking {
        index: usize,
        text: String,
    },
    Signature {
        index: usize,
        signature: String,
    },
    Refusal {
        index: usize,
        text: String,
    },
    /// A piece of the JSON text of a tool's input.
    Input {
        index: usize,
        json: String,
    },
    Close {
        index: usize,
    },
    Stop(Stop),
    /// All usage so far: each one replaces those before.
    Usage(Usage),
    /// The provider broke off with an error after its stream had begun. Nothing follows.
    Error(ApiError),
    Done,
    Ping,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    Text,
    Thinking,
    RedactedThinking(String),
    Refusal,
    ToolUse { id: String, name: String },
}

/// A provider's error, for the client in its own dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// HTTP status; of an error inside a stream, the one that the provider would have answered with.
    pub(crate) status: u16,
    /// The provider's own word for it (`rate_limit_error`, `ThrottlingException`), empty if it gave none.
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) code: Option<String>,
    pub(crate) param: Option<String>,
}

/// What an encoder knows of the request that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// What the client asked for; named where the provider names none.
    pub(crate) model: String,
    /// Unique; where the provider gives no id.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The client of a stream asked for its usage (`stream_options.include_usage`).
    pub(crate) usage_asked: bool,
    /// Tools that go by another name at the provider.
    pub(crate) renamed: Vec<Renamed>,
}

impl Context {
    /// A tool as the client knows it.
    pub(crate) fn tool<'a>(&'a self, name: &'a str) -> &'a str {
        tool_names::original(&self.renamed, name)
    }
}

/// The answer, or a piece of it, is not what the provider's API promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Garbage(pub(crate) String);

/// A request that this backend cannot serve as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{param}` {why}")]
pub(crate) struct Unsupported {
    /// The field at fault, as the client wrote it: `messages[2].content[0]`, `n`.
    pub(crate) param: String,
    /// What is wrong, and what to do: `cannot be carried over to Anthropic's API; leave it out`.
    pub(crate) why: String,
}

/// A request as a backend gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Below the backend's base URL, with a leading slash, percent-encoded.
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// Fields of the client that were left out, harmlessly.
    pub(crate) dropped: Vec<String>,
}
