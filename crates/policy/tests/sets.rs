//! Sets of objects: merged, taken away, compared, written and read again.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use quorate_policy::manifests::{Action, Change, ManifestSet, Mode, Source, diff};

const A: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: a}\nspec: {limit: {tokens: 100}, window: Hour}\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: ai}\nstringData:\n  apiKey: hunter2-hunter2\ndata: {other: aHVudGVyMg==}\n";

fn set(text: &str) -> ManifestSet {
    ManifestSet::parse(&[Source { name: "f.yaml", text }], Mode::Strict).unwrap().0
}

fn actions(changes: &[Change]) -> Vec<(String, Action)> {
    changes.iter().map(|change| (change.name.clone(), change.action)).collect()
}

#[test]
fn applying_creates_configures_and_leaves_alone() {
    let b = A.replace("name: a", "name: b");
    let (first, changes) = ManifestSet::default().apply(&set(&format!("{A}---\n{b}")));
    assert_eq!(actions(&changes), [("a".to_owned(), Action::Created), ("b".to_owned(), Action::Created)]);
    // Written otherwise, and the same.
    let same = "# a comment\nkind: \"Budget\"\napiVersion: 'quorate.dev/v1alpha1'\nmetadata:\n  namespace: default\n  name: a\nspec:\n  window: Hour\n  limit:\n    tokens: 100\n";
    let other = b.replace("100", "200");
    let (second, changes) = first.apply(&set(&format!("{same}---\n{other}")));
    assert_eq!(
        actions(&changes),
        [("a".to_owned(), Action::Unchanged), ("b".to_owned(), Action::Configured)]
    );
    assert_eq!(second.objects().count(), 2);
    // The same name in another namespace, or of another kind, is another object.
    let elsewhere = A.replace("{name: a}", "{name: a, namespace: ai}");
    let (_, changes) = second.apply(&set(&elsewhere));
    assert_eq!(actions(&changes), [("a".to_owned(), Action::Created)]);
    assert_eq!(changes[0].namespace, "ai");
}

#[test]
fn deleting_goes_by_name() {
    let all = set(&format!("{A}---\n{}", A.replace("name: a", "name: b")));
    let named = format!("{}---\n{}", A.replace("100", "5"), A.replace("name: a", "name: c"));
    let (left, changes) = all.delete(&set(&named));
    assert_eq!(actions(&changes), [("a".to_owned(), Action::Deleted), ("c".to_owned(), Action::NotFound)]);
    assert_eq!(left.objects().map(|object| object.name.to_owned()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_secret_is_accepted_and_shown_nowhere() {
    let both = set(&format!("{SECRET}---\n{A}"));
    let (applied, changes) = ManifestSet::default().apply(&both);
    assert_eq!(actions(&changes), [("a".to_owned(), Action::Created)]);
    let mut shown = vec![applied.to_document(), format!("{applied:?}"), format!("{changes:?}")];
    shown.push(diff(&ManifestSet::default(), &applied));
    shown.extend(applied.objects().map(|object| format!("{object:?}")));
    for text in [
        SECRET.replace("stringData:", "stringDta:"),
        SECRET.replace("hunter2-hunter2", "[hunter2-hunter2]"),
        SECRET.replace("hunter2-hunter2", "{hunter2-hunter2: 1}"),
        SECRET.replace("apiKey: hunter2-hunter2", "apiKey: 7742"),
        SECRET.replace("kind: Secret", "kind: Secrt"),
        SECRET.replace("apiKey: ", "apiKey "),
    ] {
        let error = ManifestSet::parse(&[Source { name: "f.yaml", text: &text }], Mode::Strict).unwrap_err();
        shown.push(format!("{error} {error:?}"));
    }
    for text in shown {
        assert!(!text.contains("hunter2") && !text.contains("aHVud") && !text.contains("7742"), "{text}");
    }
}

#[test]
fn differences_are_shown_per_object() {
    let old = set(&format!("{A}---\n{}", A.replace("name: a", "name: b")));
    let new = set(&format!("{}---\n{}", A.replace("100", "200"), A.replace("name: a", "name: c")));
    assert_eq!(diff(&old, &old), "");
    assert_eq!(
        diff(&old, &new),
        "\
--- old/Budget default/a
+++ new/Budget default/a
@@ -4,5 +4,5 @@
   name: a
 spec:
   limit:
-    tokens: 100
+    tokens: 200
   window: Hour
--- old/Budget default/b
+++ /dev/null
@@ -1,8 +0,0 @@
-apiVersion: quorate.dev/v1alpha1
-kind: Budget
-metadata:
-  name: b
-spec:
-  limit:
-    tokens: 100
-  window: Hour
--- /dev/null
+++ new/Budget default/c
@@ -0,0 +1,8 @@
+apiVersion: quorate.dev/v1alpha1
+kind: Budget
+metadata:
+  name: c
+spec:
+  limit:
+    tokens: 100
+  window: Hour
"
    );
}

#[test]
fn a_document_keeps_every_text_as_it_was() {
    let words = [
        "yes",
        "12",
        "1e3",
        "null",
        "~",
        "a: b",
        "- a",
        "#x",
        " lead",
        "trail ",
        "",
        "a\nb",
        "a\nb\n",
        "\n",
        "a\n\n b",
        "it's \"so\"",
        "back\\slash",
        "tab\there",
        "é ü 漢",
        "\u{7f}\u{2028}",
        "---",
        "@at",
        "%",
        "0x1f",
        "<<",
        "*a",
        "&a",
        "!t",
    ];
    for word in words {
        let quoted = format!("{word:?}").replace("\\u{7f}", "\\x7f").replace("\\u{2028}", "\\u2028");
        let text = A.replace("{name: a}", &format!("{{name: a, labels: {{{quoted}: {quoted}}}}}"));
        let one = set(&text);
        let document = one.to_document();
        let again = ManifestSet::from_document(&document)
            .unwrap_or_else(|errors| panic!("{word:?}: {errors}\n{document}"));
        assert_eq!(again.to_document(), document, "{word:?}");
        assert!(again == one, "{word:?}");
    }
}

/// YAML bounds the length of a key: one beyond it could be applied, and then read by nobody.
#[test]
fn a_key_is_refused_where_the_document_could_not_be_read_again() {
    let labelled = |key: &str| A.replace("{name: a}", &format!("{{name: a, labels: {{? \"{key}\" : v}}}}"));
    for (letter, most) in [("k", 1_000), ("\u{e9}", 499), ("\\x01", 99), ("\\\"", 499)] {
        let one = set(&labelled(&letter.repeat(most)));
        assert!(ManifestSet::from_document(&one.to_document()).unwrap() == one, "{letter:?}");
        let text = labelled(&letter.repeat(most + 1));
        let refused =
            ManifestSet::parse(&[Source { name: "f.yaml", text: &text }], Mode::Lenient).unwrap_err();
        assert!(refused.to_string().contains("line 3"), "{refused}");
        assert!(refused.to_string().contains("at most 1000"), "{refused}");
    }
}
