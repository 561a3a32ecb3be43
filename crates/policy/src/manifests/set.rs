//! A set of objects: what is applied, merged, replicated and compiled, always as a whole.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use quorate_ledger::POLICY_DOCUMENT_MAX_BYTES;

use crate::lower;
use crate::lower::Compiled;
use crate::manifests::error::{PolicyError, PolicyErrors};
use crate::manifests::object::{Object, ObjectKey, Spec};
use crate::manifests::parse::read_document;
use crate::manifests::report::{Mode, Report};
use crate::manifests::yaml::{Composer, chunks};
use crate::runtime::CompiledPolicy;

/// Values of all documents of a set. Twenty thousand budgets have less than a million.
const NODES_MAX: usize = 2_000_000;
/// What the source of a replicated document is called in errors.
const DOCUMENT: &str = "policy";
/// Before each object of a document.
const MARKER: &str = "---\n";

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its path, or `-`.
    pub name: &'a str,
    pub text: &'a str,
}

/// Objects by kind, namespace and name.
#[derive(Clone, Default)]
pub struct ManifestSet {
    objects: BTreeMap<ObjectKey, Object>,
}

/// What applying or deleting did to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Created,
    Configured,
    /// Formatting and comments do not count.
    Unchanged,
    Deleted,
    /// Nothing to delete.
    NotFound,
}

/// One object, to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectView<'a> {
    pub kind: &'static str,
    pub api_version: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Canonical. A Secret's is without its values.
    pub yaml: &'a str,
    /// The gist in a few words.
    pub summary: String,
}

impl ManifestSet {
    /// Reads and checks every object by itself; [`Self::compile`] checks what they mean together. Besides the set:
    /// warnings.
    ///
    /// # Errors
    /// All mistakes of all documents, each with file, line, column, path and the nearest known name.
    pub fn parse(sources: &[Source<'_>], mode: Mode) -> Result<(Self, Vec<String>), PolicyErrors> {
        let bytes: usize = sources.iter().map(|source| source.text.len()).sum();
        if bytes > POLICY_DOCUMENT_MAX_BYTES {
            let message = format!(
                "{bytes} bytes in all, more than {POLICY_DOCUMENT_MAX_BYTES}; let subjects separate users, or apply less"
            );
            let file = sources.first().map_or(DOCUMENT, |source| source.name);
            return Err(PolicyError::new(file, 0, 0, "", &message).into());
        }
        let mut set = Self::default();
        let mut composer = Composer::new(NODES_MAX);
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for source in sources {
            let report = Report::new(source.name, mode);
            for object in read_source(source, &mut composer, &report) {
                set.insert(object, &report);
            }
            let (found, said) = report.into_parts();
            errors.extend(found);
            warnings.extend(said);
        }
        match PolicyErrors::from_list(errors) {
            Some(errors) => Err(errors),
            None => Ok((set, warnings)),
        }
    }

    /// Reads what [`Self::to_document`] wrote. Fields that a newer version wrote are passed over.
    ///
    /// # Errors
    /// Not such a document.
    pub fn from_document(document: &str) -> Result<Self, PolicyErrors> {
        let source = Source { name: DOCUMENT, text: document };
        Self::parse(&[source], Mode::Lenient).map(|(set, _)| set)
    }

    /// All objects in canonical form and order. Secrets are never in it.
    pub fn to_document(&self) -> String {
        let mut document = String::with_capacity(self.document_bytes());
        for object in self.objects.values().filter(|object| !object.is_secret()) {
            document.push_str(MARKER);
            document.push_str(&object.yaml);
        }
        document
    }

    /// Of [`Self::to_document`].
    pub(crate) fn document_bytes(&self) -> usize {
        let kept = self.objects.values().filter(|object| !object.is_secret());
        kept.map(|object| MARKER.len() + object.yaml.len()).sum()
    }

    /// This set with the objects of `new` put in, and what became of each of those. Secrets change nothing.
    pub fn apply(&self, new: &Self) -> (Self, Vec<Change>) {
        let mut merged = self.clone();
        let mut changes = Vec::new();
        for (key, object) in &new.objects {
            let action = match merged.objects.get(key) {
                None => Action::Created,
                Some(old) if old.same(object) => Action::Unchanged,
                Some(_) => Action::Configured,
            };
            if !object.is_secret() {
                changes.push(change(key, action));
            }
            merged.objects.insert(key.clone(), object.clone());
        }
        (merged, changes)
    }

    /// This set without the objects that `named` has, whatever they say there.
    pub fn delete(&self, named: &Self) -> (Self, Vec<Change>) {
        let mut left = self.clone();
        let mut changes = Vec::new();
        for (key, object) in &named.objects {
            let action = if left.objects.remove(key).is_some() { Action::Deleted } else { Action::NotFound };
            if !object.is_secret() {
                changes.push(change(key, action));
            }
        }
        (left, changes)
    }

    /// This set with the rate limits of `sent` in place of all that `manager` manages.
    ///
    /// # Errors
    /// Somebody else has put one of the same name here.
    pub fn with_managed(&self, manager: &str, sent: &Self) -> Result<Self, String> {
        let managed = |object: &Object| matches!(&object.spec, Spec::RateLimits(config) if config.managed_by == manager);
        if let Some(key) =
            sent.objects.keys().find(|key| self.objects.get(key).is_some_and(|one| !managed(one)))
        {
            return Err(format!("{key} is there already, and {manager} does not manage it; delete it first"));
        }
        let mut next = self.clone();
        next.objects.retain(|_, object| !managed(object));
        next.objects.extend(sent.objects.iter().map(|(key, object)| (key.clone(), object.clone())));
        Ok(next)
    }

    /// What gateways and nodes run, and warnings. All or nothing.
    ///
    /// # Errors
    /// Objects that do not fit together, each named with its place.
    pub fn compile(&self) -> Result<(CompiledPolicy, Vec<String>), PolicyErrors> {
        self.compile_all().map(|compiled| (compiled.policy, compiled.warnings))
    }

    /// As [`Self::compile`], with what nodes need besides.
    ///
    /// # Errors
    /// As for [`Self::compile`].
    pub fn compile_all(&self) -> Result<Compiled, PolicyErrors> {
        lower::compile(self)
    }

    /// In the order of [`Self::to_document`].
    pub fn objects(&self) -> impl Iterator<Item = ObjectView<'_>> {
        self.objects.values().map(|object| ObjectView {
            kind: object.key.kind.name(),
            api_version: &object.api_version,
            namespace: &object.key.namespace,
            name: &object.key.name,
            yaml: &object.yaml,
            summary: object.spec.summary(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(crate) fn by_key(&self) -> &BTreeMap<ObjectKey, Object> {
        &self.objects
    }

    fn insert(&mut self, object: Object, report: &Report<'_>) {
        match self.objects.entry(object.key.clone()) {
            Entry::Vacant(free) => {
                free.insert(object);
            }
            Entry::Occupied(first) => {
                let first = &first.get().origin;
                let place = crate::manifests::yaml::Place { line: object.origin.line, column: 0 };
                let message = format!(
                    "{} stands twice, first in {} from line {}; give it another name",
                    object.key, first.file, first.line
                );
                report.error(place, "metadata.name", &message);
            }
        }
    }
}

/// Names only: the texts are long.
impl fmt::Debug for ManifestSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.objects.keys().map(ToString::to_string)).finish()
    }
}

/// Sets that mean the same.
impl PartialEq for ManifestSet {
    fn eq(&self, other: &Self) -> bool {
        self.objects.len() == other.objects.len()
            && self.objects.iter().all(|(key, object)| other.objects.get(key).is_some_and(|o| o.same(object)))
    }
}

impl Eq for ManifestSet {}

impl Object {
    fn is_secret(&self) -> bool {
        matches!(self.spec, Spec::Secret(_))
    }

    fn same(&self, other: &Self) -> bool {
        self.yaml == other.yaml
    }
}

fn read_source(source: &Source<'_>, composer: &mut Composer, report: &Report<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    for chunk in chunks(source.text) {
        match composer.compose(chunk) {
            Ok(documents) => {
                for document in documents {
                    read_document(&document, report, &mut objects);
                }
            }
            Err(flaw) => report.error(flaw.at, "", &flaw.message),
        }
    }
    objects
}

fn change(key: &ObjectKey, action: Action) -> Change {
    Change {
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        action,
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::NotFound => "not found",
        })
    }
}
