//! Errors in Anthropic's shape: `{"type":"error","error":{"type","message"}}`.
//!
//! Source: Anthropic's page "Errors". Overload is 529 there and 503 elsewhere.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::provider::{reply::ApiError, too_long};

/// Longer messages of a provider are cut.
const MESSAGE_CHARS_MAX: usize = 2000;

const KINDS: [(u16, &str); 10] = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (402, "billing_error"),
    (403, "permission_error"),
    (404, "not_found_error"),
    (413, "request_too_large"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (504, "timeout_error"),
    (529, "overloaded_error"),
];

/// Of a backend's error answer. `kind` is what a header says, if one does (Bedrock's InvokeModel).
pub(crate) fn decode(status: u16, kind: &str, body: &[u8]) -> ApiError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
    let word = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let said = if body.get("error").is_some() { word(error, "type") } else { String::new() };
    // `Kind:http://…` in some of AWS's headers.
    let kind = if said.is_empty() { kind.split(':').next().unwrap_or_default().to_owned() } else { said };
    let mut message = word(error, "message");
    if message.is_empty() {
        message = word(error, "Message");
    }
    if message.is_empty() {
        message = format!("the provider answered with status {status} and no message");
    }
    ApiError { status, kind, message: bounded(message), code: None, param: None }
}

/// Of an error under a status of success: its status is what its type says.
pub(crate) fn decode_inside(body: &[u8]) -> ApiError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    decode_event(body.get("error"))
}

/// Of an `error` event inside a stream.
pub(super) fn decode_event(error: Option<&Value>) -> ApiError {
    let word = |name| error.and_then(|error| error.get(name)).and_then(Value::as_str).unwrap_or_default();
    let kind = word("type").to_owned();
    let status = KINDS.iter().find(|known| known.1 == kind).map_or(502, |known| known.0);
    let message = match word("message") {
        "" => "the provider broke off its answer".to_owned(),
        message => bounded(message.to_owned()),
    };
    ApiError { status, kind, message, code: None, param: None }
}

fn bounded(mut message: String) -> String {
    if let Some((at, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(at);
    }
    message
}

/// For a client of Anthropic's API.
pub(crate) fn status(error: &ApiError) -> u16 {
    match error.status {
        503 => 529,
        // Bedrock's, of a model that broke: SDKs try again after a 502, not after a 424.
        424 => 502,
        // Not an error's: the client is to see that something went wrong.
        status if !(400..=599).contains(&status) => 500,
        status => status,
    }
}

fn kind(error: &ApiError) -> &'static str {
    if let Some(known) = KINDS.iter().find(|known| known.1 == error.kind) {
        return known.1;
    }
    match status(error) {
        408 => "timeout_error",
        status => match KINDS.iter().find(|known| known.0 == status) {
            Some(known) => known.1,
            None if status < 500 => "invalid_request_error",
            None => "api_error",
        },
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    r#type: &'static str,
    message: &'a str,
}

pub(crate) fn encode(error: &ApiError) -> Vec<u8> {
    let mut message = Cow::Borrowed(error.message.as_str());
    if too_long::is_it(error) {
        message = Cow::Owned(too_long::in_anthropics_words(&message));
    }
    let inner = Inner { r#type: kind(error), message: &message };
    // Strings always serialize; the fallback keeps the shape all the same.
    serde_json::to_vec(&Envelope { r#type: "error", error: inner })
        .unwrap_or_else(|_| br#"{"type":"error","error":{"type":"api_error","message":""}}"#.to_vec())
}

/// The same as one event of a stream: the SDKs raise it.
pub(crate) fn encode_event(error: &ApiError) -> Vec<u8> {
    let mut event = b"event: error\ndata: ".to_vec();
    event.extend_from_slice(&encode(error));
    event.extend_from_slice(b"\n\n");
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_backends() {
        for (status, header, body, kind, message) in [
            (
                429,
                "",
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_1"}"#,
                "rate_limit_error",
                "slow down",
            ),
            (400, "ValidationException:http://x/", r#"{"message":"bad"}"#, "ValidationException", "bad"),
            (502, "", "<html>key=secret</html>", "", "the provider answered with status 502 and no message"),
            (500, "", "", "", "the provider answered with status 500 and no message"),
            (500, "", r#"{"error":"x"}"#, "", "the provider answered with status 500 and no message"),
            (500, "", "[1]", "", "the provider answered with status 500 and no message"),
        ] {
            let error = decode(status, header, body.as_bytes());
            assert_eq!((error.status, error.kind.as_str(), error.message.as_str()), (status, kind, message));
        }
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(5000));
        assert_eq!(decode(400, "", long.as_bytes()).message.chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn errors_for_clients() {
        let of = |status: u16, kind: &str| ApiError {
            status,
            kind: kind.into(),
            message: "m\"".into(),
            code: None,
            param: None,
        };
        for (given, kind, expected, word) in [
            (503, "", 529, "overloaded_error"),
            (529, "overloaded_error", 529, "overloaded_error"),
            (429, "ThrottlingException", 429, "rate_limit_error"),
            (400, "not_found_error", 400, "not_found_error"),
            (422, "", 422, "invalid_request_error"),
            (408, "", 408, "timeout_error"),
            (502, "server_error", 502, "api_error"),
            (424, "ModelErrorException", 502, "api_error"),
            (413, "", 413, "request_too_large"),
            (200, "", 500, "api_error"),
        ] {
            let error = of(given, kind);
            assert_eq!(status(&error), expected);
            let text = String::from_utf8(encode(&error)).unwrap();
            assert_eq!(text, format!(r#"{{"type":"error","error":{{"type":"{word}","message":"m\""}}}}"#));
        }
        let long = ApiError { code: Some("context_length_exceeded".into()), ..of(400, "") };
        assert!(String::from_utf8(encode(&long)).unwrap().contains(r#""message":"prompt is too long: m"#));
        let event = String::from_utf8(encode_event(&of(500, ""))).unwrap();
        assert!(event.starts_with("event: error\ndata: {") && event.ends_with("}\n\n"));
    }
}
