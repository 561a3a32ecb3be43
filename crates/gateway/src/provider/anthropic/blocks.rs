//! Blocks of content in a client's request, made neutral. Blocks that only Anthropic's own servers can read (server
//! tools, search results, files) are refused: this runs only where another provider is to read them.

use serde_json::{Value, value::RawValue};

use super::fields::{Fields, string, wrong};
use crate::provider::{
    conversation::{Block, Cache, Content, Extra, Source},
    error_body::BadRequest,
};

/// Which blocks may stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    System,
    Message,
    ToolResult,
}

/// A string, or a list of blocks. What a block holds beyond its content goes to `rest`.
pub(super) fn decode(
    at: &str,
    raw: &RawValue,
    place: Place,
    rest: &mut Vec<Extra>,
) -> Result<Vec<Block>, BadRequest> {
    if let Some(text) = string(at, raw)? {
        return Ok(vec![Content::Text(text).into()]);
    }
    if !raw.get().starts_with('[') {
        return Err(wrong(at, "must be a string or a list of blocks"));
    }
    Fields::list_of(at, raw)?.into_iter().map(|fields| block(fields, place, rest)).collect()
}

fn block(mut fields: Fields<'_>, place: Place, rest: &mut Vec<Extra>) -> Result<Block, BadRequest> {
    let kind = fields.needed_text("type")?;
    let everywhere = kind == "text";
    let in_results = matches!(kind.as_str(), "image" | "document");
    let in_messages = matches!(kind.as_str(), "tool_use" | "tool_result" | "thinking" | "redacted_thinking");
    let fits = match place {
        Place::System => everywhere,
        Place::ToolResult => everywhere || in_results || kind == "tool_reference",
        Place::Message => everywhere || in_results || in_messages,
    };
    if !fits {
        let must = format!(
            "`{kind}` cannot be carried over to the provider that serves this model; leave the block out, or ask \
             for a model of an Anthropic backend"
        );
        return Err(wrong(&fields.place("type"), &must));
    }
    let cache = cache(&mut fields)?;
    let content = match kind.as_str() {
        "text" => Content::Text(fields.needed_text("text")?),
        // A client's own search for tools found it. All tools are given from the beginning here.
        "tool_reference" => Content::Text(format!("Found the tool `{}`.", fields.needed_text("tool_name")?)),
        "image" => Content::Image { source: source(&mut fields, rest)?, detail: None },
        "document" => Content::Document { source: source(&mut fields, rest)?, name: fields.text("title")? },
        "tool_use" => tool_use(&mut fields)?,
        "tool_result" => tool_result(&mut fields, rest)?,
        "thinking" => Content::Thinking {
            text: fields.needed_text("thinking")?,
            signature: fields.text("signature")?.filter(|signature| !signature.is_empty()),
        },
        _ => Content::RedactedThinking(fields.needed_text("data")?),
    };
    for (name, value) in fields.rest()? {
        let harmless = match name.rsplit('.').next() {
            // Of earlier answers, or asked for with a document: then the answer's shape hangs on it.
            Some("citations") => kind == "text" || value.get("enabled") != Some(&Value::Bool(true)),
            Some("caller") => value.get("type").and_then(Value::as_str) == Some("direct"),
            _ => false,
        };
        rest.push(Extra { name, value, harmless });
    }
    Ok(Block { content, cache })
}

pub(super) fn cache(fields: &mut Fields<'_>) -> Result<Option<Cache>, BadRequest> {
    let Some(mut control) = fields.nested("cache_control")? else { return Ok(None) };
    let kind = control.needed_text("type")?;
    if kind != "ephemeral" {
        return Err(wrong(&control.place("type"), "must be `ephemeral`"));
    }
    Ok(Some(Cache { ttl: control.text("ttl")? }))
}

fn tool_use(fields: &mut Fields<'_>) -> Result<Content, BadRequest> {
    let input = fields.take("input");
    let input = fields.needed("input", input)?.get();
    if !input.starts_with('{') {
        return Err(wrong(&fields.place("input"), "must be an object"));
    }
    let (id, name) = (fields.needed_text("id")?, fields.needed_text("name")?);
    Ok(Content::ToolUse { id, name, input: input.to_owned() })
}

fn tool_result(fields: &mut Fields<'_>, rest: &mut Vec<Extra>) -> Result<Content, BadRequest> {
    let at = fields.place("content");
    let blocks = match fields.take("content") {
        None => Vec::new(),
        Some(raw) => decode(&at, raw, Place::ToolResult, rest)?,
    };
    let is_error = fields.flag("is_error")?.unwrap_or(false);
    Ok(Content::ToolResult { id: fields.needed_text("tool_use_id")?, blocks, is_error })
}

fn source(fields: &mut Fields<'_>, rest: &mut Vec<Extra>) -> Result<Source, BadRequest> {
    let source = fields.nested("source")?;
    let mut source = fields.needed("source", source)?;
    match source.needed_text("type")?.as_str() {
        "base64" => Ok(Source::Base64 {
            media_type: source.needed_text("media_type")?,
            data: source.needed_text("data")?,
        }),
        "url" => Ok(Source::Url(source.needed_text("url")?)),
        "text" => Ok(Source::Text(source.needed_text("data")?)),
        "content" => {
            let at = source.place("content");
            let content = source.take("content");
            let content = source.needed("content", content)?;
            let mut texts = Vec::new();
            for block in decode(&at, content, Place::ToolResult, rest)? {
                match block.content {
                    Content::Text(text) => texts.push(text),
                    _ => return Err(wrong(&at, "can be carried over only where all of it is text")),
                }
            }
            Ok(Source::Text(texts.join("\n\n")))
        }
        kind => {
            let must = format!(
                "`{kind}` cannot be carried over to the provider that serves this model; use `base64` or `url`"
            );
            Err(wrong(&source.place("type"), &must))
        }
    }
}
