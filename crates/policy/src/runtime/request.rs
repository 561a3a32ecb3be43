//! What the policy sees of a request. No HTTP types: whoever serves HTTP lends its own through [`HeaderSource`].

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::RouteMatch;

/// The header that selectors and routes use for the model. It stands for [`RequestView::model`], whatever the header of
/// the request says: the body's model wins.
pub const MODEL_HEADER: &str = "x-ai-eg-model";

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// In upper case, as HTTP has it.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What follows `?`, still percent-encoded.
    pub query: Option<&'a str>,
    /// The host that was asked for, with or without a port.
    pub host: Option<&'a str>,
    /// The client's address.
    pub source: Option<IpAddr>,
    /// The effective model: the body's, or the header's where the body has none.
    pub model: &'a str,
    pub headers: &'a dyn HeaderSource,
    pub identity: &'a Identity,
}

/// Looks headers up.
pub trait HeaderSource {
    /// The value of a header; `name` is in lower case. Several values of one name come joined with `,` (RFC 9110,
    /// section 5.3), as Envoy sees them. A value that is no UTF-8 counts as missing.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Names in lower case and their values; for tests and for `quorate explain`.
impl HeaderSource for [(String, String)] {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next()?;
        match values.next() {
            None => Some(Cow::Borrowed(first)),
            Some(second) => {
                let all: Vec<&str> = [first, second].into_iter().chain(values).collect();
                Some(Cow::Owned(all.join(",")))
            }
        }
    }
}

impl HeaderSource for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        HeaderSource::get(self.as_slice(), name)
    }
}

impl fmt::Debug for dyn HeaderSource + '_ {
    /// Nothing of the values: some are keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderSource")
    }
}

impl<'a> RequestView<'a> {
    /// As budgets see it: with the model that a route chooses in place of what was asked for.
    pub(crate) fn counted_on(&self, route: Option<&RouteMatch<'a>>) -> Self {
        let model = route.map_or(self.model, |found| found.counted_model(self.model));
        Self { model, ..*self }
    }
}

/// Who asks. Filled in by the gateway from headers, an API key or a JWT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub tenant: String,
    pub team: Option<String>,
    pub user: Option<String>,
    /// The id of the API key, never the key.
    pub key: Option<String>,
}
