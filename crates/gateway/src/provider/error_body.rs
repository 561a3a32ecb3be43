//! Error bodies in OpenAI's shape, and the errors of reading a request body.

use std::borrow::Cow;

use serde::Serialize;
use thiserror::Error;

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

#[derive(Serialize)]
struct Envelope<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

/// `{"error":{"message","type","param","code"}}`: what the OpenAI SDKs turn into their exceptions.
pub(crate) fn encode(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Vec<u8> {
    let envelope = Envelope { error: Inner { message, r#type: kind, param, code } };
    // Strings always serialize; the fallback keeps the shape all the same.
    serde_json::to_vec(&envelope)
        .unwrap_or_else(|_| br#"{"error":{"message":"","type":"server_error"}}"#.to_vec())
}

/// The same as one event of a stream: the SDKs raise it like an error answer.
pub(crate) fn encode_event(message: &str, kind: &str, code: Option<&str>) -> Vec<u8> {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&encode(message, kind, None, code));
    event.extend_from_slice(b"\n\n");
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_escaping() {
        let body = encode("no \"model\"\n", "invalid_request_error", Some("model"), None);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"error":{"message":"no \"model\"\n","type":"invalid_request_error","param":"model","code":null}}"#
        );
        let event = String::from_utf8(encode_event("gone", "server_error", Some("upstream_died"))).unwrap();
        assert!(event.starts_with("data: {") && event.ends_with("}\n\n"));
    }
}
