//! Policy files as people write them, right and wrong.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use proptest::prelude::*;
use quorate_policy::{MatchError, Policy};

const GOOD: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: user-hourly}
spec:
  tenant: acme
  subject:
    - header: X-User-Id
    - model
  limit: {tokens: 250}
  window: Hour
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata:
  name: team-daily
spec:
  limit:
    tokens: 1000
  window: Day
  output: {default: 64, floor: 8}
";

#[test]
fn a_request_meets_every_budget_of_its_tenant() {
    let policy = Policy::parse(GOOD).unwrap();
    let header = |name: &str| (name == "x-user-id").then(|| "alice".to_owned());
    assert_eq!(policy.tenant_of(header).unwrap(), "default");
    let met = |tenant: &str| -> Vec<(String, String)> {
        let matches = policy.matching(tenant, "gpt-4o", header).unwrap();
        matches.into_iter().map(|met| (met.budget.name.clone(), met.subject)).collect()
    };
    let team = ("team-daily".to_owned(), String::new());
    assert_eq!(met("acme"), [("user-hourly".to_owned(), "alice + gpt-4o".to_owned()), team.clone()]);
    assert_eq!(met("other"), [team]);
    assert_eq!(policy.rules().len(), 2);
}

#[test]
fn mistakes_name_their_place() {
    let cases = [
        (
            "window: Hour",
            "windw: Hour",
            "line 10, column 3: spec: unknown field `windw`",
            "did you mean window?",
        ),
        (
            "window: Day",
            "window: Dya",
            "line 19, column 11: spec.window: unknown variant",
            "did you mean Day?",
        ),
        ("kind: Budget\n", "kind: Budgte\n", "document 1, line 2, column 7: kind", "did you mean Budget?"),
        ("v1alpha1", "v1alpha2", "line 1, column 13: apiVersion", "did you mean quorate.dev/v1alpha1?"),
        ("- model", "- modle", "line 8, column 7: spec.subject[1]", "did you mean model?"),
        ("- header: X", "- heder: X", "spec.subject[0]: unknown field `heder`", "did you mean header?"),
        ("- model", "- header: 'x y'", "line 8, column 15: spec.subject[1].header", "no header name"),
        ("- model", "- header", "spec.subject[1]", "header needs a name"),
        ("- model", "- [model]", "spec.subject[1]", "expected `model` or `header: NAME`"),
        ("- model", "- header: x-user-id", "from line 1, spec.subject", "header x-user-id stands twice"),
        (
            "X-User-Id",
            "Authorization",
            "spec.subject[0].header: header authorization carries keys",
            "x-user-id",
        ),
        ("tokens: 250", "tokens: 0", "line 9, column 19: spec.limit.tokens", "from 1 to 1000000000000"),
        ("tokens: 250", "tokens: -3", "line 9, column 19: spec.limit.tokens", "from 1 to"),
        ("tokens: 250", "tokens: 2.5", "line 9, column 19: spec.limit.tokens", "from 1 to"),
        ("tokens: 250", "tokens: many", "line 9, column 19: spec.limit.tokens", "from 1 to"),
        ("tokens: 250", "tokens: 1000000000001", "line 9, column 19: spec.limit.tokens", "from 1 to"),
        ("tokens: 250", "dollars: 250", "spec.limit: unknown field `dollars`, expected `tokens`", ""),
        ("name: user-hourly", "name: ''", "line 3, column 18: metadata.name", "1 to 128 bytes"),
        ("tenant: acme", "tenant: \"a\\tb\"", "line 5, column 11: spec.tenant", "control characters"),
        ("team-daily", "user-hourly", "document 2, from line 12, metadata.name", "stands twice"),
        ("default: 64", "default: 4", "document 2, from line 12, spec.output", "1 <= floor <= default"),
        ("floor: 8", "floor: 0", "document 2, from line 12, spec.output", "1 <= floor <= default"),
        ("spec:\n  tenant: acme", "spac:\n  tenant: acme", "line 4", "did you mean spec?"),
    ];
    for (right, wrong, place, message) in cases {
        assert!(GOOD.contains(right), "{right} is not in the example");
        let error = Policy::parse(&GOOD.replacen(right, wrong, 1)).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(message), "{wrong}: {error}");
    }
}

#[test]
fn identity_names_the_header_and_the_default_tenant() {
    let identity = "apiVersion: quorate.dev/v1alpha1\nkind: Identity\nspec:\n  tenant: {header: X-Team}\n";
    let strict = Policy::parse(&format!("{identity}---\n{GOOD}")).unwrap();
    let team = |value: &str| {
        let value = value.to_owned();
        move |name: &str| (name == "x-team").then(|| value.clone())
    };
    assert_eq!(strict.tenant_of(team("red")).unwrap(), "red");
    for missing in [strict.tenant_of(|_| None), strict.tenant_of(team(""))] {
        assert_eq!(missing, Err(MatchError::NoTenant { header: "x-team".to_owned() }));
    }
    assert!(matches!(strict.tenant_of(team("a\u{7}")), Err(MatchError::BadTenant { .. })));
    assert!(matches!(
        strict.tenant_of(team(&"x".repeat(129))),
        Err(MatchError::BadTenant { bytes: 129, .. })
    ));
    let with_default = identity.replace("X-Team}", "X-Team, default: all}");
    assert_eq!(Policy::parse(&with_default).unwrap().tenant_of(|_| None).unwrap(), "all");

    let twice = Policy::parse(&format!("{identity}---\n{identity}")).unwrap_err().to_string();
    assert!(twice.contains("document 2, from line 6") && twice.contains("at most one"), "{twice}");
    let key = Policy::parse(&identity.replace("X-Team", "x-api-key")).unwrap_err().to_string();
    assert!(key.contains("line 4") && key.contains("spec.tenant.header"), "{key}");
}

#[test]
fn documents_begin_at_every_kind_of_marker() {
    let (first, second) = GOOD.split_once("---\n").unwrap();
    for marker in ["---\n", "--- # the second\n", "---\r\n", "---  \n# a word\n\n---\n"] {
        let policy = Policy::parse(&format!("---\n# mine\n---\n{first}{marker}{second}---\n")).unwrap();
        assert_eq!(policy.rules().len(), 2, "{marker:?}");
    }
    let broken = format!("---\n{first}--- # the second\n{}", second.replace("Day", "Dy"));
    let error = Policy::parse(&broken).unwrap_err().to_string();
    assert!(error.contains("document 2, line 20, column 11"), "{error}");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warnings = |text: &str| Policy::parse(text).unwrap().warnings();
    let fine = GOOD.replace("tokens: 250", "tokens: 2500");
    assert_eq!(warnings(&fine), Vec::<String>::new());
    let expect = |text: &str, part: &str| {
        let warnings = warnings(text);
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{part}: {warnings:?}");
    };
    expect("# nothing\n", "no budgets");
    expect(GOOD, "user-hourly: the limit is below output.default");
    expect(&fine.replace("tokens: 1000", "tokens: 7"), "team-daily: the limit is below output.floor");
    expect(&fine.replace("window: Hour", "window: Second"), "user-hourly: a request usually runs for more");
    let again = fine.split("---").nth(1).unwrap().replace("team-daily", "team-again");
    expect(&format!("{fine}---{again}"), "team-daily and team-again count the same requests");
}

#[test]
fn a_missing_header_is_one_shared_subject() {
    let policy = Policy::parse(GOOD).unwrap();
    let matches = policy.matching("acme", "gpt-4o", |_| None).unwrap();
    assert_eq!(matches[0].subject, " + gpt-4o");
    let long = policy.matching("acme", "gpt-4o", |_| Some("x".repeat(600)));
    assert!(matches!(long, Err(MatchError::SubjectTooLong { .. })));
}

proptest! {
    #[test]
    fn subjects_of_different_users_differ(a in ".{0,20}", b in ".{0,20}", c in "[+ %a]{0,4}", d in "[+ %a]{0,4}") {
        let policy = Policy::parse(&GOOD.replace("- model", "- header: x-team")).unwrap();
        let subject = |user: &str, team: &str| {
            let value = |name: &str| Some(if name == "x-team" { team.to_owned() } else { user.to_owned() });
            policy.matching("acme", "m", value).unwrap()[0].subject.clone()
        };
        prop_assert_eq!(subject(&a, &c) == subject(&b, &d), (&a, &c) == (&b, &d));
        prop_assert_eq!(subject(&c, &d) == subject(&d, &c), c == d);
    }
}
