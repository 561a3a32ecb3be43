//! What can be wrong with manifests: each mistake with its place, several at once.

use std::fmt;

use thiserror::Error;

/// More are counted, not kept: a file of nothing but mistakes should not fill the screen.
const SHOWN_MAX: usize = 20;
/// Bytes of a message that are shown: it may quote a file that is nothing but one long word.
const MESSAGE_MAX_BYTES: usize = 400;

/// One mistake. Nothing of the set that holds it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.shown())]
pub struct PolicyError {
    /// The name of the source: a file, or `-`.
    pub file: String,
    /// From 1. 0: the mistake is about the file or the set as a whole.
    pub line: usize,
    /// From 1. 0: the mistake is about the whole document that begins at `line`.
    pub column: usize,
    /// `spec.rateLimit.global.rules[0].limit.unti`; empty: the whole document.
    pub path: String,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// The known name that was probably meant.
    pub nearest: Option<String>,
}

/// One or more mistakes, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PolicyErrors {
    /// At least one.
    pub errors: Vec<PolicyError>,
    /// Further ones that were not kept.
    pub more: usize,
}

impl PolicyError {
    pub(crate) fn new(file: &str, line: usize, column: usize, path: &str, message: &str) -> Self {
        Self {
            file: presentable(file),
            line,
            column,
            path: presentable(path),
            message: presentable(message),
            nearest: None,
        }
    }

    pub(crate) fn meant(mut self, nearest: Option<&str>) -> Self {
        self.nearest = nearest.map(str::to_owned);
        self
    }

    /// `policy.yaml, line 12, column 5, spec.window: unknown value `Dya` (did you mean Day?)`
    fn shown(&self) -> String {
        let mut text = self.file.clone();
        if self.line > 0 {
            let from = if self.column > 0 { "line" } else { "from line" };
            text.push_str(&format!(", {from} {}", self.line));
        }
        if self.column > 0 {
            text.push_str(&format!(", column {}", self.column));
        }
        if !self.path.is_empty() {
            text.push_str(&format!(", {}", self.path));
        }
        text.push_str(&format!(": {}", self.message));
        if let Some(nearest) = &self.nearest {
            text.push_str(&format!(" (did you mean {nearest}?)"));
        }
        text
    }
}

impl PolicyErrors {
    /// `None` where there is none.
    pub(crate) fn from_list(mut errors: Vec<PolicyError>) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        let more = errors.len().saturating_sub(SHOWN_MAX);
        errors.truncate(SHOWN_MAX);
        Some(Self { errors, more })
    }
}

/// One mistake a line.
impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more mistakes", self.more)?;
        }
        Ok(())
    }
}

impl From<PolicyError> for PolicyErrors {
    fn from(error: PolicyError) -> Self {
        Self { errors: vec![error], more: 0 }
    }
}

/// One line of printable text, cut where it gets long.
pub(crate) fn presentable(message: &str) -> String {
    let mut text = String::new();
    for c in message.chars() {
        if text.len() >= MESSAGE_MAX_BYTES {
            text.push('…');
            break;
        }
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}
