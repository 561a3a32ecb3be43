//! Regular expressions of manifests, as RE2 understands them: linear time, no look-around, no back-references. `\Q…\E` and
//! `\C` are refused.

use std::fmt;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{Extractor, Literal};
use thiserror::Error;

/// Of the text of a pattern (Envoy Gateway's own limit for a value).
const PATTERN_MAX_BYTES: usize = 1024;
/// Of a compiled pattern. `\w{1,500}` alone can take megabytes.
const COMPILED_MAX_BYTES: usize = 256 << 10;

/// Ways in which a match can begin, beyond which they do not tell patterns apart.
const BEGINNINGS_MAX: usize = 16;

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
        let regex = compile(&format!(r"\A(?:{})\z", in_ascii(source)))?;
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
        Ok(Self { source: source.to_owned(), regex: compile(&in_ascii(source))? })
    }

    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// Texts with one of which every value that matches as a whole begins. `None`: not a few that say anything.
    pub(super) fn beginnings(&self) -> Option<Vec<String>> {
        let tree = regex_syntax::parse(&in_ascii(&self.source)).ok()?;
        let found = Extractor::new().limit_total(BEGINNINGS_MAX).extract(&tree);
        let found = found.literals().filter(|found| !found.is_empty())?;
        let text = |literal: &Literal| {
            let text = std::str::from_utf8(literal.as_bytes()).ok()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        let mut found: Vec<String> = found.iter().map(text).collect::<Option<_>>()?;
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// RE2's `\d`, `\s` and `\w` know ASCII only; the library's would take any alphabet's.
fn in_ascii(source: &str) -> String {
    let mut translated = String::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        match escaped {
            Some('d') => translated.push_str("[0-9]"),
            Some('D') => translated.push_str("[^0-9]"),
            Some('s') => translated.push_str(r"[\t\n\f\r ]"),
            Some('S') => translated.push_str(r"[^\t\n\f\r ]"),
            Some('w') => translated.push_str("[0-9A-Za-z_]"),
            Some('W') => translated.push_str("[^0-9A-Za-z_]"),
            Some('b') => translated.push_str(r"(?-u:\b)"),
            other => {
                translated.push(c);
                translated.extend(other);
            }
        }
    }
    translated
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
