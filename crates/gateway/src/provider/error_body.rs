//! The gateway's own errors in the client's dialect, and the errors of reading a request body.

use std::borrow::Cow;

use serde::Serialize;
use thiserror::Error;

use super::endpoint::Dialect;

/// A request body that cannot be understood. The text names the place and goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct BadRequest {
    pub(crate) message: String,
    /// The field at fault, for `error.param`.
    pub(crate) param: Option<Cow<'static, str>>,
}

impl BadRequest {
    pub(crate) fn of(param: impl Into<Cow<'static, str>>, message: String) -> Self {
        Self { message, param: Some(param.into()) }
    }
}

/// One error, in the words of the client's dialect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorWords<'a> {
    pub(crate) message: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) param: Option<&'a str>,
    pub(crate) code: Option<&'a str>,
}

#[derive(Serialize)]
struct OpenAI<'a> {
    error: OpenAIError<'a>,
}

#[derive(Serialize)]
struct OpenAIError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'a str,
    message: &'a str,
    /// Not Anthropic's: what kind of refusal this is, as OpenAI's clients see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

/// What the SDKs of the client's house turn into their exceptions: `{"error":{"message","type","param","code"}}`, or
/// `{"type":"error","error":{"type","message"}}`.
pub(crate) fn encode(dialect: Dialect, words: &ErrorWords<'_>) -> Vec<u8> {
    let ErrorWords { message, kind, param, code } = *words;
    let encoded = match dialect {
        Dialect::OpenAI => {
            serde_json::to_vec(&OpenAI { error: OpenAIError { message, r#type: kind, param, code } })
        }
        Dialect::Anthropic => {
            let error = AnthropicError { r#type: kind, message, code };
            serde_json::to_vec(&Anthropic { r#type: "error", error })
        }
    };
    // Strings always serialize; the fallback keeps a shape all the same.
    encoded.unwrap_or_else(|_| br#"{"type":"error","error":{"message":"","type":"server_error"}}"#.to_vec())
}

/// The same as one event of a stream: the SDKs raise it like an error answer.
pub(crate) fn encode_event(dialect: Dialect, words: &ErrorWords<'_>) -> Vec<u8> {
    let mut event = match dialect {
        Dialect::OpenAI => b"data: ".to_vec(),
        Dialect::Anthropic => b"event: error\ndata: ".to_vec(),
    };
    event.extend_from_slice(&encode(dialect, words));
    event.extend_from_slice(b"\n\n");
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_escaping() {
        let words = ErrorWords {
            message: "no \"model\"\n",
            kind: "invalid_request_error",
            param: Some("model"),
            code: Some("c"),
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(encode(Dialect::OpenAI, &words)),
            r#"{"error":{"message":"no \"model\"\n","type":"invalid_request_error","param":"model","code":"c"}}"#
        );
        assert_eq!(
            text(encode(Dialect::Anthropic, &words)),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"no \"model\"\n","code":"c"}}"#
        );
        let event = text(encode_event(Dialect::OpenAI, &words));
        assert!(event.starts_with("data: {") && event.ends_with("}\n\n"));
        assert!(text(encode_event(Dialect::Anthropic, &words)).starts_with("event: error\ndata: {"));
    }
}
