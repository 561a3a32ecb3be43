//! Parts of a policy in words, for people.

use quorate_ledger::{Enforcement, Window};
use quorate_policy::runtime::{
    Attribute, Budget, Condition, Cost, PathMatch, SubjectPart, TextMatch, TokenKind,
};

pub(crate) fn window(window: Window) -> String {
    match window {
        Window::Sliding { ms } if ms % 1_000 == 0 => format!("Sliding {}s", ms / 1_000),
        Window::Sliding { ms } => format!("Sliding {ms}ms"),
        window => window.name().to_owned(),
    }
}

pub(crate) fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Reserve => "Reserve",
        Enforcement::Count => "Count",
        Enforcement::Shadow => "Shadow",
    }
}

pub(crate) fn subject_part(part: &SubjectPart) -> String {
    match part {
        SubjectPart::Header(name) => format!("header {name}"),
        SubjectPart::Query(name) => format!("query {name}"),
        SubjectPart::Model => "model".to_owned(),
        SubjectPart::Tenant => "tenant".to_owned(),
        SubjectPart::Team => "team".to_owned(),
        SubjectPart::User => "user".to_owned(),
        SubjectPart::Key => "key".to_owned(),
        SubjectPart::Source => "source address".to_owned(),
        SubjectPart::Route => "route".to_owned(),
        SubjectPart::Backend => "backend".to_owned(),
    }
}

pub(crate) fn cost(cost: &Cost) -> String {
    let tokens = |kind: &TokenKind| match kind {
        TokenKind::Input => "input tokens",
        TokenKind::Output => "output tokens",
        TokenKind::Total => "total tokens",
        TokenKind::CachedInput => "cached input tokens",
        TokenKind::CacheCreationInput => "cache creation input tokens",
        TokenKind::Reasoning => "reasoning tokens",
    };
    match cost {
        Cost::Tokens(kind) => tokens(kind).to_owned(),
        Cost::Cel(expression) => format!("CEL {}", expression.as_str()),
        Cost::Dollars => "dollars by the price table".to_owned(),
        Cost::Number(amount) => format!("{amount} a request"),
    }
}

/// Empty: every request.
pub(crate) fn applies_to(budget: &Budget) -> String {
    let mut words: Vec<String> = budget.selector.conditions.iter().map(condition).collect();
    if let Some(routes) = &budget.routes {
        words.push(format!("route {}", routes.join(" or ")));
    }
    if let Some(backends) = &budget.backends {
        words.push(format!("backend {}", backends.join(" or ")));
    }
    words.join(", ")
}

fn condition(condition: &Condition) -> String {
    let equals = |invert: &bool| if *invert { "≠" } else { "=" };
    match condition {
        Condition::Text { attribute, value, invert } => {
            format!("{} {} {}", self::attribute(attribute), equals(invert), text(value))
        }
        Condition::Methods(methods) => {
            let methods = methods.iter().map(|method| {
                if method.invert { format!("not {}", method.method) } else { method.method.clone() }
            });
            format!("method {}", methods.collect::<Vec<_>>().join(" or "))
        }
        Condition::Path { value, invert } => {
            let path = match value {
                PathMatch::Exact(path) => path.clone(),
                PathMatch::Prefix(path) => format!("{}/…", path.trim_end_matches('/')),
                PathMatch::Pattern(pattern) => format!("/{pattern}/"),
            };
            format!("path {} {path}", equals(invert))
        }
        Condition::Source { within, invert } => {
            format!("source {} {within}", if *invert { "not in" } else { "in" })
        }
    }
}

fn attribute(attribute: &Attribute) -> String {
    match attribute {
        Attribute::Header(name) => format!("header {name}"),
        Attribute::Query(name) => format!("query {name}"),
        Attribute::Tenant => "tenant".to_owned(),
        Attribute::Team => "team".to_owned(),
        Attribute::User => "user".to_owned(),
        Attribute::Key => "key".to_owned(),
    }
}

fn text(value: &TextMatch) -> String {
    match value {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Pattern(pattern) => format!("/{pattern}/"),
    }
}
