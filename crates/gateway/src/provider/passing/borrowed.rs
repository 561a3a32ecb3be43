//! Texts of a JSON body that stay where they are, unless escapes make other ones of them. A `Cow` alone is always copied
//! when it is read.

use std::borrow::Cow;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Borrowed<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_escapes_are_copied() {
        let read = |json: &'static str| serde_json::from_str::<Borrowed<'_>>(json).unwrap().0;
        assert!(matches!(read(r#""plain""#), Cow::Borrowed("plain")));
        assert!(matches!(read(r#""a\tb""#), Cow::Owned(text) if text == "a\tb"));
        assert!(serde_json::from_str::<Borrowed<'_>>("7").is_err());
        assert!(serde_json::from_str::<BTreeMap<String, Borrowed<'_>>>(r#"{"a":"b"}"#).is_ok());
    }
}
