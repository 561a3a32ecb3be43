//! What must hold of any text as manifests.

use quorate_policy::manifests::{Action, ManifestSet, Mode, PolicyErrors, Source, diff};
use quorate_policy::runtime::Identity;

use crate::scan::{self, Asked};

/// Between the objects that are in force and those that are applied to them. YAML has no form feed.
const IN_FORCE_END: char = '\u{c}';
const FILE: &str = "f.yaml";
const DOCUMENT_MAX_BYTES: usize = 4 << 20;

type Parsed = Result<(ManifestSet, Vec<String>), PolicyErrors>;

/// # Panics
/// It does not hold.
pub fn hold(text: &str) {
    let (in_force, new) = text.split_once(IN_FORCE_END).unwrap_or(("", text));
    let (strict, lenient) = (parse(new, Mode::Strict), parse(new, Mode::Lenient));
    for errors in [&strict, &lenient].into_iter().filter_map(|parsed| parsed.as_ref().err()) {
        each_names_its_place(errors, new);
    }
    lenient_takes_what_strict_takes(&strict, &lenient);
    let Ok((set, _)) = lenient else { return };
    let in_force = parse(in_force, Mode::Lenient).map(|(set, _)| set).unwrap_or_default();
    compiles_or_says_where(&set, new);
    means_the_same_by_way_of_its_document(&set);
    applies_and_deletes_by_name(&in_force, &set);
}

fn parse(text: &str, mode: Mode) -> Parsed {
    ManifestSet::parse(&[Source { name: FILE, text }], mode)
}

fn each_names_its_place(errors: &PolicyErrors, text: &str) {
    let lines = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    assert!(!errors.errors.is_empty());
    for error in &errors.errors {
        let shown = error.to_string();
        assert!(!error.message.is_empty() && shown.len() < 1_000, "{shown}");
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        // Too large is about the set as a whole: there is no line to name.
        if error.line > 0 || !error.message.contains("bytes in all") {
            assert_eq!(error.file, FILE, "{shown}");
            assert!((1..=lines + 1).contains(&error.line), "{shown}, of {lines} lines");
        }
    }
}

fn lenient_takes_what_strict_takes(strict: &Parsed, lenient: &Parsed) {
    match (strict, lenient) {
        (Ok((set, said)), Ok((same, said_too))) => {
            assert!(set == same);
            assert_eq!(said, said_too);
        }
        (Ok(_), Err(errors)) => panic!("only strict takes it: {errors}"),
        (Err(errors), Ok(_)) => {
            for error in &errors.errors {
                assert!(error.message.starts_with("unknown field"), "only lenient takes it: {error}");
            }
        }
        (Err(_), Err(_)) => {}
    }
}

fn compiles_or_says_where(set: &ManifestSet, text: &str) {
    let policy = match set.compile() {
        Ok((policy, _)) => policy,
        Err(errors) => return each_names_its_place(&errors, text),
    };
    for rule in policy.rules() {
        assert!((1..=128).contains(&rule.name.len()), "{:?}", rule.name);
    }
    let identity = Identity {
        tenant: "acme".into(),
        team: Some("engineering".into()),
        user: None,
        key: Some("k1".into()),
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![header("x-user-id", "alice"), header("x-tenant-id", "premium")];
    for (model, path, query, source) in [
        ("gpt-4o", "/v1/chat/completions", Some("plan=free"), "10.1.2.3"),
        ("small", "/v10", None, "2001:db8::1"),
        ("", "", Some("%70lan=%&plan"), "::ffff:10.0.0.1"),
    ] {
        let asked = Asked {
            method: "POST".into(),
            path: path.into(),
            query: query.map(Into::into),
            host: Some("API.example.com.:443".into()),
            bare_host: "api.example.com".into(),
            source: Some(source.parse().unwrap()),
            model: model.into(),
            headers: headers.clone(),
            identity: identity.clone(),
        };
        scan::agrees(&policy, &asked);
    }
}

fn means_the_same_by_way_of_its_document(set: &ManifestSet) {
    let document = set.to_document();
    if document.len() > DOCUMENT_MAX_BYTES {
        return assert!(set.compile().is_err());
    }
    let again = ManifestSet::from_document(&document).unwrap_or_else(|errors| panic!("{errors}\n{document}"));
    assert_eq!(again.to_document(), document);
    if set.objects().all(|object| object.kind != "Secret") {
        assert!(again == *set, "{document}");
    }
    match (set.compile(), again.compile()) {
        (Ok((policy, said)), Ok((same, said_too))) => {
            assert_eq!(format!("{:?}", policy.all_budgets()), format!("{:?}", same.all_budgets()));
            assert_eq!(policy.routes(), same.routes());
            assert_eq!(policy.backends(), same.backends());
            assert_eq!(policy.identity(), same.identity());
            assert_eq!(policy.prices(), same.prices());
            assert_eq!(said, said_too);
        }
        (Err(errors), Err(same)) => assert_eq!(messages(&errors), messages(&same)),
        (one, other) => panic!("{:?}, by way of its document {:?}", one.err(), other.err()),
    }
}

fn messages(errors: &PolicyErrors) -> Vec<(&str, &str)> {
    errors.errors.iter().map(|error| (error.path.as_str(), error.message.as_str())).collect()
}

fn applies_and_deletes_by_name(in_force: &ManifestSet, new: &ManifestSet) {
    let before = in_force.to_document();
    let (merged, changes) = in_force.apply(new);
    let names = |set: &ManifestSet| -> Vec<(String, String, String)> {
        let name = |object: quorate_policy::manifests::ObjectView<'_>| {
            (object.kind.to_owned(), object.namespace.to_owned(), object.name.to_owned())
        };
        set.objects().filter(|object| object.kind != "Secret").map(name).collect()
    };
    let (old_names, new_names, merged_names) = (names(in_force), names(new), names(&merged));
    assert_eq!(changes.len(), new_names.len());
    for change in &changes {
        let name = (change.kind.clone(), change.namespace.clone(), change.name.clone());
        assert!(new_names.contains(&name) && merged_names.contains(&name));
        assert_eq!(change.action == Action::Created, !old_names.contains(&name));
    }
    let changed = changes.iter().any(|change| change.action != Action::Unchanged);
    assert_eq!(changed, merged.to_document() != before);
    assert_eq!(changed, !diff(in_force, &merged).is_empty());

    let (again, changes) = merged.apply(new);
    assert!(again == merged && changes.iter().all(|change| change.action == Action::Unchanged));

    let (left, changes) = merged.delete(new);
    assert!(changes.iter().all(|change| change.action == Action::Deleted));
    let kept: Vec<_> = old_names.into_iter().filter(|name| !new_names.contains(name)).collect();
    assert_eq!(names(&left), kept);
    let (same, changes) = left.delete(new);
    assert!(same == left && changes.iter().all(|change| change.action == Action::NotFound));
    assert_eq!(in_force.to_document(), before, "a set changed in place");
}
