//! InvokeModel for Anthropic's models: its path, and their own events in Bedrock's envelope. What bodies look like is in
//! Anthropic's dialect.

use base64::Engine as _;
use serde::Deserialize;

use super::model;
use crate::provider::reply::Garbage;

pub(crate) fn path(model: &str, stream: bool) -> String {
    model::path(model, if stream { "invoke-with-response-stream" } else { "invoke" })
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

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unwrap(&bytes);
        }
    }
}
