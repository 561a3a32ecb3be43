//! Changes to top-level fields of a request body that a route asks for. Only of fields that cost no tokens: what was
//! measured is what is sent.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::provider::fields::WITHOUT_TOKENS;

/// Whether a field may be set or removed.
pub(crate) fn is_allowed(field: &str) -> bool {
    WITHOUT_TOKENS.contains(&field)
}

/// The body with fields removed and set; the same bytes if nothing is to be done, or if the body is no object.
/// `set`: names and JSON.
pub(crate) fn apply<'a>(
    body: Bytes,
    remove: &[String],
    set: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Bytes {
    if remove.is_empty() && set.len() == 0 {
        return body;
    }
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&body) else { return body };
    for name in remove {
        // Keeps the order of the others.
        fields.shift_remove(name);
    }
    for (name, value) in set {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        fields.insert(name.to_owned(), value);
    }
    serde_json::to_vec(&fields).map_or(body, Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed_and_set_in_place() {
        let body = Bytes::from_static(br#"{"model":"m", "user":"u","seed":1,"x":[1.50]}"#);
        let same = apply(body.clone(), &[], [].into_iter());
        assert_eq!(same.as_ptr(), body.as_ptr());
        let set = [("seed", "7"), ("service_tier", "\"flex\""), ("store", "oops")];
        let changed = apply(body, &["user".to_owned(), "none".to_owned()], set.into_iter());
        assert_eq!(
            changed,
            br#"{"model":"m","seed":7,"x":[1.5],"service_tier":"flex","store":"oops"}"#.as_slice()
        );
    }

    #[test]
    fn what_counts_is_left_alone() {
        for field in ["model", "messages", "max_tokens", "n", "stream", "tools", "documents"] {
            assert!(!is_allowed(field), "{field}");
        }
        assert!(is_allowed("service_tier"));
    }
}
