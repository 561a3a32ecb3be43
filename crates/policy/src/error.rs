//! What can be wrong with a policy file, or with a request that meets it.

use thiserror::Error;

use crate::nearest::did_you_mean;

/// A policy file that was refused. Nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("policy file has {bytes} bytes, more than {max}; split the tenants over fewer budgets", max = crate::DOCUMENT_MAX_BYTES)]
    TooLong { bytes: usize },
    /// `place` is "document 2, line 7, column 3"; the message begins with the path of the field, such as "spec.limit".
    #[error("policy file, {place}: {message}{hint}", hint = hint(.nearest))]
    At { place: String, message: String, nearest: Option<String> },
}

/// A request that a policy cannot place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatchError {
    #[error("header {header} is missing: it names the tenant, and the policy has no default tenant")]
    NoTenant { header: String },
    #[error(
        "header {header} names a tenant of {bytes} bytes or with control characters; 1 to 128 bytes are allowed"
    )]
    BadTenant { header: String, bytes: usize },
    #[error(
        "the subject of budget {budget} has {bytes} bytes; at most 512 are allowed (shorten the headers it is made of)"
    )]
    SubjectTooLong { budget: String, bytes: usize },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// Bytes of a message that are shown: it may quote a file that is nothing but one long word.
const MESSAGE_MAX_BYTES: usize = 400;

impl PolicyError {
    /// `lines_before`: lines of the file before the document that the error counts from.
    pub(crate) fn yaml(document: usize, lines_before: usize, error: &serde_yaml_ng::Error) -> Self {
        let message = error.to_string();
        let (place, message) = match error.location() {
            Some(at) => (
                format!("document {document}, line {}, column {}", lines_before + at.line(), at.column()),
                // The library ends its message with the line inside the document; ours counts from the start of the file.
                message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message),
            ),
            None => (format!("document {document}, from line {}", lines_before + 1), message.as_str()),
        };
        Self::At { place, nearest: did_you_mean(message), message: presentable(message) }
    }

    /// About the document as a whole; `path` names the fields that do not fit together.
    pub(crate) fn field(document: usize, first_line: usize, path: &str, message: impl AsRef<str>) -> Self {
        let place = format!("document {document}, from line {first_line}, {path}");
        Self::At { place, message: presentable(message.as_ref()), nearest: None }
    }
}

/// One line of printable text, cut where it gets long.
fn presentable(message: &str) -> String {
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
