//! Policy files that nobody wrote in good faith: refused within bounds, and without a panic.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fmt::Write as _;

use proptest::prelude::*;
use quorate_policy::{BUDGETS_MAX, DOCUMENT_MAX_BYTES, Policy};

const GOOD: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: user-hourly}
spec: {subject: [{header: x-user-id}, model], limit: {tokens: 250}, window: Hour, output: {default: 64, floor: 8}}
";

fn refusal(text: &str) -> String {
    let error = Policy::parse(text).unwrap_err().to_string();
    assert!(error.len() < 1_000, "the error has {} bytes", error.len());
    assert!(!error.chars().any(char::is_control), "{error:?}");
    error
}

fn budgets(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        write!(
            text,
            "---\n{{apiVersion: quorate.dev/v1alpha1, kind: Budget, metadata: {{name: b{number}}}, spec: {{limit: {{tokens: 9999}}, window: Day}}}}\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn bounds_hold_at_the_edge() {
    let budgets_of_most = budgets(BUDGETS_MAX);
    assert_eq!(Policy::parse(&budgets_of_most).unwrap().rules().len(), BUDGETS_MAX);
    let error = refusal(&budgets(BUDGETS_MAX + 1));
    assert!(error.contains("document 257") && error.contains("more than 256 budgets"), "{error}");

    let padded = |bytes: usize| format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1));
    assert!(Policy::parse(&padded(DOCUMENT_MAX_BYTES)).is_ok());
    assert!(refusal(&padded(DOCUMENT_MAX_BYTES + 1)).contains("60001 bytes, more than 60000"));

    let named = |bytes: usize| GOOD.replace("user-hourly", &"n".repeat(bytes));
    assert!(Policy::parse(&named(128)).is_ok());
    assert!(refusal(&named(129)).contains("a name of 129 bytes"));

    let subject = |parts: usize| {
        let parts: Vec<String> = (0..parts).map(|part| format!("{{header: h{part}}}")).collect();
        GOOD.replace("{header: x-user-id}, model", &parts.join(", "))
    };
    assert!(Policy::parse(&subject(8)).is_ok());
    assert!(refusal(&subject(9)).contains("9 parts, at most 8"));
}

#[test]
fn aliases_do_not_multiply() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{before}]").unwrap();
    }
    // As an unknown field, where it is passed over unread; and as fields that are read.
    let error = refusal(&format!("{laughs}{GOOD}"));
    assert!(error.contains("unknown field `a0`"), "{error}");
    for field in ["subject", "output", "window"] {
        refusal(&format!("{laughs}{}", GOOD.replace("spec: {", &format!("spec: {{{field}: *a11, "))));
    }
    // An anchor that holds itself.
    refusal(&GOOD.replace("subject: [", "subject: &s [*s, "));
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", ""), ("{a: ", ""), ("- ", ""), ("[", "]"), ("? ", "")] {
        let depth = 50_000 / (open.len() + close.len());
        refusal(&format!("{}{}", open.repeat(depth), close.repeat(depth)));
        refusal(&format!("kind: {}{}", open.repeat(depth), close.repeat(depth)));
        refusal(&format!("{GOOD}more: {}x{}", open.repeat(200), close.repeat(200)));
    }
}

#[test]
fn an_error_quotes_little_and_nothing_that_moves_a_cursor() {
    let long = refusal(&GOOD.replace("window: Hour", &format!("window: {}", "w".repeat(50_000))));
    assert!(long.contains("unknown variant `www"), "{long}");
    let escape = refusal(&GOOD.replace("window: Hour", "\"\\e[2Jwindow\\n\": Hour"));
    assert!(escape.contains("\\u{1b}[2Jwindow\\n"), "{escape}");
}

/// A small file's worth of characters that mean something in YAML, in place of whatever stood there.
fn mutations() -> impl Strategy<Value = Vec<(usize, String)>> {
    let piece = prop_oneof!["[-:{}\\[\\]&*!|>'\"%@`#?, \n\t]{1,6}", ".{0,8}", "[0-9.eE+_-]{1,24}"];
    prop::collection::vec((0..GOOD.len() * 2, piece), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Policy::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(mutations in mutations()) {
        let mut text: Vec<char> = format!("{GOOD}---\n{GOOD}").chars().collect();
        for (place, piece) in mutations {
            let place = place.min(text.len());
            let end = (place + piece.len() / 2).min(text.len());
            text.splice(place..end, piece.chars());
        }
        if let Ok(policy) = Policy::parse(&text.into_iter().collect::<String>()) {
            // What was taken keeps to the bounds.
            for rule in policy.rules() {
                prop_assert!(!rule.limit.is_zero() && (1..=128).contains(&rule.name.len()));
            }
            let _ = policy.warnings();
            let _ = policy.tenant_of(|_| None);
        }
    }
}
