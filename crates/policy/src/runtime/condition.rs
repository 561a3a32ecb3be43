//! Conditions: which requests a budget applies to. `Distinct` is no condition but a part of the subject.

use super::{Cidr, Pattern};

/// All of these must hold; none: every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub conditions: Vec<Condition>,
}

/// One condition. A value that is missing matches nothing, and so everything where `invert` is set.
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
