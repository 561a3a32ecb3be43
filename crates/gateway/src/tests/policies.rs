//! Policies in types, for what the tests are about.

use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use quorate_policy::runtime::{
    BackendRef, BackendSpec, BodyMutation, Budget, CompiledPolicy, Cost, HeaderMatch, HeaderMutation,
    MODEL_HEADER, PolicyParts, ProviderKind, Route, RouteRule, SubjectPart, TextMatch, TokenKind,
};

pub(crate) fn units(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

pub(crate) fn compile(parts: PolicyParts) -> CompiledPolicy {
    CompiledPolicy::new(parts).unwrap()
}

pub(crate) fn of_budgets(budgets: impl Into<Vec<Budget>>) -> CompiledPolicy {
    compile(PolicyParts { budgets: budgets.into(), ..PolicyParts::default() })
}

/// A year, one account for each `x-user-id`, total tokens.
pub(crate) fn tokens(name: &str, limit: u64) -> Budget {
    of_unit(name, Unit::Tokens, units(limit), Cost::Tokens(TokenKind::Total))
}

/// A window that hardly ever ends while a test runs: one that asks for what was spent just after its end finds nothing.
pub(crate) fn of_unit(name: &str, unit: Unit, limit: Amount, cost: Cost) -> Budget {
    let mut budget = Budget::new(BudgetRule::new(name, unit, limit, Window::Year), cost);
    budget.subject = vec![SubjectPart::Header("x-user-id".to_owned())];
    budget
}

pub(crate) fn backend(name: &str, priority: u32) -> BackendRef {
    BackendRef {
        backend: format!("ns/{name}"),
        weight: 1,
        priority,
        model_override: None,
        header_mutation: HeaderMutation::default(),
        body_mutation: BodyMutation::default(),
    }
}

/// Requests for `model`, or all where it is empty.
pub(crate) fn route(name: &str, model: &str, backends: impl Into<Vec<BackendRef>>) -> Route {
    let value = TextMatch::Exact(model.to_owned());
    let header = HeaderMatch { name: MODEL_HEADER.to_owned(), value };
    let matches = if model.is_empty() { Vec::new() } else { vec![vec![header]] };
    let rule = RouteRule { matches, backends: backends.into(), ..RouteRule::default() };
    Route { name: format!("ns/{name}"), hostnames: Vec::new(), rules: vec![rule] }
}

pub(crate) fn spec(name: &str, provider: ProviderKind) -> BackendSpec {
    BackendSpec {
        name: format!("ns/{name}"),
        provider,
        endpoint: None,
        path_prefix: None,
        schema_version: None,
        tls: None,
        auth: None,
    }
}

/// A config whose backends have these names and URLs.
pub(crate) fn config(backends: &[(&str, &str)], more: &str) -> String {
    let mut text =
        "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends:\n"
            .to_owned();
    for (name, url) in backends {
        text.push_str(&format!("- {{name: {name}, provider: OpenAI, base_url: '{url}'}}\n"));
    }
    text + more
}
