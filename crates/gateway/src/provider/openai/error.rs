//! Errors: read from OpenAI, Azure OpenAI and compatible servers in whatever shape they come, written in OpenAI's own.

use serde_json::Value;

use crate::provider::{
    Dialect,
    error_body::{self, ErrorWords},
    reply::ApiError,
    too_long,
};

/// Longer messages are cut: they go into a client's answer.
const MESSAGE_CHARS_MAX: usize = 1000;

/// The words that OpenAI's own errors use.
const KINDS: &[&str] = &[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "insufficient_quota",
    "tokens",
    "requests",
    "server_error",
];

/// Whatever the backend answered with that status. `_kind` is Bedrock's.
pub(crate) fn decode(status: u16, _kind: &str, body: &[u8]) -> ApiError {
    let mut error = match serde_json::from_slice::<Value>(body) {
        // Gemini puts it into a list.
        Ok(Value::Array(items)) => items.first().and_then(of_json),
        Ok(value) => of_json(&value),
        Err(_) => of_text(body),
    };
    let error = error.take().unwrap_or_default();
    let message = match error.message.trim() {
        "" => format!("the provider answered with status {status} and without a reason"),
        message => shown(message),
    };
    ApiError { status, kind: error.kind, message, code: error.code, param: error.param }
}

/// An error inside a stream: its status is what its code says.
pub(crate) fn decode_inside(data: &[u8]) -> ApiError {
    let error = decode(502, "", data);
    let code = error.code.as_deref().unwrap_or_default();
    let status = match code.parse() {
        Ok(status @ 400..=599) => status,
        _ => [code, &error.kind].into_iter().find_map(status_of).unwrap_or(502),
    };
    ApiError { status, ..error }
}

fn status_of(word: &str) -> Option<u16> {
    let word = word.to_ascii_lowercase();
    Some(match word.as_str() {
        "rate_limit_exceeded" | "rate_limit_error" | "insufficient_quota" | "too_many_requests" => 429,
        "invalid_request_error" | "badrequesterror" | "context_length_exceeded" | "content_filter" => 400,
        "authentication_error" | "invalid_api_key" => 401,
        "permission_error" => 403,
        "not_found_error" | "notfounderror" | "model_not_found" => 404,
        "overloaded_error" | "overloaded" | "service_unavailable" => 503,
        "timeout" | "timeout_error" => 504,
        _ => return None,
    })
}

#[derive(Default)]
struct Found {
    message: String,
    kind: String,
    code: Option<String>,
    param: Option<String>,
}

fn of_json(value: &Value) -> Option<Found> {
    match value.get("error") {
        Some(Value::String(message)) => {
            // `{"error": "Not Found", "message": "…"}` says more in the second.
            let message = word(value, "message").unwrap_or_else(|| message.clone());
            return Some(Found { message, ..Found::default() });
        }
        Some(error @ Value::Object(_)) => return Some(of_members(error)),
        _ => {}
    }
    if let Some(detail) = value.get("detail").filter(|_| word(value, "message").is_none()) {
        return Some(of_detail(detail));
    }
    value.is_object().then(|| of_members(value))
}

fn of_members(error: &Value) -> Found {
    Found {
        message: word(error, "message").unwrap_or_default(),
        kind: word(error, "type").unwrap_or_default(),
        code: word(error, "code").or_else(|| word(error, "status")).or_else(|| word(error, "statusCode")),
        param: word(error, "param"),
    }
}

/// FastAPI's: a string, or a list of `{"loc", "msg"}`.
fn of_detail(detail: &Value) -> Found {
    let Some(first) = detail.as_array().and_then(|items| items.first()) else {
        let message = match detail {
            Value::String(text) => text.clone(),
            other => word(other, "message").unwrap_or_default(),
        };
        return Found { message, ..Found::default() };
    };
    let path = first.get("loc").and_then(Value::as_array).map(|path| {
        let steps = path.iter().filter(|step| *step != "body");
        steps
            .map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(".")
    });
    Found {
        message: word(first, "msg").unwrap_or_default(),
        param: path.filter(|path| !path.is_empty()),
        ..Found::default()
    }
}

/// A string or a number that says something.
fn word(value: &Value, name: &str) -> Option<String> {
    match value.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Plain text is shown, the pages of proxies are not.
fn of_text(body: &[u8]) -> Option<Found> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let readable = !text.starts_with(['<', '{', '[']) && !text.contains(['\0', '\u{1b}']);
    readable.then(|| Found { message: text.to_owned(), ..Found::default() })
}

/// Bounded, on one line, and without anything that looks like a key: the key is the gateway's, not the client's.
fn shown(message: &str) -> String {
    let secret = |word: &str| {
        let word = word.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let key = ["sk-", "sk_", "gsk_", "xai-", "AIza", "eyJ"].iter().any(|start| word.starts_with(start));
        key && word.len() > 8
    };
    let mut hide = false;
    let words = message.split_whitespace().map(|word| {
        let hidden = hide || secret(word);
        hide = word.eq_ignore_ascii_case("bearer");
        if hidden { "[key]" } else { word }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What a client of OpenAI's dialect gets: 529 is Anthropic's alone.
pub(crate) fn status(error: &ApiError) -> u16 {
    match error.status {
        529 => 503,
        // Bedrock's, of a model that broke: SDKs try again after a 502, not after a 424.
        424 => 502,
        status @ 400..=599 => status,
        _ => 502,
    }
}

pub(crate) fn encode(error: &ApiError) -> Vec<u8> {
    error_body::encode(Dialect::OpenAI, &error_words(error))
}

/// As the last event of a stream: the SDKs raise it.
pub(crate) fn encode_event(error: &ApiError) -> Vec<u8> {
    error_body::encode_event(Dialect::OpenAI, &error_words(error))
}

fn error_words(error: &ApiError) -> ErrorWords<'_> {
    let (kind, code) = words(error);
    ErrorWords { status: status(error), message: &error.message, kind, param: error.param.as_deref(), code }
}

/// `type` in OpenAI's words; another provider's own word stands in `code` if nothing else does.
fn words(error: &ApiError) -> (&str, Option<&str>) {
    let kind = if KINDS.contains(&error.kind.as_str()) {
        error.kind.as_str()
    } else {
        match status(error) {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    };
    let other = Some(error.kind.as_str()).filter(|word| !word.is_empty() && *word != kind);
    let code = if too_long::is_it(error) { Some(too_long::CODE) } else { error.code.as_deref() };
    (kind, code.or(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_shape() {
        for (body, message, kind, code, param) in [
            (
                r#"{"error":{"code":"unsupported_parameter","message":"Use 'max_completion_tokens'.","param":"max_tokens","type":"invalid_request_error"}}"#,
                "Use 'max_completion_tokens'.",
                "invalid_request_error",
                Some("unsupported_parameter"),
                Some("max_tokens"),
            ),
            (
                r#"{"error":{"code":"429","message":"Requests have exceeded the rate limit.","innererror":{"code":"x"}}}"#,
                "Requests have exceeded the rate limit.",
                "",
                Some("429"),
                None,
            ),
            (r#"{"statusCode":401,"message":"Access denied"}"#, "Access denied", "", Some("401"), None),
            (r#"{"error":"model 'x' not found"}"#, "model 'x' not found", "", None, None),
            (r#"{"error":"Not Found","message":"no such path"}"#, "no such path", "", None, None),
            (
                r#"{"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}"#,
                "too long",
                "BadRequestError",
                Some("400"),
                None,
            ),
            (r#"{"detail":"Not Found"}"#, "Not Found", "", None, None),
            (r#"{"message":"m","detail":{"x":1}}"#, "m", "", None, None),
            (
                r#"{"error":{"message":"filtered","type":null,"param":"prompt","code":"content_filter","status":400}}"#,
                "filtered",
                "",
                Some("content_filter"),
                Some("prompt"),
            ),
            (
                r#"{"detail":[{"loc":["body","messages",0,"role"],"msg":"field required","type":"value_error"}]}"#,
                "field required",
                "",
                None,
                Some("messages.0.role"),
            ),
            (
                r#"[{"error":{"code":400,"message":"bad key","status":"INVALID"}}]"#,
                "bad key",
                "",
                Some("400"),
                None,
            ),
            ("upstream connect error", "upstream connect error", "", None, None),
        ] {
            let error = decode(400, "", body.as_bytes());
            let found =
                (error.message.as_str(), error.kind.as_str(), error.code.as_deref(), error.param.as_deref());
            assert_eq!(found, (message, kind, code, param), "{body}");
        }
        for body in ["", "<html><h1>502</h1></html>", "{\"error\":", "[]", "null", "{}", "\u{0}\u{1}"] {
            let error = decode(502, "", body.as_bytes());
            assert_eq!(error.message, "the provider answered with status 502 and without a reason", "{body}");
        }
    }

    #[test]
    fn messages_are_bounded_and_hold_no_key() {
        let error = decode(
            401,
            "",
            br#"{"error":{"message":"Incorrect API key provided: sk-proj-abcdef123. Header: Bearer abc"}}"#,
        );
        assert_eq!(error.message, "Incorrect API key provided: [key] Header: Bearer [key]");
        let long = decode(500, "", "é".repeat(5000).as_bytes());
        assert_eq!(long.message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn errors_inside_a_stream_get_a_status() {
        for (data, expected) in [
            (r#"{"error":{"message":"x","code":502}}"#, 502),
            (r#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#, 429),
            (r#"{"error":{"message":"x","type":"server_error"}}"#, 502),
            (r#"{"error":{"message":"x","type":"overloaded_error"}}"#, 503),
            (r#"{"object":"error","message":"x","type":"BadRequestError","code":400}"#, 400),
            (r#"{"error":"boom"}"#, 502),
        ] {
            assert_eq!(decode_inside(data.as_bytes()).status, expected, "{data}");
        }
    }

    #[test]
    fn other_providers_errors_in_openais_words() {
        for (given, kind, sent, expected) in [
            (
                529,
                "overloaded_error",
                503,
                r#"{"error":{"message":"m","type":"server_error","param":null,"code":"overloaded_error"}}"#,
            ),
            (
                429,
                "ThrottlingException",
                429,
                r#"{"error":{"message":"m","type":"rate_limit_error","param":null,"code":"ThrottlingException"}}"#,
            ),
            (
                400,
                "invalid_request_error",
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","param":null,"code":null}}"#,
            ),
            (200, "", 502, r#"{"error":{"message":"m","type":"server_error","param":null,"code":null}}"#),
            (
                424,
                "ModelErrorException",
                502,
                r#"{"error":{"message":"m","type":"server_error","param":null,"code":"ModelErrorException"}}"#,
            ),
        ] {
            let error = ApiError {
                status: given,
                kind: kind.to_owned(),
                message: "m".to_owned(),
                code: None,
                param: None,
            };
            assert_eq!(
                (status(&error), String::from_utf8(encode(&error)).unwrap().as_str()),
                (sent, expected)
            );
            let event = String::from_utf8(encode_event(&error)).unwrap();
            assert_eq!(event, format!("data: {expected}\n\n"));
        }
        let long = crate::provider::anthropic::error::decode(
            400,
            "",
            br#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
        );
        assert_eq!(
            String::from_utf8(encode(&long)).unwrap(),
            r#"{"error":{"message":"prompt is too long: 9 tokens > 8 maximum","type":"invalid_request_error","param":null,"code":"context_length_exceeded"}}"#
        );
    }

    #[test]
    fn round_trip() {
        let error = ApiError {
            status: 400,
            kind: "invalid_request_error".to_owned(),
            message: "no".to_owned(),
            code: Some("c".to_owned()),
            param: Some("p".to_owned()),
        };
        assert_eq!(decode(400, "", &encode(&error)), error);
    }

    proptest! {
        #[test]
        fn never_fails(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!decode(500, "", &body).message.is_empty());
        }
    }
}
