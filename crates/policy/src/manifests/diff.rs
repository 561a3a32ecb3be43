//! What applying a set would change: a unified diff for each object.

use std::collections::BTreeSet;

use similar::TextDiff;

use crate::manifests::object::{Object, ObjectKey, Spec};
use crate::manifests::set::ManifestSet;

const CONTEXT_LINES: usize = 3;

/// Every object that differs, in canonical order; empty: nothing does. Secrets are left out.
pub fn diff(old: &ManifestSet, new: &ManifestSet) -> String {
    let keys: BTreeSet<&ObjectKey> = old.by_key().keys().chain(new.by_key().keys()).collect();
    let mut text = String::new();
    for key in keys {
        let (before, after) = (old.by_key().get(key), new.by_key().get(key));
        if before.or(after).is_some_and(|object| matches!(object.spec, Spec::Secret(_))) {
            continue;
        }
        let (before, after) = (yaml(before), yaml(after));
        if before != after {
            let title = |prefix: &str, yaml: &str| {
                if yaml.is_empty() { "/dev/null".to_owned() } else { format!("{prefix}/{key}") }
            };
            let diff = TextDiff::from_lines(before, after);
            let mut unified = diff.unified_diff();
            unified.context_radius(CONTEXT_LINES).header(&title("old", before), &title("new", after));
            text.push_str(&unified.to_string());
        }
    }
    text
}

fn yaml(object: Option<&Object>) -> &str {
    object.map_or("", |object| &object.yaml)
}
