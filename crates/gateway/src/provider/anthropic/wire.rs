//! A block of content as it is written: to a backend in a request, to a client in an answer.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::provider::{conversation::Cache, tool_input};

/// Flat, with what each type has: an enum tagged by serde could not hold a tool's input as the text that it was.
#[derive(Debug, Default, Serialize)]
pub(super) struct Block<'a> {
    pub(super) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_use_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Vec<Block<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_error: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<CacheControl<'a>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Source<'a> {
    pub(super) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct CacheControl<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
}

impl<'a> From<&'a Cache> for CacheControl<'a> {
    fn from(cache: &'a Cache) -> Self {
        Self { r#type: "ephemeral", ttl: cache.ttl.as_deref() }
    }
}

impl<'a> Block<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self { r#type: "text", text: Some(text), ..Self::default() }
    }

    pub(super) fn tool_use(id: &'a str, name: &'a str, input: &'a str) -> Self {
        let (id, input) = (Some(tool_id(id)), Some(tool_input::object(input)));
        Self { r#type: "tool_use", id, name: Some(name), input, ..Self::default() }
    }

    pub(super) fn thinking(text: &'a str, signature: &'a str) -> Self {
        let (thinking, signature) = (Some(text), Some(signature));
        Self { r#type: "thinking", thinking, signature, ..Self::default() }
    }

    pub(super) fn redacted(data: &'a str) -> Self {
        Self { r#type: "redacted_thinking", data: Some(data), ..Self::default() }
    }
}

/// The API takes letters, digits, `_` and `-`; other houses' ids hold more. Uses and results change alike.
pub(super) fn tool_id(id: &str) -> Cow<'_, str> {
    let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    if id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(id.chars().map(|char| if fits(char) { char } else { '_' }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit() {
        assert_eq!(tool_id("call_A-1"), "call_A-1");
        assert_eq!(tool_id("call|1:é"), "call_1__");
    }
}
