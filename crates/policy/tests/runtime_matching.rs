//! Selectors, subjects and routes: tables of what matches.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::net::IpAddr;

use quorate_ledger::Amount;
use quorate_policy::runtime::{
    Attribute, BackendRef, Budget, Cidr, CompiledPolicy, Cost, MODEL_HEADER, MatchError, NO_ROUTE, PathMatch,
    Pattern, PolicyParts, RequestView, SubjectPart, Tier, TierAction, Verdict, tier_at,
};

mod support;

use support::*;

#[test]
fn conditions() {
    let (sent, who) = (headers("x-user=alice x-tag=a x-tag=b x-ai-eg-model=other empty="), identity());
    let request = request(&sent, &who);
    for (condition, holds) in [
        (exact(header("x-user"), "alice"), true),
        (exact(header("x-user"), "Alice"), false),
        (exact(header("empty"), ""), true),
        (exact(header("missing"), ""), false),
        (inverted(exact(header("missing"), "a")), true),
        (inverted(exact(header("x-user"), "alice")), false),
        (exact(header("x-tag"), "a,b"), true),
        (exact(header("x-tag"), "a"), false),
        (pattern(header("x-tag"), "(.*,)?b(,.*)?"), true),
        (pattern(header("x-user"), "al"), false),
        (pattern(header("x-user"), "a|alice"), true),
        (pattern(header("x-user"), "al.*"), true),
        (inverted(pattern(header("x-user"), "al.*")), false),
        (exact(header("x-ai-eg-model"), "gpt-4o"), true),
        (exact(header("x-ai-eg-model"), "other"), false),
        (exact(query("tier"), "a b"), true),
        (exact(query("tier"), "c"), false),
        (exact(query("flag"), ""), true),
        (exact(query("name"), "x+y"), true),
        (pattern(query("tier"), "[a-z] [a-z]"), true),
        (inverted(exact(query("none"), "")), true),
        (exact(Attribute::Tenant, "acme"), true),
        (exact(Attribute::Team, "red"), true),
        (exact(Attribute::User, "bob"), false),
        (exact(Attribute::Key, ""), false),
        (inverted(exact(Attribute::Key, "k1")), true),
        (path(PathMatch::Exact("/v1/chat/completions".into())), true),
        (path(PathMatch::Exact("/v1/chat".into())), false),
        (path(PathMatch::Prefix("/v1".into())), true),
        (path(PathMatch::Prefix("/v1/chat/".into())), true),
        (path(PathMatch::Prefix("/v".into())), false),
        (path(PathMatch::Prefix("/".into())), true),
        (path(PathMatch::Prefix("/v1/chat/completions/x".into())), false),
        (path(PathMatch::Pattern(Pattern::new("/v[0-9]+/.*").unwrap())), true),
        (inverted(path(PathMatch::Prefix("/v1".into()))), false),
        (source("10.0.0.0/8"), true),
        (source("10.1.2.3"), true),
        (source("10.1.2.0/25"), true),
        (source("10.1.2.128/25"), false),
        (source("0.0.0.0/0"), true),
        (source("::/0"), false),
        (source("::ffff:10.0.0.0/104"), true),
        (inverted(source("10.0.0.0/8")), false),
        (methods(&["GET", "POST"], false), true),
        (methods(&["GET"], false), false),
        (methods(&["GET"], true), true),
        (methods(&["POST"], true), false),
    ] {
        assert_eq!(condition.holds(&request), holds, "{condition}");
        // The index, too, which may file the budget under its only condition.
        let found =
            policy(vec![budget("b", vec![condition.clone()], vec![])]).budgets(&request, None).unwrap();
        assert_eq!(found.len(), usize::from(holds), "{condition}");
    }
}

#[test]
fn patterns_are_those_of_re2() {
    for (pattern, value, matches) in [
        (r"\d+", "42", true),
        (r"\d+", "٤٢", false),
        (r"[\w-]+", "a-b_1", true),
        (r"[\w-]+", "é", false),
        (r"\W", "é", true),
        (r"[^\W]+", "ab", true),
        (r"\\d", r"\d", true),
        (r"\s\S", " x", true),
        (r"\bgpt\b.*", "gpt-4o", true),
        (".", "é", true),
        (".*", "a\nb", false),
        ("(?s).*", "a\nb", true),
        ("(?i)GPT.*", "gpt-4o", true),
        ("^gpt$", "gpt", true),
        ("gpt|gpt-4o", "gpt-4o", true),
        ("gpt-4", "gpt-4o", false),
        (r"\pL+", "éa", true),
        ("[[:alpha:]]+", "ab", true),
        ("", "", true),
        ("", "a", false),
    ] {
        assert_eq!(Pattern::new(pattern).unwrap().matches(value), matches, "{pattern} {value}");
    }
}

#[test]
fn patterns_and_prefixes_that_are_refused() {
    for text in ["(", "a)|(b", r"(a)\1", "(?=a)", r"\pX", r"\w{1,500}{1,500}", "(?x)a # b", &"a".repeat(2000)]
    {
        let error = Pattern::new(text).expect_err(text).to_string();
        assert!(error.contains("wanted") && !error.contains('\n'), "{error}");
    }
    for text in
        ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "::ffff:10.0.0.0/64", "a/8"]
    {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
    assert_eq!("10.1.2.3/8".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
}

#[test]
fn subjects() {
    let (sent, who) = (headers("x-user=alice x-odd=a%2+b"), identity());
    let request = request(&sent, &who);
    let part = |name: &str| SubjectPart::Header(name.into());
    for (parts, subject) in [
        (vec![], ""),
        (vec![part("x-user")], "alice"),
        (vec![part("x-user"), SubjectPart::Model], "alice + gpt-4o"),
        (vec![part("x-user"), part("x-ai-eg-model")], "alice + gpt-4o"),
        (vec![part("missing")], ""),
        (vec![part("missing"), part("x-user")], " + alice"),
        (vec![part("x-odd")], "a%252%2Bb"),
        (
            vec![SubjectPart::Tenant, SubjectPart::Team, SubjectPart::User, SubjectPart::Key],
            "acme + red + alice + ",
        ),
        (vec![SubjectPart::Query("tier".into()), SubjectPart::Source], "a b + 10.1.2.3"),
        (vec![SubjectPart::Route, SubjectPart::Backend], " + "),
    ] {
        let found = policy(vec![budget("b", vec![], parts)]).budgets(&request, None).unwrap();
        assert_eq!(found[0].subject, subject);
    }
    let long = headers(&format!("x-user={}", "ü".repeat(257)));
    let found = policy(vec![budget("b", vec![], vec![part("x-user")])])
        .budgets(&RequestView { headers: &long, ..request }, None);
    assert_eq!(found.unwrap_err(), MatchError::SubjectTooLong { budget: "b".into(), bytes: 514 });
}

#[test]
fn a_mapped_address_is_the_address() {
    let (sent, who) = (headers(""), identity());
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    let request = RequestView { source: Some(mapped), ..request(&sent, &who) };
    let budgets = vec![budget("b", vec![source("10.0.0.0/8")], vec![SubjectPart::Source])];
    assert_eq!(policy(budgets).budgets(&request, None).unwrap()[0].subject, "10.1.2.3");
}

#[test]
fn the_most_specific_route_serves() {
    let model = ("x-ai-eg-model", "gpt-4o");
    let routes = vec![
        route("any/all", &[], vec![rule(&[], vec![]), rule(&[&[model]], vec![])]),
        route("two", &[], vec![rule(&[&[("x-a", "no")], &[model, ("x-a", "1")]], vec![])]),
        route("pattern", &[], vec![rule(&[&[("x-a", "~2|3"), ("x-b", "1")]], vec![])]),
        route("wild", &["*.example.org"], vec![rule(&[], vec![])]),
        route("wilder", &["*.b.example.org", "*.c.example.org"], vec![rule(&[], vec![])]),
        route("host", &["a.b.example.org"], vec![rule(&[], vec![])]),
    ];
    let policy = CompiledPolicy::new(PolicyParts { routes, ..PolicyParts::default() }).unwrap();
    let who = identity();
    for (host, sent, model, wanted) in [
        (None, "", "gpt-4o", "any/all 1"),
        (None, "", "gpt-4", "any/all 0"),
        (None, "x-a=1", "gpt-4o", "two 0"),
        (None, "x-a=2 x-b=1", "gpt-4o", "pattern 0"),
        (None, "x-a=22 x-b=1", "gpt-4o", "any/all 1"),
        (Some("X.example.org."), "", "gpt-4o", "wild 0"),
        (Some("example.org"), "", "gpt-4o", "any/all 1"),
        (Some("x.b.example.org:80"), "x-a=1", "gpt-4o", "wilder 0"),
        (Some("y.x.c.example.org"), "", "gpt-4o", "wilder 0"),
        (Some("a.b.example.org"), "", "gpt-4o", "host 0"),
        (Some("[::1]:80"), "", "gpt-4o", "any/all 1"),
    ] {
        let sent = headers(sent);
        let request = RequestView { host, model, ..request(&sent, &who) };
        let found = policy.route(&request).unwrap();
        assert_eq!(policy.route_at(found.position).unwrap().rule, found.rule);
        assert_eq!(format!("{} {}", found.route.name, found.index), wanted);
    }
}

#[test]
fn backends_by_priority_then_weight() {
    let backends = vec![
        backend("c", 7, 1),
        backend("a", 1, 1),
        backend("b", 1, 3),
        backend("off", 0, 0),
        backend("d", 9, 5),
    ];
    let routes = vec![route("r", &[], vec![rule(&[], backends)])];
    let policy = CompiledPolicy::new(PolicyParts { routes, ..PolicyParts::default() }).unwrap();
    let (sent, who) = (headers(""), identity());
    let found = policy.route(&request(&sent, &who)).unwrap();
    let mut first = [0, 0];
    for draw in 0..4000 {
        let ordered = found.ordered(&request(&sent, &who), &signals(draw, (0, 0), policy.prices()));
        let order: Vec<&str> = ordered.iter().map(|one| one.backend.backend.as_str()).collect();
        match order.as_slice() {
            ["ns/a", "ns/b", "ns/c", "ns/d"] => first[0] += 1,
            ["ns/b", "ns/a", "ns/c", "ns/d"] => first[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((900..1100).contains(&first[0]), "{first:?}");
    assert_eq!(found.first_backend().unwrap().backend, "ns/a");
    assert_eq!(found.contexts("m").len(), 4);
}

/// A rule that looks at the model gives it another name; one that does not look chooses it.
#[test]
fn budgets_count_the_model_that_the_route_chooses() {
    let to = |model: &str| vec![BackendRef { model_override: Some(model.into()), ..backend("b", 0, 1) }];
    let routes = vec![route(
        "r",
        &[],
        vec![
            rule(&[&[(MODEL_HEADER, "gpt-4o"), ("x-way", "named")]], to("deployment-7")),
            rule(&[&[("x-way", "chosen")]], to("gpt-4o-mini")),
            rule(&[], vec![backend("b", 0, 1)]),
        ],
    )];
    let budgets = ["gpt-4o", "gpt-4o-mini", "deployment-7"]
        .map(|model| budget(model, vec![exact(header(MODEL_HEADER), model)], vec![SubjectPart::Model]));
    let parts = PolicyParts { budgets: budgets.into(), routes, ..PolicyParts::default() };
    let (policy, who) = (CompiledPolicy::new(parts).unwrap(), identity());
    for (sent, counted) in [("x-way=named", "gpt-4o"), ("x-way=chosen", "gpt-4o-mini"), ("", "gpt-4o")] {
        let sent = headers(sent);
        let request = request(&sent, &who);
        let found = policy.budgets(&request, policy.route(&request).as_ref()).unwrap();
        let found: Vec<_> =
            found.iter().map(|one| (one.budget.rule.name.as_str(), one.subject.as_str())).collect();
        assert_eq!(found, [(counted, counted)], "{sent:?}");
        let explained = policy.explain(&request, &signals(0, (1, 1), policy.prices()));
        let applies = explained.budgets.iter().filter(|one| matches!(one.verdict, Verdict::Applies { .. }));
        assert_eq!(applies.map(|one| one.budget.rule.name.as_str()).collect::<Vec<_>>(), [counted]);
    }
}

#[test]
fn budgets_of_routes_and_backends() {
    let routes = vec![
        route(
            "ns/one",
            &[],
            vec![rule(&[&[("x-a", "1")]], vec![backend("second", 2, 1), backend("first", 1, 1)])],
        ),
        route("ns/two", &[], vec![rule(&[], vec![])]),
    ];
    let mut budgets: Vec<Budget> = ["one", "two", "both", "backend", "any"]
        .map(|name| budget(name, vec![], vec![SubjectPart::Route, SubjectPart::Backend]))
        .into();
    budgets[0].routes = Some(vec!["ns/one".into()]);
    budgets[1].routes = Some(vec!["ns/two".into()]);
    budgets[2].routes = Some(vec!["ns/one".into(), "ns/two".into()]);
    budgets[3].backends = Some(vec!["ns/second".into()]);
    let policy = CompiledPolicy::new(PolicyParts { budgets, routes, ..PolicyParts::default() }).unwrap();
    let who = identity();
    let names = |sent: &str, backend: Option<&str>| {
        let sent = headers(sent);
        let request = request(&sent, &who);
        let route = policy.route(&request);
        let found = match backend {
            Some(backend) => policy.budgets_on(&request, route.as_ref(), Some(backend)),
            None => policy.budgets(&request, route.as_ref()),
        };
        let found = found.unwrap();
        found
            .iter()
            .map(|one| format!("{}: {}", one.budget.rule.name, one.subject))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        names("x-a=1", None),
        "one: ns/one + ns/first, both: ns/one + ns/first, any: ns/one + ns/first"
    );
    assert_eq!(
        names("x-a=1", Some("ns/second")),
        "one: ns/one + ns/second, both: ns/one + ns/second, backend: ns/one + ns/second, any: ns/one + ns/second"
    );
    assert_eq!(names("", None), "two: ns/two + , both: ns/two + , any: ns/two + ");
}

#[test]
fn tiers_by_what_is_left() {
    let tier = |above_percent, action| Tier { above_percent, action };
    let tiers = [
        tier(50, TierAction::Model("gpt-4o".into())),
        tier(20, TierAction::Model("gpt-4o-mini".into())),
        tier(0, TierAction::Reject),
    ];
    let at = |left: u64| {
        let left = Amount::from_micros(left).unwrap();
        tier_at(&tiers, left, Amount::from_micros(1000).unwrap()).cloned()
    };
    assert_eq!(at(1000), Some(TierAction::Model("gpt-4o".into())));
    assert_eq!(at(501), Some(TierAction::Model("gpt-4o".into())));
    assert_eq!(at(500), Some(TierAction::Model("gpt-4o-mini".into())));
    assert_eq!(at(201), Some(TierAction::Model("gpt-4o-mini".into())));
    assert_eq!(at(200), Some(TierAction::Reject));
    assert_eq!(at(0), None);
}

#[test]
fn parts_that_make_no_policy() {
    type Change = fn(&mut Budget);
    let changes: [(Change, &str); 8] = [
        (|budget| budget.rule.name = String::new(), "name"),
        (|budget| budget.output_floor = 0, "floor"),
        (|budget| budget.output_default = 1, "floor"),
        (|budget| budget.output_max = Some(5), "largest output"),
        (|budget| budget.max_wait_ms = u64::MAX, "wait"),
        (|budget| budget.subject = vec![SubjectPart::Model; 2], "model twice"),
        (|budget| budget.subject = (0..9).map(|n| SubjectPart::Header(n.to_string())).collect(), "9 parts"),
        (|budget| budget.tiers = vec![Tier { above_percent: 100, action: TierAction::Wait }], "descend"),
    ];
    for (change, says) in changes {
        let mut changed = budget("b", vec![], vec![]);
        change(&mut changed);
        let parts = PolicyParts { budgets: vec![changed], ..PolicyParts::default() };
        let error = CompiledPolicy::new(parts).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let twice = vec![budget("b", vec![], vec![]), budget("b", vec![], vec![])];
    let error = CompiledPolicy::new(PolicyParts { budgets: twice, ..PolicyParts::default() }).unwrap_err();
    assert_eq!(error.to_string(), "budget b stands twice; give it another name");
}

#[test]
fn explanations_say_what_applies_and_why_the_rest_does_not() {
    let backends = vec![backend("second", 2, 1), backend("first", 1, 1), backend("off", 0, 0)];
    let routes = vec![route("ns/llm", &[], vec![rule(&[], backends)])];
    let mut budgets = vec![
        budget("all", vec![], vec![SubjectPart::User, SubjectPart::Model]),
        budget("team", vec![exact(header("x-team-id"), "red")], vec![]),
        budget("bots", vec![exact(header("x-bot"), "1")], vec![]),
        budget("office", vec![source("192.168.0.0/16")], vec![]),
        budget("tenant", vec![], vec![]),
        budget("route", vec![], vec![]),
        budget("backend", vec![], vec![]),
        budget("dollars", vec![], vec![]),
    ];
    budgets[4].rule.tenant = Some("other".into());
    budgets[5].routes = Some(vec!["ns/a".into(), NO_ROUTE.into()]);
    budgets[6].backends = Some(vec!["ns/second".into()]);
    budgets[7].cost = Cost::Dollars;
    let policy = CompiledPolicy::new(PolicyParts { budgets, routes, ..PolicyParts::default() }).unwrap();
    let (sent, who) = (headers("x-team-id=blue"), identity());
    let explanation = policy.explain(&request(&sent, &who), &signals(0, (1000, 24), policy.prices()));
    let order: Vec<&str> = explanation.backends.iter().map(|one| one.backend.backend.as_str()).collect();
    assert_eq!(order, ["ns/first", "ns/second"]);
    let said = explanation.budgets.iter().map(|explained| match &explained.verdict {
        Verdict::Applies { subject, reserve: Ok(amount) } => format!("{} {amount}", subject.clone().unwrap()),
        Verdict::Applies { reserve: Err(error), .. } => error.to_string(),
        Verdict::DoesNot { because } => because.clone(),
    });
    let wanted = [
        "alice + gpt-4o 1024",
        "header x-team-id = \"red\" does not hold: it is \"blue\"",
        "header x-bot = \"1\" does not hold: it is missing",
        "source in 192.168.0.0/16 does not hold: it is 10.1.2.3",
        "it is for tenant other, and the request is of acme",
        "it is for route ns/a or none, and the request goes to ns/llm",
        "it is for backend ns/second, and the request goes to ns/first",
        "no price for model gpt-4o: add a ModelPrice for it, or a fallback price to the budget",
    ];
    assert_eq!(said.collect::<Vec<_>>(), wanted);
}
