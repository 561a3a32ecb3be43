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
        (GOOD.replace("window: Hour", "windw: Hour"), "line 10", "did you mean window?"),
        (GOOD.replace("window: Day", "window: Dya"), "line 19", "did you mean Day?"),
        (GOOD.replace("kind: Budget", "kind: Budgte"), "document 1, kind", "did you mean Budget?"),
        (GOOD.replace("- model", "- modle"), "spec.subject[1]", "unknown part"),
        (GOOD.replace("tokens: 250", "tokens: 0"), "spec.limit.tokens", "at least one token"),
        (GOOD.replace("tokens: 250", "tokens: -3"), "line 9", "invalid"),
        (GOOD.replace("team-daily", "user-hourly"), "document 2", "stands twice"),
        (GOOD.replace("default: 64", "default: 4"), "spec.output", "floor <= default"),
    ];
    for (text, place, message) in cases {
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(message), "{error}");
    }
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
    fn no_bytes_make_it_panic(text in ".{0,400}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn subjects_of_different_users_differ(a in ".{0,20}", b in ".{0,20}", c in ".{0,20}", d in ".{0,20}") {
        let policy = Policy::parse(&GOOD.replace("- model", "- header: x-team")).unwrap();
        let subject = |user: &str, team: &str| {
            let value = |name: &str| Some(if name == "x-team" { team.to_owned() } else { user.to_owned() });
            policy.matching("acme", "m", value).unwrap()[0].subject.clone()
        };
        prop_assert_eq!(subject(&a, &b) == subject(&c, &d), (a, b) == (c, d));
    }
}
