//! Manifests from a hostile or unlucky hand: the bounds hold, and the answer is an error that names the place, not a panic.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fmt::Write as _;

use proptest::prelude::*;
use quorate_policy::manifests::{ManifestSet, Mode, PolicyErrors, Source};

const GOOD: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: user-hourly}
spec: {subject: [{header: x-user-id}, model], limit: {tokens: 250}, window: Hour, output: {default: 64, floor: 8}}
";
const DOCUMENT_MAX_BYTES: usize = 4 * 1024 * 1024;

fn parse(text: &str) -> Result<ManifestSet, PolicyErrors> {
    let (set, _) = ManifestSet::parse(&[Source { name: "f.yaml", text }], Mode::Strict)?;
    set.compile()?;
    Ok(set)
}

fn refusal(text: &str) -> String {
    let errors = parse(text).unwrap_err();
    for error in &errors.errors {
        let error = error.to_string();
        assert!(error.len() < 1_000, "the error has {} bytes", error.len());
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
    errors.to_string()
}

fn budgets(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        write!(
            text,
            "---\n{{apiVersion: quorate.dev/v1alpha1, kind: Budget, metadata: {{name: b{number}}}, spec: {{tenant: t{number}, limit: {{tokens: 9999}}, window: Day}}}}\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn bounds_hold_at_the_edge() {
    assert_eq!(parse(&budgets(20_000)).unwrap().compile().unwrap().0.rules().len(), 20_000);
    assert!(refusal(&budgets(20_001)).contains("20001 budgets, more than 20000"));

    let padded = |bytes: usize| format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1));
    assert!(parse(&padded(DOCUMENT_MAX_BYTES)).is_ok());
    assert!(refusal(&padded(DOCUMENT_MAX_BYTES + 1)).contains("4194305 bytes in all, more than 4194304"));

    let named = |bytes: usize| GOOD.replace("user-hourly", &"n".repeat(bytes));
    assert!(parse(&named(128)).is_ok());
    assert!(refusal(&named(129)).contains("a name of 129 bytes"));

    let subject = |parts: usize| {
        let parts: Vec<String> = (0..parts).map(|part| format!("{{header: h{part}}}")).collect();
        GOOD.replace("{header: x-user-id}, model", &parts.join(", "))
    };
    assert!(parse(&subject(8)).is_ok());
    assert!(refusal(&subject(9)).contains("9 entries, at most 8"));
}

#[test]
fn aliases_do_not_multiply() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{before}]").unwrap();
    }
    // As an unknown field, and as fields that are read.
    for text in
        [format!("{laughs}{GOOD}"), format!("{laughs}{}", GOOD.replace("window: Hour", "window: *a11"))]
    {
        let error = refusal(&text);
        assert!(error.contains("too much") || error.contains("too many"), "{error}");
    }
    // An anchor that holds itself, and one that is not there.
    assert!(refusal(&GOOD.replace("subject: [", "subject: &s [*s, ")).contains("line 4"));
    assert!(refusal(&GOOD.replace("window: Hour", "window: *gone")).contains("line 4"));
    // A long chain of anchors, each a level deeper.
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(refusal(&format!("{chain}{GOOD}")).contains("64 levels"));
    // Honest use.
    let honest = GOOD.replace("default: 64, floor: 8", "default: &n 64, floor: *n");
    assert!(parse(&honest).is_ok());
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", ""), ("{a: ", ""), ("- ", ""), ("[", "]"), ("? ", ""), ("{", "}")] {
        let depth = 50_000 / (open.len() + close.len());
        refusal(&format!("{}{}", open.repeat(depth), close.repeat(depth)));
        refusal(&format!("kind: {}{}", open.repeat(depth), close.repeat(depth)));
        refusal(&format!("{GOOD}more: {}x{}", open.repeat(200), close.repeat(200)));
    }
}

#[test]
fn an_error_quotes_little_and_nothing_that_moves_a_cursor() {
    let long = refusal(&GOOD.replace("window: Hour", &format!("window: {}", "w".repeat(50_000))));
    assert!(long.contains("unknown value `www"), "{long}");
    let escape = refusal(&GOOD.replace("window: Hour", "\"\\e[2Jwindow\\n\": Hour"));
    assert!(escape.contains("\\u{1b}[2Jwindow\\n"), "{escape}");
    // Nothing but mistakes: the first ones are shown, the others counted.
    let many: String = (0..500).map(|number| format!("---\nkind: K{number}\n")).collect();
    let errors = refusal(&many);
    assert!(errors.lines().count() <= 21 && errors.contains("more mistakes"), "{errors}");
}

#[test]
fn a_file_of_nothing_but_unknown_fields_is_refused_soon() {
    let fields: String = (0..300_000).map(|number| format!("f{number}: 1\n")).collect();
    for text in [format!("{GOOD}{fields}"), format!("{GOOD}<<: &m {{}}\n{fields}")] {
        assert!(refusal(&text).contains("unknown field `f0`"));
        let (_, said) = ManifestSet::parse(&[Source { name: "f.yaml", text: &text }], Mode::Lenient).unwrap();
        assert_eq!(said.len(), 1_000);
    }
}

#[test]
fn what_aliases_stand_for_counts_towards_the_size() {
    let long = "x".repeat(120);
    let labels: String = (0..60).map(|number| format!("k{number}: {long}, ")).collect();
    let first = GOOD.replace("{name: user-hourly}", &format!("{{name: first, labels: &l {{{labels}}}}}"));
    let items: String = (0..900)
        .map(|number| format!(", {{apiVersion: quorate.dev/v1alpha1, kind: Budget, metadata: {{name: b{number}, labels: *l}}, spec: &s {{limit: {{tokens: 9}}, window: Day}}}}"))
        .collect();
    let first = first.replace('\n', ", ");
    let list = format!("apiVersion: v1\nkind: List\nitems: [{{{}}}{items}]\n", first.trim_end_matches(", "));
    let error = refusal(&list);
    assert!(error.contains("bytes in all, more than 4194304"), "{error}");
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
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(mutations in mutations()) {
        let mut text: Vec<char> = format!("{GOOD}---\n{GOOD}").chars().collect();
        for (place, piece) in mutations {
            let place = place.min(text.len());
            let end = (place + piece.len() / 2).min(text.len());
            text.splice(place..end, piece.chars());
        }
        if let Ok(set) = parse(&text.into_iter().collect::<String>()) {
            // What was taken keeps to the bounds, and means the same by way of its document.
            for rule in set.compile().unwrap().0.rules() {
                prop_assert!(!rule.limit.is_zero() && (1..=128).contains(&rule.name.len()));
            }
            let document = set.to_document();
            prop_assert_eq!(ManifestSet::from_document(&document).unwrap().to_document(), document);
        }
    }
}
