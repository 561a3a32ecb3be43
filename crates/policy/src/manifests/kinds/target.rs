//! What a policy is attached to: `targetRefs`, `targetRef`, `targetSelectors`.

use std::collections::BTreeMap;

use crate::manifests::kind::{AI_GATEWAY, ENVOY_GATEWAY, GATEWAY_API};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;

/// The name of another object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub kind: String,
    /// `None`: the namespace of the object that refers.
    pub namespace: Option<String>,
    pub name: String,
}

/// What a policy is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub references: Vec<Reference>,
    /// Labels of targets; each map selects on its own.
    pub labels: Vec<BTreeMap<String, String>>,
}

const TARGETS_MAX: usize = 256;

impl Targets {
    /// At least one target; `kinds` are those that it may have.
    pub fn read(fields: &Fields<'_>, kinds: &[&str]) -> Self {
        let mut targets = Self::default();
        let single = fields.get("targetRef");
        let listed = fields.list("targetRefs", TARGETS_MAX);
        for target in single.iter().chain(&listed) {
            targets.references.extend(reference(target, kinds));
        }
        for selector in fields.list("targetSelectors", TARGETS_MAX) {
            targets.labels.extend(labels(&selector, kinds));
        }
        targets
    }
}

/// `{group, kind, name, sectionName}`
fn reference(at: &Cursor<'_>, kinds: &[&str]) -> Option<Reference> {
    let fields = at.fields()?;
    fields.get("group").and_then(|group| known_group(&group));
    let kind = fields.need("kind").and_then(|kind| known_kind(&kind, kinds));
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    let namespace = fields.get("namespace").and_then(|namespace| values::object_name(&namespace));
    fields.without_effect(&["sectionName"]);
    fields.done();
    Some(Reference { kind: kind?, namespace, name: name? })
}

/// `{group, kind, namespaces, matchLabels, matchExpressions}`
fn labels(at: &Cursor<'_>, kinds: &[&str]) -> Option<BTreeMap<String, String>> {
    let fields = at.fields()?;
    fields.get("group").and_then(|group| known_group(&group));
    fields.need("kind").and_then(|kind| known_kind(&kind, kinds));
    let labels = fields.need("matchLabels").map(|labels| text_map(&labels)).unwrap_or_default();
    fields.unsupported("matchExpressions", "use matchLabels or targetRefs");
    fields.unsupported("namespaces", "give each namespace a policy of its own");
    fields.done();
    (!labels.is_empty()).then_some(labels)
}

/// Any map of texts: labels, annotations.
pub(crate) fn text_map(at: &Cursor<'_>) -> BTreeMap<String, String> {
    at.entries()
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned())))
        .collect()
}

/// The group of a reference; empty is Kubernetes' own.
pub(crate) fn known_group(at: &Cursor<'_>) -> Option<String> {
    const GROUPS: [&str; 6] = [
        "",
        GATEWAY_API,
        AI_GATEWAY,
        ENVOY_GATEWAY,
        "inference.networking.k8s.io",
        "inference.networking.x-k8s.io",
    ];
    let group = at.text()?;
    if GROUPS.contains(&group) { Some(group.to_owned()) } else { at.unknown(group, &GROUPS[1..]) }
}

pub(crate) fn known_kind(at: &Cursor<'_>, kinds: &[&str]) -> Option<String> {
    let kind = at.text()?;
    if kinds.contains(&kind) { Some(kind.to_owned()) } else { at.unknown(kind, kinds) }
}
