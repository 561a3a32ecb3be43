//! Turns as Converse's messages: roles alternate, the user's comes first, no text is blank, a point of the cache is a
//! block of its own.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    media::{self, Document, Image, Names, short},
    model::Family,
};
use crate::provider::{
    conversation::{Block, Cache, Content, Conversation, Role},
    reply::Unsupported,
    tool_input,
};

const TOOL_USE_ID_CHARS_MAX: usize = 64;

const DOCUMENT_TEXT: &str = "The document is attached.";

#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    role: &'static str,
    content: Vec<Piece<'a>>,
}

/// A content block; of a system prompt and of a tool's result the ones that they may have.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Image(Image<'a>),
    Document(Document<'a>),
    #[serde(rename_all = "camelCase")]
    ToolUse {
        tool_use_id: Cow<'a, str>,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    #[serde(rename_all = "camelCase")]
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: Vec<Piece<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'static str>,
    },
    ReasoningContent(Thoughts<'a>),
    CachePoint(CachePoint<'a>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Thoughts<'a> {
    ReasoningText { text: &'a str, signature: &'a str },
    RedactedContent(&'a str),
}

#[derive(Debug, Serialize)]
pub(super) struct CachePoint<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
}

/// Turns one conversation's blocks into pieces, and remembers what it had to leave out.
#[derive(Debug)]
pub(super) struct Writer {
    family: Family,
    names: Names,
    pub(super) dropped: Vec<&'static str>,
}

impl Writer {
    pub(super) fn new(family: Family) -> Self {
        Self { family, names: Names::default(), dropped: Vec::new() }
    }

    pub(super) fn dropped(&mut self, name: &'static str) {
        if !self.dropped.contains(&name) {
            self.dropped.push(name);
        }
    }

    /// Where the model's house has caches: elsewhere a point would be refused, and without it only the price differs.
    pub(super) fn cache_point<'a>(&mut self, cache: &'a Cache) -> Option<CachePoint<'a>> {
        if !matches!(self.family, Family::Anthropic | Family::Nova) {
            self.dropped("cache_control");
            return None;
        }
        let ttl = cache.ttl.as_deref().filter(|ttl| matches!(*ttl, "5m" | "1h"));
        Some(CachePoint { r#type: "default", ttl })
    }

    pub(super) fn system<'a>(&mut self, system: &'a [Block]) -> Result<Vec<Piece<'a>>, Unsupported> {
        let mut pieces = Vec::new();
        for block in system {
            let Content::Text(text) = &block.content else {
                let why =
                    "hold something other than text in the system prompt; move it into the user's message";
                return Err(refused(why.to_owned()));
            };
            if !text.trim().is_empty() {
                pieces.push(Piece::Text(text));
                let point = block.cache.as_ref().and_then(|cache| self.cache_point(cache));
                pieces.extend(point.map(Piece::CachePoint));
            }
        }
        Ok(pieces)
    }

    pub(super) fn messages<'a>(
        &mut self,
        conversation: &'a Conversation,
    ) -> Result<Vec<Message<'a>>, Unsupported> {
        let mut messages: Vec<(Role, Vec<Piece<'a>>)> = Vec::new();
        for turn in &conversation.turns {
            let mut pieces = Vec::new();
            for block in &turn.blocks {
                self.block(block, &mut pieces)?;
            }
            if pieces.is_empty() {
                continue;
            }
            match messages.last_mut() {
                Some((role, before)) if *role == turn.role => before.append(&mut pieces),
                _ => messages.push((turn.role, pieces)),
            }
        }
        match messages.first() {
            Some((Role::User, _)) => {}
            Some(_) => {
                return Err(refused(
                    "begin with the assistant's turn; Bedrock wants the user's first".to_owned(),
                ));
            }
            None => {
                let why = "hold nothing of the user's; Bedrock wants a user's message that is not empty";
                return Err(refused(why.to_owned()));
            }
        }
        // "Final assistant content cannot end with trailing whitespace", says Claude.
        if let Some((Role::Assistant, content)) = messages.last_mut()
            && let Some(Piece::Text(text)) = content.last_mut()
        {
            *text = text.trim_end();
        }
        let message = |(role, content)| match role {
            Role::User => Message { role: "user", content: beside_documents(results_first(content)) },
            Role::Assistant => Message { role: "assistant", content },
        };
        Ok(messages.into_iter().map(message).collect())
    }

    fn block<'a>(&mut self, block: &'a Block, pieces: &mut Vec<Piece<'a>>) -> Result<(), Unsupported> {
        let mut cache = block.cache.as_ref();
        let piece = match &block.content {
            Content::Text(text) | Content::Refusal(text) if text.trim().is_empty() => None,
            Content::Text(text) | Content::Refusal(text) => Some(Piece::Text(text)),
            Content::Image { source, detail } => {
                if detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.dropped("image_url.detail");
                }
                Some(Piece::Image(media::image(source)?))
            }
            Content::Document { source, name } => {
                Some(Piece::Document(self.names.document(source, name.as_deref())?))
            }
            Content::ToolUse { id, name, input } => Some(Piece::ToolUse {
                tool_use_id: tool_use_id(id),
                name: tool_name(name)?,
                input: tool_input::object(input),
            }),
            Content::ToolResult { id, blocks, is_error } => {
                let mut content = Vec::new();
                for inner in blocks {
                    // Results have no points of their own: theirs goes behind the whole result.
                    cache = cache.or(inner.cache.as_ref());
                    self.result(&inner.content, &mut content)?;
                }
                let knows_status = matches!(self.family, Family::Anthropic | Family::Nova);
                if *is_error && !knows_status {
                    self.dropped("is_error");
                }
                let status = (*is_error && knows_status).then_some("error");
                Some(Piece::ToolResult { tool_use_id: tool_use_id(id), content, status })
            }
            Content::Thinking { text, signature } => self.thinking(text, signature.as_deref()),
            Content::RedactedThinking(data) => {
                let sent = self.takes_thoughts();
                sent.then_some(Piece::ReasoningContent(Thoughts::RedactedContent(data)))
            }
        };
        let Some(piece) = piece else { return Ok(()) };
        pieces.push(piece);
        let point = cache.and_then(|cache| self.cache_point(cache));
        pieces.extend(point.map(Piece::CachePoint));
        Ok(())
    }

    fn result<'a>(&mut self, content: &'a Content, pieces: &mut Vec<Piece<'a>>) -> Result<(), Unsupported> {
        match content {
            Content::Text(text) if text.trim().is_empty() => {}
            Content::Text(text) => pieces.push(Piece::Text(text)),
            Content::Image { source, .. } => pieces.push(Piece::Image(media::image(source)?)),
            Content::Document { source, name } => {
                pieces.push(Piece::Document(self.names.document(source, name.as_deref())?));
            }
            _ => {
                let why = "hold a tool's result of something other than text, images and documents";
                return Err(refused(format!("{why}; send its text")));
            }
        }
        Ok(())
    }

    /// Without its signature the provider does not take a thought back; without the thought it thinks anew.
    fn thinking<'a>(&mut self, text: &'a str, signature: Option<&'a str>) -> Option<Piece<'a>> {
        let signature = signature.filter(|signature| !signature.is_empty());
        let Some(signature) = signature else {
            self.dropped("thinking");
            return None;
        };
        self.takes_thoughts().then_some(Piece::ReasoningContent(Thoughts::ReasoningText { text, signature }))
    }

    fn takes_thoughts(&mut self) -> bool {
        let takes = self.family == Family::Anthropic;
        if !takes {
            self.dropped("thinking");
        }
        takes
    }
}

/// Anthropic's models want results before whatever else the user says. A point of the cache stays behind its block.
fn results_first(content: Vec<Piece<'_>>) -> Vec<Piece<'_>> {
    let (mut results, mut others) = (Vec::new(), Vec::new());
    let mut of_result = false;
    for piece in content {
        match piece {
            Piece::CachePoint(_) => {}
            Piece::ToolResult { .. } => of_result = true,
            _ => of_result = false,
        }
        if of_result { results.push(piece) } else { others.push(piece) }
    }
    results.append(&mut others);
    results
}

/// "A text block must be included when using documents": where the user said nothing, this says what there is.
fn beside_documents(mut content: Vec<Piece<'_>>) -> Vec<Piece<'_>> {
    let document = content.iter().any(|piece| matches!(piece, Piece::Document(_)));
    if document && !content.iter().any(|piece| matches!(piece, Piece::Text(_))) {
        let point = matches!(content.last(), Some(Piece::CachePoint(_)));
        content.insert(content.len() - usize::from(point), Piece::Text(DOCUMENT_TEXT));
    }
    content
}

/// The API takes 1 to 64 letters, digits, `_`, `.`, `:` and `-`. Other houses' ids hold more, and are longer: what makes them unique
/// stands at their end. Uses and results change alike.
fn tool_use_id(id: &str) -> Cow<'_, str> {
    let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | ':');
    if (1..=TOOL_USE_ID_CHARS_MAX).contains(&id.len()) && id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    let over = id.chars().count().saturating_sub(TOOL_USE_ID_CHARS_MAX);
    let kept: String = id.chars().skip(over).map(|char| if fits(char) { char } else { '_' }).collect();
    Cow::Owned(if kept.is_empty() { "_".to_owned() } else { kept })
}

pub(super) fn tool_name(name: &str) -> Result<&str, Unsupported> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(Unsupported {
        param: "tools".to_owned(),
        why: format!("hold the name `{}`; Bedrock takes 1 to 64 letters, digits, `_` and `-`", short(name)),
    })
}

fn refused(why: String) -> Unsupported {
    Unsupported { param: "messages".to_owned(), why }
}
