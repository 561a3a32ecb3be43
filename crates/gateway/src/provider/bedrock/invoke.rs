//! InvokeModel for Anthropic's models: their own bodies, in Bedrock's envelope.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::model;
use crate::provider::reply::Garbage;

/// The one that Bedrock knows.
const VERSION: &str = "bedrock-2023-05-31";

pub(crate) fn path(model: &str, stream: bool) -> String {
    model::path(model, if stream { "invoke-with-response-stream" } else { "invoke" })
}

/// A body for `/v1/messages` as InvokeModel takes it: the path names the model and whether it streams, the body the
/// version and, in place of a header, the betas. All else stays as it is.
pub(crate) fn body(messages: &[u8], betas: &[&str]) -> Result<Vec<u8>, Garbage> {
    let garbage = |error: serde_json::Error| Garbage(format!("the request is no JSON object: {error}"));
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_slice(messages).map_err(garbage)?;
    members.remove("model");
    members.remove("stream");
    let version = to_raw_value(VERSION).map_err(garbage)?;
    members.insert("anthropic_version".to_owned(), &version);
    let named = to_raw_value(betas).map_err(garbage)?;
    if !betas.is_empty() {
        members.insert("anthropic_beta".to_owned(), &named);
    }
    serde_json::to_vec(&members).map_err(garbage)
}

#[derive(Deserialize)]
struct Chunk {
    bytes: String,
}

/// The JSON of Anthropic's event in a `chunk`.
pub(crate) fn unwrap(payload: &[u8]) -> Result<Vec<u8>, Garbage> {
    let garbage =
        |why: &dyn std::fmt::Display| Garbage(format!("the backend sent a chunk without an event: {why}"));
    let chunk: Chunk = serde_json::from_slice(payload).map_err(|error| garbage(&error))?;
    base64::engine::general_purpose::STANDARD.decode(chunk.bytes).map_err(|error| garbage(&error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_and_chunks() {
        let model = "us.anthropic.claude-opus-4-20250514-v1:0";
        assert_eq!(path(model, false), "/model/us.anthropic.claude-opus-4-20250514-v1%3A0/invoke");
        assert!(path(model, true).ends_with("%3A0/invoke-with-response-stream"));
        assert_eq!(unwrap(br#"{"bytes":"eyJ0eXBlIjoicGluZyJ9","p":"abcd"}"#).unwrap(), br#"{"type":"ping"}"#);
        for payload in ["", "{}", "[]", r#"{"bytes":7}"#, r#"{"bytes":"?"}"#] {
            assert!(unwrap(payload.as_bytes()).is_err(), "{payload}");
        }
    }

    #[test]
    fn bodies() {
        let given = r#"{"model":"m","stream":true,"max_tokens":9, "temperature":1.0,"messages":[{"role":"user","content":"é"}]}"#;
        assert_eq!(
            String::from_utf8(body(given.as_bytes(), &[]).unwrap()).unwrap(),
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"é"}],"temperature":1.0}"#
        );
        let with = String::from_utf8(body(b"{}", &["a-1", "b-2"]).unwrap()).unwrap();
        assert_eq!(with, r#"{"anthropic_beta":["a-1","b-2"],"anthropic_version":"bedrock-2023-05-31"}"#);
        assert!(body(b"[1]", &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (unwrap(&bytes), body(&bytes, &["a"]));
        }
    }
}
