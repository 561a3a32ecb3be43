//! A request as it came: what identity, routes and budgets look at.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, Method, header};
use quorate_policy::runtime::{HeaderSource, RequestView};

use crate::identify::Who;

/// Everything of a request but its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) host: Option<String>,
    /// The other end of the connection: a proxy's address if there is one between.
    pub(crate) source: IpAddr,
    /// As the client sent them.
    pub(crate) headers: HeaderMap,
}

impl Asked {
    pub(crate) fn new(parts: http::request::Parts, source: IpAddr) -> Self {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(parts.uri.host()).map(str::to_owned);
        Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            host,
            source,
            headers: parts.headers,
        }
    }

    /// The request as the policy sees it: with the verified identity in place of what the headers claim.
    pub(crate) fn view<'a>(&'a self, model: &'a str, seen: &'a Seen<'a>) -> RequestView<'a> {
        RequestView {
            method: self.method.as_str(),
            path: &self.path,
            query: self.query.as_deref(),
            host: self.host.as_deref(),
            source: Some(self.source),
            model,
            headers: seen,
            identity: &seen.who.identity,
        }
    }

    pub(crate) fn seen<'a>(&'a self, who: &'a Who) -> Seen<'a> {
        Seen { headers: &self.headers, who }
    }
}

/// Headers, those of the identity verified.
pub(crate) struct Seen<'a> {
    headers: &'a HeaderMap,
    who: &'a Who,
}

impl HeaderSource for Seen<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.who.header(name) {
            Some(verified) => verified.map(Cow::Borrowed),
            None => value(self.headers, name),
        }
    }
}

/// All values of one header, joined (RFC 9110, section 5.3). What is no UTF-8 counts as missing.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = std::str::from_utf8(values.next()?.as_bytes()).ok()?;
    let mut all = Cow::Borrowed(first);
    for more in values {
        let joined = all.to_mut();
        joined.push(',');
        joined.push_str(std::str::from_utf8(more.as_bytes()).ok()?);
    }
    Some(all)
}
