//! A conversation in no house's dialect: what a client's request says, between its decoder and a backend's encoder.
//!
//! It holds what at least two dialects can say. What only the client's dialect knows is in `rest`, with the decoder's word on
//! whether leaving it out does harm. Requests whose backend speaks the client's dialect never come here: their bytes pass.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// As the client named it; what is sent upstream is in [`Target`].
    pub(crate) model: String,
    /// System and developer prompts, in order: text blocks only.
    pub(crate) system: Vec<Block>,
    /// As sent: roles need not alternate, encoders merge neighbours where their dialect wants that.
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: Option<ToolChoice>,
    /// `None`: nothing said, which is "yes" everywhere.
    pub(crate) parallel_tools: Option<bool>,
    /// Tokens of the answer.
    pub(crate) output_limit: Option<u64>,
    pub(crate) temperature: Option<Number>,
    pub(crate) top_p: Option<Number>,
    pub(crate) top_k: Option<u64>,
    /// Sequences that end the answer.
    pub(crate) stop: Vec<String>,
    pub(crate) format: Format,
    pub(crate) reasoning: Option<Reasoning>,
    pub(crate) stream: bool,
    /// Who the request is for, as the client says: for the provider's abuse detection.
    pub(crate) user: Option<String>,
    pub(crate) rest: Vec<Extra>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    Assistant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    /// Tool results are blocks of a user's turn, tool uses of an assistant's.
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) content: Content,
    /// The prompt up to and including this block is to be cached.
    pub(crate) cache: Option<Cache>,
}

impl From<Content> for Block {
    fn from(content: Content) -> Self {
        Self { content, cache: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Text(String),
    Image {
        source: Source,
        /// `low`, `high`, `auto`.
        detail: Option<String>,
    },
    /// A PDF or another file for the model to read.
    Document {
        source: Source,
        name: Option<String>,
    },
    ToolUse {
        id: String,
        name: String,
        /// The text of a JSON object.
        input: String,
    },
    ToolResult {
        /// Of the tool use.
        id: String,
        /// Text, images, documents.
        blocks: Vec<Block>,
        is_error: bool,
    },
    Thinking {
        text: String,
        /// Without it the provider does not take its own thoughts back.
        signature: Option<String>,
    },
    /// Thoughts that only the provider can read.
    RedactedThinking(String),
    /// The model's words on why it does not answer.
    Refusal(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Base64 {
        media_type: String,
        data: String,
    },
    Url(String),
    /// Plain text as a document.
    Text(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cache {
    /// `5m`, `1h`; `None`: the provider's default.
    pub(crate) ttl: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// JSON schema of its input: an object.
    pub(crate) schema: Value,
    pub(crate) strict: Option<bool>,
    pub(crate) cache: Option<Cache>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    /// Some tool must be used.
    Any,
    Named(String),
}

/// What the answer's text must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// Some JSON object.
    Json,
    Schema {
        name: Option<String>,
        schema: Value,
        strict: Option<bool>,
    },
}

/// How much the model is to think before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reasoning {
    Off,
    /// `minimal`, `low`, `medium`, `high`, … as the client wrote it.
    Effort(String),
    /// At most so many tokens.
    Budget(u64),
    /// As much as the model sees fit.
    Adaptive,
}

/// A field of the request that only its own dialect knows. Those that say nothing (null, the default) are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Its place in the request, such as `logit_bias`.
    pub(crate) name: String,
    pub(crate) value: Value,
    /// Leaving it out changes nothing that the client can rely on: then it is dropped, and named in the answer. Else a
    /// backend that cannot say it refuses the request.
    pub(crate) harmless: bool,
}

/// What the gateway decides about a request that it translates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The model as the backend knows it.
    pub(crate) model: &'a str,
    /// In place of what the conversation names: tokens of the answer that have been reserved. `None`: as it says.
    pub(crate) output_limit: Option<u64>,
}

/// For dialects that want a limit, where neither the client nor a budget names one: every model of theirs can do that.
pub(crate) const OUTPUT_LIMIT_DEFAULT: u64 = 4096;

impl Conversation {
    /// The limit that is sent, if one is.
    pub(crate) fn limit(&self, target: &Target<'_>) -> Option<u64> {
        target.output_limit.or(self.output_limit)
    }

    /// The names of the tools that turns used; `None` if no turn has to do with tools.
    pub(crate) fn used_tools(&self) -> Option<BTreeSet<&str>> {
        let mut names = BTreeSet::new();
        let mut any = false;
        for block in self.turns.iter().flat_map(|turn| &turn.blocks) {
            match &block.content {
                Content::ToolUse { name, .. } => {
                    any = true;
                    names.insert(name.as_str());
                }
                Content::ToolResult { .. } => any = true,
                _ => {}
            }
        }
        if any && names.is_empty() {
            names.insert("tool");
        }
        any.then_some(names)
    }
}
