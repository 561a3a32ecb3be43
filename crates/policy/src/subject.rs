//! The subject: the value that separates the counters of one budget.

/// Where a part of the subject comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectPart {
    /// The value of a request header; the name in lower case.
    Header(String),
    Model,
}

/// `header x-user-id`, `model`.
impl std::fmt::Display for SubjectPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Model => f.write_str("model"),
        }
    }
}

/// Joins the values with " + ". `+`, `%` and control characters inside a value are percent-encoded, so that no two
/// lists of values give the same subject. A missing value is the empty one: whoever leaves the header out shares it.
pub(crate) fn join(values: impl Iterator<Item = String>) -> String {
    values.map(|value| escape(&value)).collect::<Vec<_>>().join(" + ")
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if c == '+' || c == '%' || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}
