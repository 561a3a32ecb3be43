//! Domains of Envoy's rate limit service: what their configuration means, what is refused in it, and that the index finds
//! what a search of the whole tree would.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use proptest::prelude::*;
use quorate_ledger::{Amount, Enforcement, Unit, Window};
use quorate_policy::manifests::{Action, ManifestSet, Mode, Source, diff};
use quorate_policy::runtime::{CompiledPolicy, Metadata, Spending, override_subject};

fn parse(text: &str) -> Result<ManifestSet, String> {
    let source = Source { name: "limits.yaml", text };
    ManifestSet::parse(&[source], Mode::Strict).map(|(set, _)| set).map_err(|errors| errors.to_string())
}

fn compile(text: &str) -> (CompiledPolicy, Vec<String>) {
    parse(text).unwrap().compile().unwrap()
}

/// `budget | subject | metric` of a descriptor like `a=1 b=2`.
fn found(policy: &CompiledPolicy, domain: &str, text: &str) -> String {
    let entries: Vec<(&str, &str)> =
        text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
    let Some(found) = policy.domain(domain).unwrap().find(entries.into_iter()) else {
        return "nothing".to_owned();
    };
    let budget = found.budget.map_or("unlimited", |budget| budget.rule.name.as_str());
    format!("{budget} | {} | {}", found.subject, found.metric)
}

const ALL: &str = "
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: MINUTE, requests_per_unit: 10, name: each}
  - key: user
    value: root
    rate_limit: {unlimited: true}
  - key: path
    value: /a/*/x
    value_to_metric: true
    rate_limit: {unit: second, requests_per_unit: 1}
  - key: path
    value: /a/*
    share_threshold: true
    rate_limit: {unit: week, requests_per_unit: 2}
  - key: tenant
    descriptors:
      - key: user
        detailed_metric: true
        shadow_mode: true
        rate_limit: {unit: year, requests_per_unit: 3}
      - key: user
        value: 7
        quota_mode: true
        metadata: {a: 1, b: [true, null, {c: x}]}
        rate_limit: {unit: month, requests_per_unit: 4, replaces: [{name: each}]}
  - key: tenant
    value: gold
    descriptors:
      - {key: plan, reserve: true, accounts_max: 5, rate_limit: {unit: day, requests_per_unit: 5}}
      - {key: held, enforcement: Lease, reserve: true, rate_limit: {unit: hour, requests_per_unit: 7}}
      - {key: whole, enforcement: Reserve, rate_limit: {unit: hour, requests_per_unit: 6}}
      - {key: hot, enforcement: Lease, rate_limit: {unit: hour}}
";

#[test]
fn descriptors_find_their_limits() {
    let (policy, warnings) = compile(ALL);
    assert_eq!(warnings, Vec::<String>::new());
    for (descriptor, expected) in [
        ("user=alice", "shop/user | alice | shop.user"),
        ("user=", "shop/user |  | shop.user"),
        ("user=root", "unlimited |  | shop.user_root"),
        ("user=a+b", "shop/user | a%2Bb | shop.user"),
        ("path=/a/1/x", "shop/path=/a/*/x | /a/1/x | shop.path_/a/1/x"),
        ("path=/a/1", "shop/path=/a/* |  | shop.path_/a/*"),
        ("path=/b", "nothing"),
        ("tenant=t user=u", "shop/tenant/user | t + u | shop.tenant_t.user_u"),
        ("tenant=t user=7", "shop/tenant/user=7 | t | shop.tenant.user_7"),
        ("tenant=t", "nothing"),
        ("tenant=t user=u more=x", "nothing"),
        // The value is there, and leads nowhere: no way back to the key alone.
        ("tenant=gold user=u", "nothing"),
        ("tenant=gold plan=p", "shop/tenant=gold/plan | p | shop.tenant_gold.plan"),
        ("unknown=x", "nothing"),
    ] {
        assert_eq!(found(&policy, "shop", descriptor), expected, "{descriptor}");
    }
    assert!(policy.domain("other").is_none());
}

#[test]
fn limits_are_budgets() {
    let (policy, _) = compile(ALL);
    let rules = policy.rules();
    for (name, limit, window, enforcement) in [
        ("shop/user", 10, Window::Minute, Enforcement::Reserve),
        ("shop/path=/a/*/x", 1, Window::Second, Enforcement::Reserve),
        ("shop/path=/a/*", 2, Window::Week, Enforcement::Reserve),
        ("shop/tenant/user", 3, Window::Year, Enforcement::Shadow),
        ("shop/tenant/user=7", 4, Window::Month, Enforcement::Reserve),
        ("shop/tenant=gold/plan", 5, Window::Day, Enforcement::Reserve),
        ("shop/tenant=gold/held", 7, Window::Hour, Enforcement::Lease),
        ("shop/tenant=gold/hot", 0, Window::Hour, Enforcement::Lease),
    ] {
        let rule = rules.iter().find(|rule| rule.name == name).unwrap();
        let units = Amount::from_units(limit).unwrap();
        assert_eq!(
            (rule.limit, rule.window, rule.enforcement, rule.unit),
            (units, window, enforcement, Unit::Cost)
        );
        assert_eq!(rule.accounts_max, if name.ends_with("plan") { 5 } else { 0 });
    }
    let domain = policy.domain("shop").unwrap();
    let limit = |pairs: [(&'static str, &'static str); 2]| {
        domain.find(pairs.into_iter()).unwrap().limit.as_ref().clone()
    };
    let seven = limit([("tenant", "t"), ("user", "7")]);
    assert!(seven.quota && !seven.shadow && seven.replaces == ["each"]);
    assert!(matches!(&seven.metadata, Some(Metadata::Map(fields)) if fields.len() == 2));
    for key in ["plan", "held"] {
        assert_eq!(limit([("tenant", "gold"), (key, "p")]).spending, Spending::Held, "{key}");
    }
    assert_eq!(limit([("tenant", "gold"), ("whole", "p")]).spending, Spending::Whole);
    let brought = domain.of_override(Window::Day).unwrap();
    assert_eq!(
        (brought.budget.rule.name.as_str(), &*brought.metric),
        ("shop/override/Day", "shop.override_Day")
    );
    assert!(domain.of_override(Window::Lifetime).is_none());
    // No request of a gateway's own is charged there.
    assert!(policy.all_budgets().iter().all(|budget| budget.is_of_descriptors()));
}

#[test]
fn a_domain_is_a_manifest_like_others() {
    let set = parse(ALL).unwrap();
    let object = set.objects().next().unwrap();
    assert_eq!((object.kind, object.name, object.summary.as_str()), ("RateLimitConfig", "shop", "10 limits"));
    let again = ManifestSet::from_document(&set.to_document()).unwrap();
    assert_eq!(again, set);
    let changed = parse(&ALL.replace("requests_per_unit: 10", "requests_per_unit: 11")).unwrap();
    let (merged, changes) = set.apply(&changed);
    assert_eq!(changes[0].action, Action::Configured);
    assert!(diff(&set, &merged).contains("11"), "{}", diff(&set, &merged));
    assert!(set.delete(&changed).0.is_empty());
    // With a budget of a kind with a head, in one file.
    let both = format!(
        "{ALL}---\napiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: b}}\nspec: {{limit: {{tokens: 5000}}, window: Day}}\n"
    );
    assert_eq!(parse(&both).unwrap().objects().count(), 2);
}

#[test]
fn what_somebody_manages_comes_and_goes_as_a_whole() {
    let of = |domain: &str, by: &str| {
        parse(&format!("domain: {domain}\n{by}descriptors: [{{key: a}}]\n")).unwrap()
    };
    let by = "managed_by: stream\n";
    let base = of("own", "").apply(&of("old", by)).0;
    let next = base.with_managed("stream", &of("new", by)).unwrap();
    let names: Vec<String> = next.objects().map(|object| object.name.to_owned()).collect();
    assert_eq!(names, ["new", "own"]);
    assert!(base.with_managed("stream", &of("own", by)).unwrap_err().contains("own"));
    assert_eq!(base.with_managed("stream", &ManifestSet::default()).unwrap().objects().count(), 1);
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, place, said) in [
        ("domain: ''\n", "line 1", "a domain of 0 bytes"),
        ("domain: d\ndescriptors: [{value: x}]\n", "line 2", "field key is missing"),
        ("domain: d\ndescriptors: [{key: ''}]\n", "descriptors[0].key", "1 to 1024 bytes"),
        ("domain: d\ndescriptors: [{key: a, velue: x}]\n", "descriptors[0].velue", "did you mean value"),
        ("domain: d\ndescriptors: [{key: a}, {key: a}]\n", "descriptors[1]", "stands twice"),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: fortnight}}]\n",
            "rate_limit.unit",
            "expected one of",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {requests_per_unit: 1}}]\n",
            "rate_limit",
            "unit is missing",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, unlimited: true}}]\n",
            "unit",
            "unlimited",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: -1}}]\n",
            "requests_per_unit",
            "whole number",
        ),
        ("domain: d\ndescriptors: [{key: a, share_threshold: true}]\n", "descriptors[0]", "share_threshold"),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, name: n, replaces: [{name: n}]}}]\n",
            "rate_limit",
            "replaces itself",
        ),
        (
            "domain: d\ndescriptors: [{key: a, reserve: true, enforcement: Count}]\n",
            "reserve",
            "enforcement Reserve",
        ),
        ("domain: d\n---\ndomain: d\n", "line 3", "stands twice"),
        (
            "apiVersion: ratelimit.config.ratelimit/v3\nkind: RateLimitConfig\nmetadata: {name: d}\nspec: {domain: d}\n",
            "spec",
            "begin the document with `domain:`",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(said) && error.contains(place), "{text}: {error}");
    }
    let (_, warnings) =
        compile("domain: quorate\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [{name: n}]}}]\n");
    assert!(warnings.iter().any(|one| one.contains("attributes_domain")), "{warnings:?}");
    assert!(warnings.iter().any(|one| one.contains("no limit is named n")), "{warnings:?}");
}

#[test]
fn two_descriptors_of_one_budget_are_told_apart() {
    for (descriptors, one, other) in [
        (
            "[{key: path, value: /api, descriptors: [{key: v1, rate_limit: {unit: day}}]}, {key: path, value: /api/v1, rate_limit: {unit: day}}]",
            "`path: /api > v1`",
            "`path: /api/v1`",
        ),
        (
            "[{key: a, value: b, rate_limit: {unit: day}}, {key: a=b, rate_limit: {unit: day}}]",
            "`a=b`",
            "`a=b`",
        ),
        (
            "[{key: override, descriptors: [{key: Day, rate_limit: {unit: day}}]}]",
            "`override > Day`",
            "requests bring",
        ),
    ] {
        let error =
            parse(&format!("domain: d\ndescriptors: {descriptors}\n")).unwrap().compile().unwrap_err();
        let error = error.to_string();
        assert!(error.contains(one) && error.contains(other), "{error}");
        assert!(error.contains("another key or value"), "{error}");
        assert!(!error.contains("metadata.name"), "{error}");
    }
}

#[test]
fn long_keys_and_domains_are_taken() {
    let (domain, key, value) = ("d".repeat(1024), "k".repeat(1024), "v".repeat(1024));
    let (policy, _) = compile(&format!(
        "domain: {domain}\ndescriptors: [{{key: {key}, value: {value}, descriptors: [{{key: user, rate_limit: {{unit: day}}}}]}}]\n"
    ));
    let found = policy.domain(&domain).unwrap().find([(&*key, &*value), ("user", "a")].into_iter()).unwrap();
    assert_eq!((found.subject.as_str(), found.budget.unwrap().rule.name.len()), ("a", 128));
}

#[test]
fn subjects_of_limits_that_requests_bring_tell_all_descriptors_apart() {
    let subject = |pairs: &[(&str, &str)]| override_subject(pairs.iter().copied());
    assert_eq!(subject(&[("a", "1"), ("b", "2 + 3")]), "a=1 + b=2 %2B 3");
    assert_ne!(subject(&[("a", "1"), ("b", "2")]), subject(&[("a", "1 + b=2")]));
    // Whoever charges it makes it fit.
    assert_eq!(subject(&[("a", "x".repeat(600).as_str())]).len(), 602);
}

/// What the tree says, looked for by hand.
#[derive(Debug, Clone)]
struct Spec {
    key: &'static str,
    value: &'static str,
    limited: bool,
    below: Vec<Spec>,
}

fn stars(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((start, rest)) => value.strip_prefix(start).is_some_and(|left| {
            (0..=left.len()).any(|at| left.is_char_boundary(at) && stars(rest, &left[at..]))
        }),
    }
}

fn naive<'a>(level: &'a [Spec], entries: &[(&str, &str)]) -> Option<&'a Spec> {
    let [(key, value), rest @ ..] = entries else { return None };
    let of_key = || level.iter().filter(|one| one.key == *key);
    let exact = of_key().find(|one| !one.value.is_empty() && !one.value.contains('*') && one.value == *value);
    let wild = of_key().find(|one| one.value.contains('*') && stars(one.value, value));
    let any = of_key().find(|one| one.value.is_empty());
    let one = exact.or(wild).or(any)?;
    if rest.is_empty() { Some(one).filter(|one| one.limited) } else { naive(&one.below, rest) }
}

fn any_level(depth: u32) -> BoxedStrategy<Vec<Spec>> {
    let below = if depth == 0 { Just(Vec::new()).boxed() } else { any_level(depth - 1) };
    let key = proptest::sample::select(vec!["a", "b"]);
    let value = proptest::sample::select(vec!["", "1", "12", "1*", "*2", "1*2", "*", "*1*"]);
    let one = (key, value, any::<bool>(), below).prop_map(|(key, value, limited, below)| Spec {
        key,
        value,
        limited,
        below,
    });
    proptest::collection::vec(one, 0..5)
        .prop_map(|mut level| {
            let mut known: Vec<(&str, &str)> = Vec::new();
            level.retain(|one| {
                let new = !known.contains(&(one.key, one.value));
                known.push((one.key, one.value));
                new
            });
            level
        })
        .boxed()
}

fn written(level: &[Spec], indent: usize) -> String {
    let mut text = String::new();
    for one in level {
        let pad = " ".repeat(indent);
        text.push_str(&format!("{pad}- key: {:?}\n{pad}  value: {:?}\n", one.key, one.value));
        if one.limited {
            text.push_str(&format!("{pad}  rate_limit: {{unit: day, requests_per_unit: 1}}\n"));
        }
        if !one.below.is_empty() {
            text.push_str(&format!("{pad}  descriptors:\n{}", written(&one.below, indent + 2)));
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_search_finds(
        level in any_level(2),
        asked in proptest::collection::vec(
            proptest::collection::vec(("[ab]", "[12]{0,3}"), 1..4), 1..8),
    ) {
        let descriptors = written(&level, 2);
        let head = if level.is_empty() { "descriptors: []\n".to_owned() } else { format!("descriptors:\n{descriptors}") };
        let (policy, _) = compile(&format!("domain: d\n{head}"));
        let domain = policy.domain("d").unwrap();
        for entries in &asked {
            let pairs: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let expected = naive(&level, &pairs);
            let found = domain.find(pairs.iter().copied());
            prop_assert_eq!(found.is_some(), expected.is_some(), "{:?} in\n{}", pairs, descriptors);
            if let (Some(found), Some(expected)) = (found, expected) {
                let step = if expected.value.is_empty() { expected.key.to_owned() } else { format!("{}={}", expected.key, expected.value) };
                let name = &found.budget.unwrap().rule.name;
                prop_assert!(name.ends_with(&format!("/{step}")), "{} is not {}", name, step);
            }
        }
    }
}
