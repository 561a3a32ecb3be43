//! Requests, conditions, budgets and routes in few words.

#![allow(dead_code, reason = "each test crate uses a part")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use quorate_policy::runtime::{
    Attribute, BackendRef, BodyMutation, Budget, CompiledPolicy, Condition, Cost, HeaderMatch,
    HeaderMutation, Identity, MethodMatch, PathMatch, Pattern, PolicyParts, Prices, RequestView, Route,
    RouteRule, Selector, Signals, SubjectPart, TextMatch, TokenKind,
};

pub type Headers = Vec<(String, String)>;

pub fn headers(text: &str) -> Headers {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub fn identity() -> Identity {
    Identity { tenant: "acme".into(), team: Some("red".into()), user: Some("alice".into()), key: None }
}

pub fn request<'a>(headers: &'a Headers, identity: &'a Identity) -> RequestView<'a> {
    RequestView {
        method: "POST",
        path: "/v1/chat/completions",
        query: Some("tier=a%20b&tier=c&flag&%6eame=x+y"),
        host: Some("Api.Example.com:8443"),
        source: Some("10.1.2.3".parse().unwrap()),
        model: "gpt-4o",
        headers,
        identity,
    }
}

/// Nothing is known of any backend.
pub fn signals<'s>(draw: u64, (input, output): (u64, u64), prices: &'s Prices) -> Signals<'s> {
    Signals { draw, conversation: None, input, output, prices, latency_ms: &|_, _| None }
}

pub fn exact(attribute: Attribute, value: &str) -> Condition {
    Condition::Text { attribute, value: TextMatch::Exact(value.into()), invert: false }
}

pub fn pattern(attribute: Attribute, value: &str) -> Condition {
    Condition::Text { attribute, value: TextMatch::Pattern(Pattern::new(value).unwrap()), invert: false }
}

pub fn inverted(condition: Condition) -> Condition {
    match condition {
        Condition::Text { attribute, value, .. } => Condition::Text { attribute, value, invert: true },
        Condition::Path { value, .. } => Condition::Path { value, invert: true },
        Condition::Source { within, .. } => Condition::Source { within, invert: true },
        Condition::Methods(any) => Condition::Methods(any),
    }
}

pub fn header(name: &str) -> Attribute {
    Attribute::Header(name.into())
}

pub fn query(name: &str) -> Attribute {
    Attribute::Query(name.into())
}

pub fn path(value: PathMatch) -> Condition {
    Condition::Path { value, invert: false }
}

pub fn source(prefix: &str) -> Condition {
    Condition::Source { within: prefix.parse().unwrap(), invert: false }
}

pub fn methods(names: &[&str], invert: bool) -> Condition {
    Condition::Methods(names.iter().map(|name| MethodMatch { method: (*name).into(), invert }).collect())
}

pub fn budget(name: &str, conditions: Vec<Condition>, subject: Vec<SubjectPart>) -> Budget {
    let limit = Amount::from_units(1000).unwrap();
    let rule = BudgetRule::new(name, Unit::Tokens, limit, Window::Hour);
    Budget { selector: Selector { conditions }, subject, ..Budget::new(rule, Cost::Tokens(TokenKind::Total)) }
}

pub fn policy(budgets: Vec<Budget>) -> CompiledPolicy {
    CompiledPolicy::new(PolicyParts { budgets, ..PolicyParts::default() }).unwrap()
}

pub fn backend(name: &str, priority: u32, weight: u32) -> BackendRef {
    BackendRef {
        backend: format!("ns/{name}"),
        weight,
        priority,
        model_override: None,
        header_mutation: HeaderMutation::default(),
        body_mutation: BodyMutation::default(),
    }
}

pub fn rule(matches: &[&[(&str, &str)]], backends: Vec<BackendRef>) -> RouteRule {
    let header = |(name, value): &(&str, &str)| HeaderMatch {
        name: (*name).into(),
        value: match value.strip_prefix('~') {
            Some(pattern) => TextMatch::Pattern(Pattern::new(pattern).unwrap()),
            None => TextMatch::Exact((*value).into()),
        },
    };
    let matches = matches.iter().map(|all| all.iter().map(header).collect()).collect();
    RouteRule { matches, backends, ..RouteRule::default() }
}

pub fn route(name: &str, hostnames: &[&str], rules: Vec<RouteRule>) -> Route {
    Route { name: name.into(), hostnames: hostnames.iter().map(|name| (*name).into()).collect(), rules }
}
