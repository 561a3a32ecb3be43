//! The `stream_options` of a request: where the wish for usage stands, or could be put.

use std::{fmt, ops::Range};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::borrowed::Borrowed;

/// `stream_options` as found; ranges and places are of the whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamOptions {
    Null(Range<usize>),
    /// `include_usage` is there, with another value than true.
    Off(Range<usize>),
    /// An object without `include_usage`: the place after its brace, and whether it is empty.
    Without(usize, bool),
    On,
}

/// `None` unless this is an object that names `include_usage` at most once. `offset`: where it stands in the body.
pub(crate) fn decode(raw: &str, offset: usize) -> Option<StreamOptions> {
    #[derive(Default)]
    struct Options {
        usage: Option<(Range<usize>, bool)>,
        times: usize,
        members: usize,
    }
    struct OptionsVisitor<'r>(&'r str);
    impl<'de> Visitor<'de> for OptionsVisitor<'de> {
        type Value = Options;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Options, A::Error> {
            let mut options = Options::default();
            while let Some(Borrowed(key)) = entries.next_key()? {
                options.members += 1;
                let value: &RawValue = entries.next_value()?;
                if key == "include_usage" {
                    let start = (value.get().as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
                    options.usage = Some((start..start + value.get().len(), value.get() == "true"));
                    options.times += 1;
                }
            }
            Ok(options)
        }
    }
    let options = serde_json::Deserializer::from_str(raw).deserialize_any(OptionsVisitor(raw)).ok()?;
    match options.usage {
        _ if options.times > 1 => None,
        Some((_, true)) => Some(StreamOptions::On),
        Some((range, false)) => Some(StreamOptions::Off(range.start + offset..range.end + offset)),
        None => Some(StreamOptions::Without(offset + 1, options.members == 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape() {
        assert_eq!(decode("{}", 10), Some(StreamOptions::Without(11, true)));
        assert_eq!(decode(r#"{"x":1}"#, 10), Some(StreamOptions::Without(11, false)));
        assert_eq!(decode(r#"{"include_usage":false}"#, 10), Some(StreamOptions::Off(27..32)));
        assert_eq!(decode(r#"{"x":{},"include_usage":true}"#, 10), Some(StreamOptions::On));
        assert_eq!(decode(r#"{"include_usage":true,"include_usage":true}"#, 10), None);
        assert_eq!(decode("[]", 10), None);
        assert_eq!(decode("7", 10), None);
    }
}
