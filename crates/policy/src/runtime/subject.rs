//! The subject: the value that separates the accounts of one budget.

use std::borrow::Cow;
use std::fmt;

use super::condition::{header, query};
use super::{MatchError, RequestView, RouteMatch};

/// The most that a subject may have.
pub const SUBJECT_MAX_BYTES: usize = 512;

/// Where a part of the subject comes from. A missing value is the empty one: whoever leaves it out shares one account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectPart {
    /// The value of a request header; the name in lower case. `x-ai-eg-model` is the effective model.
    Header(String),
    /// The first query parameter of that name, percent-decoded.
    Query(String),
    Model,
    Tenant,
    Team,
    User,
    /// The id of the API key.
    Key,
    /// The client's address.
    Source,
    /// `namespace/name`.
    Route,
    /// `namespace/name` of the backend that the request goes to.
    Backend,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way<'a> {
    pub route: Option<&'a RouteMatch<'a>>,
    pub backend: Option<&'a str>,
}

impl SubjectPart {
    fn of<'a>(&self, request: &RequestView<'a>, way: Way<'a>) -> Cow<'a, str> {
        let value = match self {
            Self::Header(name) => header(request, name),
            Self::Query(name) => request.query.and_then(|text| query(text, name)),
            Self::Model => Some(Cow::Borrowed(request.model)),
            Self::Tenant => Some(Cow::Borrowed(request.identity.tenant.as_str())),
            Self::Team => request.identity.team.as_deref().map(Cow::Borrowed),
            Self::User => request.identity.user.as_deref().map(Cow::Borrowed),
            Self::Key => request.identity.key.as_deref().map(Cow::Borrowed),
            Self::Source => request.source.map(|address| Cow::Owned(address.to_canonical().to_string())),
            Self::Route => way.route.map(|found| Cow::Borrowed(found.route.name.as_str())),
            Self::Backend => way.backend.map(Cow::Borrowed),
        };
        value.unwrap_or_default()
    }
}

/// Joins the values with " + ". `+`, `%` and control characters inside a value are percent-encoded, so that no two
/// lists of values give the same subject.
pub(super) fn subject(
    budget: &str,
    parts: &[SubjectPart],
    request: &RequestView<'_>,
    way: Way<'_>,
) -> Result<String, MatchError> {
    let mut joined = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            joined.push_str(" + ");
        }
        push_escaped(&mut joined, &part.of(request, way));
    }
    if joined.len() > SUBJECT_MAX_BYTES {
        return Err(MatchError::SubjectTooLong { budget: budget.to_owned(), bytes: joined.len() });
    }
    Ok(joined)
}

pub(super) fn push_escaped(joined: &mut String, value: &str) {
    let special = |c: char| c == '+' || c == '%' || c.is_control();
    if !value.contains(special) {
        return joined.push_str(value);
    }
    for c in value.chars() {
        if special(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                joined.push_str(&format!("%{byte:02X}"));
            }
        } else {
            joined.push(c);
        }
    }
}

/// `header x-user-id`, `model`.
impl fmt::Display for SubjectPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Model => f.write_str("model"),
            Self::Tenant => f.write_str("tenant"),
            Self::Team => f.write_str("team"),
            Self::User => f.write_str("user"),
            Self::Key => f.write_str("key"),
            Self::Source => f.write_str("source"),
            Self::Route => f.write_str("route"),
            Self::Backend => f.write_str("backend"),
        }
    }
}
