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
    /// Labels of targets; each selector on its own.
    pub labels: Vec<LabelSelector>,
}

/// All of these must hold for the labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    equal: BTreeMap<String, String>,
    tests: Vec<(String, LabelTest)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelTest {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.equal.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.tests.iter().all(|(key, test)| match (test, labels.get(key)) {
                (LabelTest::In(values), Some(value)) => values.contains(value),
                (LabelTest::NotIn(values), Some(value)) => !values.contains(value),
                (LabelTest::Exists, value) => value.is_some(),
                (LabelTest::DoesNotExist, value) => value.is_none(),
                (LabelTest::In(_), None) => false,
                (LabelTest::NotIn(_), None) => true,
            })
    }
}

const TARGETS_MAX: usize = 256;
const EXPRESSIONS_MAX: usize = 64;

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
fn labels(at: &Cursor<'_>, kinds: &[&str]) -> Option<LabelSelector> {
    let fields = at.fields()?;
    fields.get("group").and_then(|group| known_group(&group));
    fields.need("kind").and_then(|kind| known_kind(&kind, kinds));
    let equal = fields.get("matchLabels").map(|labels| text_map(&labels)).unwrap_or_default();
    let tests = fields.list("matchExpressions", EXPRESSIONS_MAX).iter().filter_map(label_test).collect();
    fields.unsupported("namespaces", "give each namespace a policy of its own");
    fields.done();
    Some(LabelSelector { equal, tests })
}

/// `{key, operator, values}`
fn label_test(at: &Cursor<'_>) -> Option<(String, LabelTest)> {
    const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
    let fields = at.fields()?;
    let key = fields.need("key").and_then(|key| key.text());
    let operator = fields.need("operator").and_then(|operator| operator.text().map(|word| (operator, word)));
    let values = fields.list("values", EXPRESSIONS_MAX);
    fields.done();
    let values = values.iter().filter_map(|value| value.text()).map(str::to_owned).collect();
    let (operator, word) = operator?;
    let test = match word {
        "In" => LabelTest::In(values),
        "NotIn" => LabelTest::NotIn(values),
        "Exists" => LabelTest::Exists,
        "DoesNotExist" => LabelTest::DoesNotExist,
        _ => return operator.unknown(word, &OPERATORS),
    };
    Some((key?.to_owned(), test))
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
