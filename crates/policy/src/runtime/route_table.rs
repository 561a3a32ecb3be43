//! Finds the route rule that serves a request, in Gateway API's order of precedence (HTTPRoute, `rules`): the most
//! specific host name, then the most header matches, then the first.

use std::cmp::Reverse;

use super::condition::header;
use super::index::{self, Choice, Index};
use super::{Attribute, HeaderMatch, RequestView, Route, RouteMatch, RoutePosition};

/// One way to match: a host name and a list of headers of one rule.
#[derive(Debug, Clone)]
struct Entry {
    host: Host,
    headers: Vec<HeaderMatch>,
    position: RoutePosition,
}

/// A host name of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// `.example.com`: what a wildcard stands before.
    Wildcard(String),
    Exact(String),
}

/// All ways, the most specific first.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteTable {
    entries: Vec<Entry>,
    index: Index,
}

impl RouteTable {
    pub fn new(routes: &[Route]) -> Self {
        let mut entries: Vec<Entry> =
            routes.iter().enumerate().flat_map(|(number, route)| ways(number, route)).collect();
        // Stable: among equals, the first of the manifests stays first.
        entries.sort_by_key(|entry| Reverse((entry.host.rank(), entry.headers.len())));
        let keys: Vec<Vec<Choice>> = entries.iter().map(choices).collect();
        Self { index: Index::new(&keys), entries }
    }

    /// `routes`: those that the table was made of.
    pub fn find<'a>(&self, routes: &'a [Route], request: &RequestView<'_>) -> Option<RouteMatch<'a>> {
        let host = request.host.map(bare_host).unwrap_or_default();
        let candidates = self.index.candidates(request, None);
        let mut entries = candidates.iter().filter_map(|number| self.entries.get(*number as usize));
        entries.find(|entry| entry.matches(request, &host))?.position.find(routes)
    }
}

fn ways(number: usize, route: &Route) -> Vec<Entry> {
    let mut hosts: Vec<Host> = route.hostnames.iter().map(|name| Host::new(name)).collect();
    if hosts.is_empty() {
        hosts.push(Host::Any);
    }
    let mut ways = Vec::new();
    for (rule_number, rule) in route.rules.iter().enumerate() {
        let every = [Vec::new()];
        let matches = if rule.matches.is_empty() { every.as_slice() } else { rule.matches.as_slice() };
        for headers in matches {
            ways.extend(hosts.iter().map(|host| Entry {
                host: host.clone(),
                headers: headers.clone(),
                position: RoutePosition { route: number, rule: rule_number },
            }));
        }
    }
    ways
}

fn choices(entry: &Entry) -> Vec<Choice> {
    let choice = |wanted: &HeaderMatch| index::text(&Attribute::Header(wanted.name.clone()), &wanted.value);
    entry.headers.iter().filter_map(choice).collect()
}

impl Entry {
    fn matches(&self, request: &RequestView<'_>, host: &str) -> bool {
        let header_matches = |wanted: &HeaderMatch| {
            header(request, &wanted.name).is_some_and(|value| wanted.value.matches(&value))
        };
        self.host.matches(host) && self.headers.iter().all(header_matches)
    }
}

impl Host {
    fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some("") => Self::Any,
            Some(suffix) => Self::Wildcard(suffix.to_owned()),
            None => Self::Exact(name),
        }
    }

    /// No wildcard before any wildcard, then the longest.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Wildcard(suffix) => (1, suffix.len()),
            Self::Exact(name) => (2, name.len()),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            // At least one label stands for the wildcard.
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Exact(name) => host == name,
        }
    }
}

/// In lower case, without port and final dot.
fn bare_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        // Not inside the brackets of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}
