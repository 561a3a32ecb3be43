//! What 10,000 rules cost a request: `cargo run --release -p quorate-policy --example measure`.
//!
//! Each line is a policy of another kind, and the time of one route lookup plus one lookup of its budgets.

#![allow(clippy::unwrap_used, reason = "a broken measurement should stop")]

use std::hint::black_box;
use std::time::Instant;

use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use quorate_policy::runtime::{
    Attribute, Budget, CelCost, CompiledPolicy, Condition, Cost, CostContext, HeaderMatch, Identity,
    MethodMatch, Pattern, PolicyParts, Prices, RequestView, Route, RouteRule, Selector, SubjectPart,
    TextMatch, TokenKind, Usage,
};

const RULES: usize = 10_000;
const ROUNDS: u32 = 20_000;

fn exact(name: &str, value: String) -> Condition {
    Condition::Text {
        attribute: Attribute::Header(name.into()),
        value: TextMatch::Exact(value),
        invert: false,
    }
}

fn budget(number: usize, conditions: Vec<Condition>) -> Budget {
    let limit = Amount::from_units(1_000_000).unwrap();
    let rule = BudgetRule::new(format!("ns/policy/rule-{number}"), Unit::Tokens, limit, Window::Hour);
    let subject = vec![SubjectPart::Header("x-user-id".into()), SubjectPart::Model];
    Budget { selector: Selector { conditions }, subject, ..Budget::new(rule, Cost::Tokens(TokenKind::Total)) }
}

fn pattern(number: usize, source: &str) -> Budget {
    let value = TextMatch::Pattern(Pattern::new(source).unwrap());
    budget(
        number,
        vec![Condition::Text { attribute: Attribute::Header("x-team-id".into()), value, invert: false }],
    )
}

/// A kind of policy, by the rule of each number.
type Kind = (&'static str, fn(usize) -> Budget);

const KINDS: [Kind; 9] = [
    ("a team each", |number| budget(number, vec![exact("x-team-id", format!("team-{number}"))])),
    ("100 teams x 100 models", |number| {
        let team = exact("x-team-id", format!("team-{}", number % 100));
        budget(number, vec![team, exact("x-ai-eg-model", format!("model-{}", number / 100))])
    }),
    ("a tenant each", |number| {
        let mut budget = budget(number, vec![]);
        budget.rule.tenant = Some(format!("tenant-{number}"));
        budget
    }),
    ("a route each", |number| Budget {
        routes: Some(vec![format!("ns/route-{number}")]),
        ..budget(number, vec![])
    }),
    ("an address prefix each", |number| {
        let within = format!("10.{}.{}.0/24", number / 250, number % 250).parse().unwrap();
        budget(number, vec![Condition::Source { within, invert: false }])
    }),
    ("100 of them apply", |number| {
        budget(number, vec![exact("x-team-id", format!("team-{}", number % 100))])
    }),
    ("a pattern each, told by beginnings", |number| pattern(number, &format!("team-{number}-[a-z]+"))),
    ("a pattern each (a scan)", |number| pattern(number, &format!(".*-{number}-[a-z]+"))),
    ("all but one team each (a scan)", |number| {
        let methods = Condition::Methods(vec![MethodMatch { method: "POST".into(), invert: true }]);
        let (attribute, value) = (Attribute::Header("x-team-id".into()), format!("other-{number}"));
        let team = Condition::Text { attribute, value: TextMatch::Exact(value), invert: true };
        budget(number, vec![team, methods])
    }),
];

fn main() {
    let headers: Vec<(String, String)> = [
        ("content-type", "application/json"),
        ("user-agent", "openai-python"),
        ("x-user-id", "alice"),
        ("x-team-id", "team-42"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let identity = Identity { tenant: "tenant-42".into(), ..Identity::default() };
    let request = RequestView {
        method: "POST",
        path: "/v1/chat/completions",
        query: None,
        host: Some("llm.example.com"),
        source: Some("10.7.8.9".parse().unwrap()),
        model: "model-42",
        headers: &headers,
        identity: &identity,
    };
    println!("{RULES} budgets and {RULES} routes; one request:");
    for (name, rule) in KINDS {
        let routes = (0..RULES).map(|number| {
            let value = TextMatch::Exact(format!("model-{number}"));
            let matches = vec![vec![HeaderMatch { name: "x-ai-eg-model".into(), value }]];
            let rules = vec![RouteRule { matches, ..RouteRule::default() }];
            Route { name: format!("ns/route-{number}"), hostnames: Vec::new(), rules }
        });
        let budgets = (0..RULES).map(rule).collect();
        let parts = PolicyParts { budgets, routes: routes.collect(), ..PolicyParts::default() };
        let started = Instant::now();
        let policy = CompiledPolicy::new(parts).unwrap();
        let compiled = started.elapsed();
        let rounds = if name.contains("scan") { ROUNDS / 100 } else { ROUNDS };
        let started = Instant::now();
        let mut matched = 0;
        for _ in 0..rounds {
            let route = policy.route(black_box(&request));
            matched = black_box(policy.budgets(&request, route.as_ref()).unwrap()).len();
        }
        let each = started.elapsed() / rounds;
        println!("  {name:36} {each:>10.2?}  ({matched} apply; made in {compiled:.0?})");
    }
    costs();
}

fn costs() {
    let prices = Prices::builtin();
    let at = [("gpt-4o-2024-08-06", "ns/a"), ("claude-sonnet-4-5-20250929", "ns/b")]
        .map(|(model, backend)| CostContext { model, backend, route: "ns/llm" });
    let usage = Usage { input: 1200, cached_input: 1000, output: 300, total: 1500, ..Usage::default() };
    let started = Instant::now();
    let expressions: Vec<CelCost> = (0..RULES / 10)
        .map(|number| CelCost::new(&format!("input_tokens * 0.{number} + output_tokens * 1.0")).unwrap())
        .collect();
    println!("{} expressions made in {:.0?}", expressions.len(), started.elapsed());
    let cel = CelCost::new("input_tokens * 0.25 + output_tokens * 1.0").unwrap();
    println!("costs; two backends:");
    for (name, cost) in [
        ("total tokens", Cost::Tokens(TokenKind::Total)),
        ("CEL", Cost::Cel(cel)),
        ("dollars", Cost::Dollars),
    ] {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(cost.of(black_box(&usage), &at[0], &prices, None).unwrap());
        }
        let actual = started.elapsed() / ROUNDS;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(cost.bound(black_box(1200), 300, &at, &prices, None).unwrap());
        }
        println!("  {name:36} actual {actual:>8.2?}  bound {:>8.2?}", started.elapsed() / ROUNDS);
    }
}
