//! Parts of a policy in words, for people.

use quorate_ledger::{Amount, Enforcement, Window};
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
        Enforcement::Lease => "Lease",
    }
}

/// What an answer costs, and what a request costs besides: `total tokens`, `1 a request`.
pub(crate) fn cost(budget: &Budget) -> String {
    if budget.is_of_descriptors() {
        return "hits".to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    if budget.cost != Cost::Number(Amount::ZERO) {
        words.push(answer_cost(&budget.cost));
    }
    if !budget.request_cost.is_zero() || words.is_empty() {
        words.push(format!("{} a request", budget.request_cost));
    }
    words.join(" + ")
}

fn answer_cost(cost: &Cost) -> String {
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
        Cost::Number(amount) => format!("{amount} an answer"),
    }
}

/// Empty: every request.
pub(crate) fn applies_to(budget: &Budget) -> String {
    if budget.is_of_descriptors() {
        return "descriptors of Envoy".to_owned();
    }
    let mut words: Vec<String> = budget.selector.conditions.iter().map(ToString::to_string).collect();
    for (kind, names) in [("route", &budget.routes), ("backend", &budget.backends)] {
        let Some(names) = names else { continue };
        let names: Vec<&str> =
            names.iter().map(|name| if name == NO_ROUTE { "none" } else { name.as_str() }).collect();
        words.push(format!("{kind} {}", names.join(" or ")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{BudgetRule, Unit};

    use super::*;

    #[test]
    fn what_is_counted_in_words() {
        let units = |units| Amount::from_units(units).unwrap();
        let total = Cost::Tokens(TokenKind::Total);
        for (answer, request, words) in [
            (total.clone(), 0, "total tokens"),
            (total, 50, "total tokens + 50 a request"),
            (Cost::Number(Amount::ZERO), 1, "1 a request"),
            (Cost::Number(units(2)), 1, "2 an answer + 1 a request"),
            (Cost::Number(Amount::ZERO), 0, "0 a request"),
        ] {
            let rule = BudgetRule::new("b", Unit::Cost, units(10), Window::Day);
            let budget = Budget { request_cost: units(request), ..Budget::new(rule, answer) };
            assert_eq!(cost(&budget), words);
        }
    }
}
