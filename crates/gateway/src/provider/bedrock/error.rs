//! Bedrock's errors: answers with a status, and exceptions inside a stream.

use serde_json::Value;

use crate::provider::{reply::ApiError, too_long};

const MESSAGE_CHARS_MAX: usize = 1_000;

/// The status of each error that the API names; inside a stream there is no other.
fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "validation" | "servicequotaexceeded" => 400,
        "unrecognizedclient"
        | "invalidsignature"
        | "incompletesignature"
        | "missingauthenticationtoken"
        | "expiredtoken"
        | "invalidclienttokenid"
        | "accessdenied" => 403,
        "resourcenotfound" => 404,
        "modeltimeout" => 408,
        "conflict" => 409,
        "modelerror" | "modelstreamerror" => 424,
        "throttling" | "modelnotready" | "toomanyrequests" => 429,
        "internalserver" | "internalfailure" => 500,
        "serviceunavailable" => 503,
        _ => return None,
    })
}

/// An answer of a good status is one all the same.
pub(crate) fn is_error(body: &[u8]) -> bool {
    let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    ["__type", "message", "Message"].iter().any(|name| json.get(name).is_some_and(Value::is_string))
}

/// `kind`: the header `x-amzn-errortype`, or "".
pub(crate) fn decode(status: u16, kind: &str, body: &[u8]) -> ApiError {
    let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |names: &[&str]| names.iter().find_map(|name| json.get(name)?.as_str()).unwrap_or("");
    let kind = if kind.is_empty() { text(&["__type", "code"]) } else { kind };
    // `ThrottlingException:http://…` in the header, `com.amazon.coral.service#ThrottlingException` in the body.
    let kind = kind.split(':').next().unwrap_or("");
    let kind: String = kind.rsplit('#').next().unwrap_or("").trim().chars().take(100).collect();
    let word = kind.to_ascii_lowercase();
    let word = word.strip_suffix("exception").or(word.strip_suffix("error")).unwrap_or(&word);
    // What is no error's status cannot be passed on as one.
    let status = if (400..600).contains(&status) { status } else { status_of(word).unwrap_or(502) };

    let said = text(&["message", "Message", "originalMessage"]).trim();
    let message = if is_about_credentials(word, said) {
        format!("AWS refused the gateway's credentials ({kind}); its operator has to look")
    } else if said.is_empty() {
        let named = if kind.is_empty() { String::new() } else { format!(" ({kind})") };
        format!("AWS Bedrock answered {status}{named} without a message")
    } else {
        said.chars().take(MESSAGE_CHARS_MAX).collect()
    };
    let mut error = ApiError { status, kind, message, code: None, param: None };
    error.code = too_long::is_it(&error).then(|| too_long::CODE.to_owned());
    error
}

/// Such messages quote what was signed, key ids and principals: nothing for the client.
fn is_about_credentials(word: &str, message: &str) -> bool {
    match word {
        "unrecognizedclient"
        | "invalidsignature"
        | "incompletesignature"
        | "missingauthenticationtoken"
        | "expiredtoken"
        | "invalidclienttokenid" => true,
        "accessdenied" => message.contains("arn:") || message.contains("Credential"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_statuses_and_messages() {
        for (status, kind, body, expected) in [
            (
                429,
                "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
                r#"{"message":"Too many requests, please wait before trying again."}"#,
                (429, "ThrottlingException", "Too many requests, please wait before trying again.", None),
            ),
            (
                400,
                "",
                r#"{"__type":"com.amazon.coral.validate#ValidationException","Message":"Input is too long for requested model."}"#,
                (
                    400,
                    "ValidationException",
                    "Input is too long for requested model.",
                    Some("context_length_exceeded"),
                ),
            ),
            (
                403,
                "AccessDeniedException",
                r#"{"message":"User: arn:aws:iam::123456789012:user/gw is not authorized"}"#,
                (
                    403,
                    "AccessDeniedException",
                    "AWS refused the gateway's credentials (AccessDeniedException); its operator has to look",
                    None,
                ),
            ),
            (
                403,
                "AccessDeniedException",
                r#"{"message":"You don't have access to the model with the specified model ID."}"#,
                (
                    403,
                    "AccessDeniedException",
                    "You don't have access to the model with the specified model ID.",
                    None,
                ),
            ),
            (
                403,
                "InvalidSignatureException",
                r#"{"message":"The Canonical String for this request should have been ... AKIAXXXX"}"#,
                (
                    403,
                    "InvalidSignatureException",
                    "AWS refused the gateway's credentials (InvalidSignatureException); its operator has to look",
                    None,
                ),
            ),
            (
                502,
                "",
                "<html>bad gateway</html>",
                (502, "", "AWS Bedrock answered 502 without a message", None),
            ),
            (
                503,
                "ServiceUnavailableException",
                "",
                (
                    503,
                    "ServiceUnavailableException",
                    "AWS Bedrock answered 503 (ServiceUnavailableException) without a message",
                    None,
                ),
            ),
            // Inside a stream.
            (
                200,
                "modelStreamErrorException",
                r#"{"message":"m","originalStatusCode":500}"#,
                (424, "modelStreamErrorException", "m", None),
            ),
            (
                0,
                "serviceUnavailableException",
                r#"{"message":"m"}"#,
                (503, "serviceUnavailableException", "m", None),
            ),
            (
                200,
                "Unheard",
                "[]",
                (502, "Unheard", "AWS Bedrock answered 502 (Unheard) without a message", None),
            ),
        ] {
            let error = decode(status, kind, body.as_bytes());
            let seen = (error.status, error.kind.as_str(), error.message.as_str(), error.code.as_deref());
            assert_eq!(seen, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn never_fails(status in any::<u16>(), kind in any::<String>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let error = decode(status, &kind, &body);
            prop_assert!((400..600).contains(&error.status) && !error.message.is_empty());
            prop_assert!(error.message.chars().count() <= MESSAGE_CHARS_MAX && error.kind.chars().count() <= 100);
        }
    }
}
