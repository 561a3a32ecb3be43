//! Parts of a policy in words, for people.

use quorate_ledger::{Enforcement, Window};
use quorate_policy::runtime::{Budget, Cost, NO_ROUTE, TokenKind};

pub(crate) fn window(window: Window) -> String {
    match window {
        Window::Sliding { ms } if ms.is_multiple_of(1_000) => format!("Sliding {}s", ms / 1_000),
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
    let mut words: Vec<String> = budget.selector.conditions.iter().map(ToString::to_string).collect();
    for (kind, names) in [("route", &budget.routes), ("backend", &budget.backends)] {
        let Some(names) = names else { continue };
        let names: Vec<&str> =
            names.iter().map(|name| if name == NO_ROUTE { "none" } else { name.as_str() }).collect();
        words.push(format!("{kind} {}", names.join(" or ")));
    }
    words.join(", ")
}
