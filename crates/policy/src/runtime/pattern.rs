//! Regular expressions of manifests. RE2's language without its oddities: linear time, no look-around, no back-references.

use std::fmt;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// Of the text of a pattern (Envoy Gateway's own limit for a value).
const PATTERN_MAX_BYTES: usize = 1024;
/// Of a compiled pattern. `\w{1,500}` alone can take megabytes.
const COMPILED_MAX_BYTES: usize = 256 << 10;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// A pattern that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{problem}; wanted: an RE2 pattern of at most {PATTERN_MAX_BYTES} bytes that matches the whole value"
)]
pub struct PatternError {
    problem: String,
}

impl Pattern {
    /// A pattern that matches the whole value, as Envoy's `safe_regex` does.
    ///
    /// # Errors
    /// Not in RE2's language, longer than 1,024 bytes, or too large once compiled.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        // By itself first, so that `a)|(b` cannot close the group around it.
        let anywhere = Self::anywhere(source)?;
        let regex = compile(&format!(r"\A(?:{source})\z"))?;
        Ok(Self { regex, ..anywhere })
    }

    /// A pattern that matches some part of the value, as CEL's `matches` does.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(super) fn anywhere(source: &str) -> Result<Self, PatternError> {
        if source.len() > PATTERN_MAX_BYTES {
            return Err(PatternError { problem: format!("a pattern of {} bytes", source.len()) });
        }
        Ok(Self { source: source.to_owned(), regex: compile(source)? })
    }

    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }
}

fn compile(source: &str) -> Result<Regex, PatternError> {
    let built =
        RegexBuilder::new(source).size_limit(COMPILED_MAX_BYTES).dfa_size_limit(COMPILED_MAX_BYTES).build();
    built.map_err(|error| {
        // The library draws an arrow over several lines; its last line says what is wrong.
        let text = error.to_string();
        let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        PatternError { problem }
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}
