//! The input of a tool, as the dialects have it that want an object.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The text as it was, where it is an object. Models write broken JSON now and then, above all at the limit of tokens, and
/// OpenAI's clients send it back as it came: that is wrapped in the way that Anthropic's page on fine-grained tool
/// streaming advises. Nothing at all means no input.
pub(crate) fn object(text: &str) -> Cow<'_, RawValue> {
    let trimmed = text.trim();
    match serde_json::from_str::<&RawValue>(trimmed) {
        Ok(raw) if raw.get().starts_with('{') => Cow::Borrowed(raw),
        _ if trimmed.is_empty() => Cow::Owned(of("{}".to_owned())),
        _ => Cow::Owned(of(serde_json::json!({ "INVALID_JSON": text }).to_string())),
    }
}

/// Of text that is JSON.
fn of(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_objects() {
        for (input, expected) in [
            ("", "{}"),
            (" ", "{}"),
            (" {\"a\": 1.50} ", "{\"a\": 1.50}"),
            ("{\"a\":", "{\"INVALID_JSON\":\"{\\\"a\\\":\"}"),
            ("[1]", "{\"INVALID_JSON\":\"[1]\"}"),
            ("{} {}", "{\"INVALID_JSON\":\"{} {}\"}"),
        ] {
            assert_eq!(object(input).get(), expected, "{input}");
        }
    }
}
