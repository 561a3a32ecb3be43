//! The index agrees with a scan of all rules; subjects do not collide; no request panics.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use proptest::prelude::*;
use quorate_policy::runtime::{
    Attribute, Budget, Cidr, CompiledPolicy, Condition, Identity, NO_ROUTE, PathMatch, Pattern, PolicyParts,
    RequestView, SubjectPart, TextMatch,
};

mod support;

use support::*;

/// Few names and values, so that rules and requests meet.
fn any_condition() -> impl Strategy<Value = Condition> {
    let name = proptest::sample::select(vec!["x-a", "x-b", "x-ai-eg-model"]);
    let value = proptest::sample::select(vec!["", "1", "2", "m"]);
    let attribute = prop_oneof![
        name.prop_map(|name| Attribute::Header(name.into())),
        Just(Attribute::Query("q".into())),
        Just(Attribute::Team),
        Just(Attribute::User),
    ];
    let prefix = proptest::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"]);
    let text = prop_oneof![
        4 => value.clone().prop_map(|value| TextMatch::Exact(value.into())),
        2 => proptest::sample::select(vec!["[12]", "1|2|22", "(1|12?).*", "^2$", ".*", "", "1{0,2}m?", "(?i)M", "\\x31."])
            .prop_map(|source| TextMatch::Pattern(Pattern::new(source).unwrap())),
    ];
    prop_oneof![
        6 => (attribute, text, any::<bool>())
            .prop_map(|(attribute, value, invert)| Condition::Text { attribute, value, invert }),
        1 => (prefix, any::<bool>())
            .prop_map(|(prefix, invert)| Condition::Source { within: prefix.parse().unwrap(), invert }),
        1 => (value, 0..3, any::<bool>()).prop_map(|(value, kind, invert)| {
            let path = format!("/{value}");
            let value = match kind {
                0 => PathMatch::Exact(path),
                1 => PathMatch::Prefix(path),
                _ => PathMatch::Pattern(Pattern::new(&format!("{path}.*")).unwrap()),
            };
            Condition::Path { value, invert }
        }),
        1 => (proptest::sample::subsequence(vec!["GET", "PUT"], 0..=2), any::<bool>())
            .prop_map(|(names, invert)| methods(&names, invert)),
    ]
}

fn any_budget() -> impl Strategy<Value = Budget> {
    let conditions = proptest::collection::vec(any_condition(), 0..4);
    let tenant = proptest::option::of(proptest::sample::select(vec!["acme", "other"]));
    let routes = proptest::option::of(proptest::sample::subsequence(vec!["r1", "r2", NO_ROUTE], 0..=3));
    (conditions, tenant, routes).prop_map(|(conditions, tenant, routes)| {
        let mut made = budget("b", conditions, vec![SubjectPart::Header("x-a".into()), SubjectPart::Model]);
        made.rule.tenant = tenant.map(str::to_owned);
        made.routes = routes.map(|names| names.into_iter().map(str::to_owned).collect());
        made
    })
}

fn any_headers() -> impl Strategy<Value = Headers> {
    let pair = (
        proptest::sample::select(vec!["x-a", "x-b", "x-c"]),
        proptest::sample::select(vec!["", "1", "2", "12", "22", "1é", "m", "M"]),
    );
    proptest::collection::vec(pair.prop_map(|(name, value)| (name.into(), value.into())), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_a_scan(
        mut budgets in proptest::collection::vec(any_budget(), 0..40),
        sent in any_headers(),
        who in (proptest::sample::select(vec!["acme", "other", "third"]), proptest::option::of("[12]"), proptest::option::of("[1m]")),
        way in (proptest::sample::select(vec!["r1", "r2", "r4"]), any::<bool>()),
        source in proptest::option::of(proptest::sample::select(vec!["10.1.2.3", "10.2.2.3", "1.1.1.1", "2001:db8::1", "::1"])),
        (path, method, model, query) in (
            proptest::sample::select(vec!["", "/", "/1", "/2", "/12", "/1/2"]),
            proptest::sample::select(vec!["GET", "POST"]),
            proptest::sample::select(vec!["1", "m", ""]),
            proptest::option::of(proptest::sample::select(vec!["q=1", "q=2&q=1", "x", "q"])),
        ),
    ) {
        for (number, budget) in budgets.iter_mut().enumerate() {
            budget.rule.name = format!("b{number}");
        }
        let identity = Identity { tenant: who.0.to_owned(), team: who.1, user: who.2, key: None };
        let source = source.map(|address| address.parse().unwrap());
        let request = RequestView { method, path, query, host: None, source, model, headers: &sent, identity: &identity };
        let routes = vec![route(way.0, &[], vec![rule(&[], vec![])])];
        let policy = CompiledPolicy::new(PolicyParts { budgets: budgets.clone(), routes, ..PolicyParts::default() }).unwrap();
        let found_route = policy.route(&request).filter(|_| way.1);
        let found = policy.budgets(&request, found_route.as_ref()).unwrap();
        let found: Vec<&str> = found.iter().map(|one| one.budget.rule.name.as_str()).collect();
        let scanned: Vec<&str> = budgets.iter().filter(|budget| {
            budget.rule.tenant.as_ref().is_none_or(|tenant| *tenant == identity.tenant)
                && budget.routes.as_ref().is_none_or(|names| names.iter().any(|name| name == if way.1 { way.0 } else { NO_ROUTE }))
                && budget.selector.conditions.iter().all(|condition| condition.holds(&request))
        }).map(|budget| budget.rule.name.as_str()).collect();
        prop_assert_eq!(found, scanned);
    }

    #[test]
    fn different_values_have_different_subjects(
        left in ("[+% a\n]{0,4}", "[+% a\n]{0,4}"),
        right in ("[+% a\n]{0,4}", "[+% a\n]{0,4}"),
    ) {
        let who = identity();
        let parts = vec![SubjectPart::Header("x-a".into()), SubjectPart::Header("x-b".into())];
        let policy = policy(vec![budget("b", vec![], parts)]);
        let [one, other] = [&left, &right].map(|(a, b)| {
            let sent = vec![("x-a".to_owned(), a.clone()), ("x-b".to_owned(), b.clone())];
            policy.budgets(&request(&sent, &who), None).unwrap().remove(0).subject
        });
        prop_assert_eq!(one == other, left == right);
    }

    #[test]
    fn any_request_is_answered(
        path in "\\PC{0,20}", query in "\\PC{0,20}", host in "\\PC{0,20}", name in "[a%=&]{0,6}", text in "\\PC{0,12}",
    ) {
        let (sent, who) = (vec![("x-a".to_owned(), text.clone())], identity());
        let request = RequestView { path: &path, query: Some(&query), host: Some(&host), ..request(&sent, &who) };
        let budgets = vec![budget("b", vec![exact(Attribute::Query(name.clone()), &text)], vec![SubjectPart::Query(name)])];
        let routes = vec![route("r", &[host.as_str()], vec![rule(&[], vec![])])];
        let policy = CompiledPolicy::new(PolicyParts { budgets, routes, ..PolicyParts::default() }).unwrap();
        let _ = policy.budgets(&request, policy.route(&request).as_ref());
        let _ = Pattern::new(&text);
        let _ = text.parse::<Cidr>();
    }
}
