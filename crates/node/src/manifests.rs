//! Stands in for the manifests half of the policy crate until that has landed: its interface over today's parser.

use std::collections::BTreeMap;

use quorate_policy::Policy;
use quorate_policy::runtime::{Budget, CompiledPolicy, Cost, PolicyParts, Prices, SubjectPart, TokenKind};

pub(crate) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Strict,
    Lenient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Created,
    Configured,
    Unchanged,
    Deleted,
    NotFound,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub action: Action,
}

pub(crate) struct ObjectView<'a> {
    pub kind: &'a str,
    pub api_version: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub yaml: &'a str,
    pub summary: String,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::NotFound => "not found",
        })
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ManifestSet {
    objects: BTreeMap<(String, String), String>,
}

impl ManifestSet {
    pub fn parse(sources: &[Source<'_>], _mode: Mode) -> Result<(Self, Vec<String>), String> {
        let mut set = Self::default();
        for source in sources {
            Policy::parse(source.text).map_err(|error| format!("{}: {error}", source.name))?;
            for document in source.text.split("\n---") {
                let document = document.trim_start_matches("---").trim();
                let value: serde_yaml_ng::Value =
                    serde_yaml_ng::from_str(document).map_err(|error| error.to_string())?;
                if value.is_null() {
                    continue;
                }
                let text = |value: &serde_yaml_ng::Value| value.as_str().unwrap_or_default().to_owned();
                let key = (text(&value["kind"]), text(&value["metadata"]["name"]));
                set.objects.insert(key, format!("{document}\n"));
            }
        }
        Ok((set, Vec::new()))
    }

    pub fn from_document(document: &str) -> Result<Self, String> {
        Ok(Self::parse(&[Source { name: "policy", text: document }], Mode::Strict)?.0)
    }

    pub fn to_document(&self) -> String {
        self.objects.values().cloned().collect::<Vec<_>>().join("---\n")
    }

    pub fn apply(&self, new: &Self) -> (Self, Vec<Change>) {
        let mut next = self.clone();
        let changes = new.objects.iter().map(|(key, yaml)| {
            let action = match next.objects.insert(key.clone(), yaml.clone()) {
                None => Action::Created,
                Some(old) if old == *yaml => Action::Unchanged,
                Some(_) => Action::Configured,
            };
            Change { kind: key.0.clone(), namespace: String::new(), name: key.1.clone(), action }
        });
        let changes = changes.collect();
        (next, changes)
    }

    pub fn delete(&self, named: &Self) -> (Self, Vec<Change>) {
        let mut next = self.clone();
        let changes = named.objects.keys().map(|key| {
            let action = match next.objects.remove(key) {
                Some(_) => Action::Deleted,
                None => Action::NotFound,
            };
            Change { kind: key.0.clone(), namespace: String::new(), name: key.1.clone(), action }
        });
        let changes = changes.collect();
        (next, changes)
    }

    pub fn compile(&self) -> Result<(CompiledPolicy, Vec<String>), String> {
        let policy = Policy::parse(&self.to_document()).map_err(|error| error.to_string())?;
        let budgets = policy.budgets.iter().zip(policy.rules()).map(|(budget, rule)| {
            let subject = budget.subject.iter().map(|part| match part {
                quorate_policy::SubjectPart::Header(name) => SubjectPart::Header(name.clone()),
                quorate_policy::SubjectPart::Model => SubjectPart::Model,
            });
            let subject = subject.collect();
            Budget { subject, ..Budget::new(rule, Cost::Tokens(TokenKind::Total)) }
        });
        let parts =
            PolicyParts { budgets: budgets.collect(), prices: Prices::builtin(), ..Default::default() };
        let compiled = CompiledPolicy::new(parts).map_err(|error| error.to_string())?;
        Ok((compiled, policy.warnings()))
    }

    pub fn objects(&self) -> impl Iterator<Item = ObjectView<'_>> {
        self.objects.iter().map(|((kind, name), yaml)| ObjectView {
            kind,
            api_version: "quorate.dev/v1alpha1",
            namespace: "",
            name,
            yaml,
            summary: String::new(),
        })
    }
}

pub(crate) fn diff(old: &ManifestSet, new: &ManifestSet) -> String {
    format!("-{}\n+{}\n", old.to_document(), new.to_document())
}
