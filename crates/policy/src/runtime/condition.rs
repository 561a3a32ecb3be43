//! Conditions: which requests a budget applies to. `Distinct` is no condition but a part of the subject.

use std::borrow::Cow;
use std::fmt;

use super::{Cidr, MODEL_HEADER, Pattern, RequestView};

/// All of these must hold; none: every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub conditions: Vec<Condition>,
}

/// One condition. A value that is missing matches nothing, and so everything where `invert` is set: leaving a header
/// out is no way around a rule for "all but".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Text {
        attribute: Attribute,
        value: TextMatch,
        invert: bool,
    },
    /// Any of these.
    Methods(Vec<MethodMatch>),
    Path {
        value: PathMatch,
        invert: bool,
    },
    /// The client's address lies in the prefix.
    Source {
        within: Cidr,
        invert: bool,
    },
}

/// A text of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// The name in lower case. `x-ai-eg-model` is the effective model.
    Header(String),
    /// The first parameter of that name, percent-decoded.
    Query(String),
    Tenant,
    Team,
    User,
    /// The id of the API key.
    Key,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    Exact(String),
    Pattern(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodMatch {
    /// In upper case.
    pub method: String,
    pub invert: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments: `/v1` matches `/v1` and `/v1/chat`, not `/v10`.
    Prefix(String),
    Pattern(Pattern),
}

impl Selector {
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(request))
    }

    /// The first condition that does not hold; for explanations.
    pub fn failing(&self, request: &RequestView<'_>) -> Option<&Condition> {
        self.conditions.iter().find(|condition| !condition.holds(request))
    }
}

impl Condition {
    pub fn holds(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Text { attribute, value, invert } => {
                attribute.of(request).is_some_and(|found| value.matches(&found)) != *invert
            }
            Self::Methods(any) => any.iter().any(|one| (one.method == request.method) != one.invert),
            Self::Path { value, invert } => value.matches(request.path) != *invert,
            Self::Source { within, invert } => {
                request.source.is_some_and(|address| within.contains(address)) != *invert
            }
        }
    }
}

impl Attribute {
    /// The value in a request. `None`: missing.
    pub fn of<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Header(name) => header(request, name),
            Self::Query(name) => query(request.query?, name),
            Self::Tenant => Some(Cow::Borrowed(&request.identity.tenant)),
            Self::Team => request.identity.team.as_deref().map(Cow::Borrowed),
            Self::User => request.identity.user.as_deref().map(Cow::Borrowed),
            Self::Key => request.identity.key.as_deref().map(Cow::Borrowed),
        }
    }
}

/// A header as selectors and subjects see it.
pub(super) fn header<'a>(request: &RequestView<'a>, name: &str) -> Option<Cow<'a, str>> {
    if name == MODEL_HEADER { Some(Cow::Borrowed(request.model)) } else { request.headers.get(name) }
}

/// The first parameter of a query by its name. Both are percent-decoded; a `+` stays a `+`, as in Envoy.
pub(super) fn query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value))
}

/// Percent-decoded. An escape that is none stays as it is; bytes that are no UTF-8 become U+FFFD.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = (*first == b'%').then(|| digit(0).zip(digit(1))).flatten();
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

impl TextMatch {
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

impl PathMatch {
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(prefix) => {
                let rest = path.strip_prefix(prefix.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }
}

/// `header x-team-id = "red"`, `user matches "bot-.*"`, `not path under /v1`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |invert: &bool| if *invert { "not " } else { "" };
        match self {
            Self::Text { attribute, value, invert } => write!(f, "{}{attribute} {value}", not(invert)),
            Self::Methods(any) => {
                let names: Vec<String> =
                    any.iter().map(|one| format!("{}{}", not(&one.invert), one.method)).collect();
                write!(f, "method {}", names.join(" or "))
            }
            Self::Path { value, invert } => match value {
                PathMatch::Exact(path) => write!(f, "{}path = {path:?}", not(invert)),
                PathMatch::Prefix(prefix) => write!(f, "{}path under {prefix}", not(invert)),
                PathMatch::Pattern(pattern) => {
                    write!(f, "{}path matches {:?}", not(invert), pattern.as_str())
                }
            },
            Self::Source { within, invert } => write!(f, "{}source in {within}", not(invert)),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Tenant => f.write_str("tenant"),
            Self::Team => f.write_str("team"),
            Self::User => f.write_str("user"),
            Self::Key => f.write_str("key"),
        }
    }
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {value:?}"),
            Self::Pattern(pattern) => write!(f, "matches {:?}", pattern.as_str()),
        }
    }
}
