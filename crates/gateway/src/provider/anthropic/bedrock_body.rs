//! A Messages body made into the body of Bedrock's InvokeModel, where model and streaming are in the path.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::error_body::BadRequest;

const VERSION: &str = "bedrock-2023-05-31";
const BETAS: &str = "anthropic_beta";

/// Without `model` and `stream`, with `anthropic_version`; all other members as they were, byte for byte. `betas`: of the
/// client's header, beside those that the body names itself.
pub(crate) fn bedrock_body(body: &[u8], betas: &[&str]) -> Result<Vec<u8>, BadRequest> {
    let no_object = |error| BadRequest {
        message: format!("the request body is not a JSON object: {error}"),
        param: None,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let members = deserializer.deserialize_map(Members).map_err(no_object)?;
    deserializer.end().map_err(no_object)?;
    let mut out = format!(r#"{{"anthropic_version":"{VERSION}""#);
    let mut named: Vec<String> = betas.iter().map(|name| (*name).to_owned()).collect();
    for (name, value) in members {
        if name == BETAS
            && !betas.is_empty()
            && let Ok(own) = serde_json::from_str::<Vec<String>>(value.get())
        {
            named.extend(own.into_iter().filter(|name| !betas.contains(&name.as_str())));
            continue;
        }
        if matches!(name.as_str(), "model" | "stream" | "anthropic_version") {
            continue;
        }
        out.push(',');
        out.push_str(&serde_json::Value::from(name).to_string());
        out.push(':');
        out.push_str(value.get());
    }
    if !named.is_empty() {
        out.push_str(&format!(r#","{BETAS}":{}"#, serde_json::Value::from(named)));
    }
    out.push('}');
    Ok(out.into_bytes())
}

/// The members of an object, in order.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_envelope_changes() {
        let body = br#" {"model":"m","max_tokens": 5, "stream":true,"messages":[ {"role":"user","content":"\u00e9 1.50"} ],"x\"y":1e3} "#;
        assert_eq!(
            String::from_utf8(bedrock_body(body, &[]).unwrap()).unwrap(),
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[ {"role":"user","content":"\u00e9 1.50"} ],"x\"y":1e3}"#
        );
        assert_eq!(
            bedrock_body(br#"{"anthropic_version":"old"}"#, &[]).unwrap(),
            br#"{"anthropic_version":"bedrock-2023-05-31"}"#
        );
        for (body, betas, expected) in [
            (r#"{"a":1}"#, &["x"][..], r#","a":1,"anthropic_beta":["x"]}"#),
            (r#"{"anthropic_beta":["y","x"],"a":1}"#, &["x"], r#","a":1,"anthropic_beta":["x","y"]}"#),
            (r#"{"anthropic_beta":[ "y" ]}"#, &[], r#","anthropic_beta":[ "y" ]}"#),
        ] {
            let body = String::from_utf8(bedrock_body(body.as_bytes(), betas).unwrap()).unwrap();
            assert!(body.ends_with(expected), "{body}");
        }
        for bad in ["", "[]", "{} x", "{\"a\":"] {
            assert!(bedrock_body(bad.as_bytes(), &["x"]).is_err(), "{bad}");
        }
    }
}
