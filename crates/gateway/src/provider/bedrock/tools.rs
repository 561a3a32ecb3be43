//! Tools and their choice as Converse says them. What it has no field for (no tool, one at a time) Anthropic's models take
//! in their own `tool_choice`.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    content::{CachePoint, Writer, tool_name},
    model::Family,
};
use crate::provider::{
    closed_schema::closed,
    conversation::{Conversation, ToolChoice},
    reply::Unsupported,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    tools: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Entry<'a> {
    #[serde(rename_all = "camelCase")]
    ToolSpec {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        input_schema: Schema<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
    CachePoint(CachePoint<'a>),
}

#[derive(Debug, Serialize)]
struct Schema<'a> {
    json: std::borrow::Cow<'a, Value>,
}

/// The tools, and Anthropic's own `tool_choice` where it is needed.
pub(super) fn tools<'a>(
    conversation: &'a Conversation,
    family: Family,
    writer: &mut Writer,
) -> Result<(Option<ToolConfig<'a>>, Option<Value>), Unsupported> {
    let used = conversation.used_tools();
    let forbidden =
        conversation.tools.is_empty() || matches!(conversation.tool_choice, Some(ToolChoice::None));
    if forbidden && used.is_none() {
        return Ok((None, None));
    }
    let mut entries = Vec::new();
    for tool in &conversation.tools {
        if !tool.schema.is_object() {
            let why = "hold a schema that is not a JSON object; send one of type `object`";
            return Err(refused("tools", why));
        }
        entries.push(Entry::ToolSpec {
            name: tool_name(&tool.name)?,
            description: tool.description.as_deref().filter(|text| !text.is_empty()),
            input_schema: schema(&tool.schema, tool.strict == Some(true), writer),
            strict: tool.strict.filter(|strict| *strict),
        });
        let point = tool.cache.as_ref().and_then(|cache| writer.cache_point(cache));
        entries.extend(point.map(Entry::CachePoint));
    }
    if forbidden {
        // Turns with tools want tools beside them, which then must not be used: only Anthropic's models can be told so.
        if family != Family::Anthropic {
            let why = "cannot be `none` (nor `tools` empty) on Bedrock while messages hold tool calls, except for \
                       Anthropic's models; allow the tools, or leave those messages out";
            return Err(refused("tool_choice", why));
        }
        if entries.is_empty() {
            entries = used.into_iter().flatten().map(undefined).collect::<Result<_, _>>()?;
        }
        let config = ToolConfig { tools: entries, tool_choice: None };
        return Ok((Some(config), Some(json!({"type": "none"}))));
    }
    let choice = match &conversation.tool_choice {
        None | Some(ToolChoice::Auto | ToolChoice::None) => None,
        Some(ToolChoice::Any) => Some(json!({"any": {}})),
        Some(ToolChoice::Named(name)) => Some(json!({"tool": {"name": tool_name(name)?}})),
    };
    let own = match (conversation.parallel_tools, family) {
        // Bedrock refuses to be told the type twice.
        (Some(false), Family::Anthropic) if choice.is_some() => {
            Some(json!({"disable_parallel_tool_use": true}))
        }
        (Some(false), Family::Anthropic) => Some(json!({"type": "auto", "disable_parallel_tool_use": true})),
        (Some(false), _) => {
            let why = "cannot be off on Bedrock, except for Anthropic's models; leave it out";
            return Err(refused("parallel_tool_calls", why));
        }
        _ => None,
    };
    Ok((Some(ToolConfig { tools: entries, tool_choice: choice }), own))
}

/// It must say that it is an object, which other APIs let tools without parameters leave out.
fn schema<'a>(of: &'a Value, strict: bool, writer: &mut Writer) -> Schema<'a> {
    let mut json = std::borrow::Cow::Borrowed(of);
    if strict {
        let (closed, told) = closed(of);
        told.into_iter().for_each(|name| writer.dropped(name));
        json = std::borrow::Cow::Owned(closed);
    }
    if of.get("type").is_none_or(Value::is_null)
        && let Some(object) = json.to_mut().as_object_mut()
    {
        object.insert("type".to_owned(), "object".into());
    }
    Schema { json }
}

/// A tool that messages used but the request no longer defines. It is not going to be used.
fn undefined(name: &str) -> Result<Entry<'_>, Unsupported> {
    let schema = Schema { json: std::borrow::Cow::Owned(json!({"type": "object"})) };
    Ok(Entry::ToolSpec { name: tool_name(name)?, description: None, input_schema: schema, strict: None })
}

fn refused(param: &str, why: &str) -> Unsupported {
    Unsupported { param: param.to_owned(), why: why.to_owned() }
}
