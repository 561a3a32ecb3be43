//! The subject: the value that separates the accounts of one budget.

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
    /// `namespace/name` of the backend that is tried first.
    Backend,
}
