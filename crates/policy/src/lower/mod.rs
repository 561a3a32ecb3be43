//! From objects to the parts of a policy: references resolved, limits as budgets, all or nothing.
//!
//! Where the dialects of the manifests collide, what holds is decided here; docs/manifests.md has the table.

mod alert;
mod backends;
mod binding;
mod budgets;
mod costs;
mod identity;
mod naming;
mod quotas;
mod rate_limits;
mod routes;
mod traffic;
mod warnings;
mod zone;

use quorate_ledger::POLICY_DOCUMENT_MAX_BYTES;

use crate::manifests::object::{Object, ObjectKey, Spec};
use crate::manifests::{Kind, ManifestSet, PolicyError, PolicyErrors};
use crate::runtime::{Budget, CompileError, CompiledPolicy, PolicyParts, RateLimitDomain};

pub use alert::AlertRoute;

/// A policy, and what belongs to it besides.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub policy: CompiledPolicy,
    /// Where alerts are sent.
    pub alerts: Vec<AlertRoute>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

pub(crate) fn compile(set: &ManifestSet) -> Result<Compiled, PolicyErrors> {
    let bytes = set.document_bytes();
    if bytes > POLICY_DOCUMENT_MAX_BYTES {
        let message = format!(
            "the policy has {bytes} bytes in all, more than {POLICY_DOCUMENT_MAX_BYTES}; let subjects separate users, or delete what is not needed"
        );
        return Err(PolicyError::new("policy", 0, 0, "", &message).into());
    }
    let mut lowering = Lowering::new(set);
    let parts = PolicyParts {
        identity: identity::lower(&mut lowering),
        prices: identity::prices(&mut lowering),
        backends: backends::lower(&mut lowering),
        routes: routes::lower(&mut lowering),
        budgets: budgets_of(&mut lowering),
        domains: std::mem::take(&mut lowering.domains),
    };
    let mut said = warnings::find(&parts.budgets);
    let Lowering { alerts, mut warnings, errors, names, .. } = lowering;
    if let Some(errors) = PolicyErrors::from_list(errors) {
        return Err(errors);
    }
    warnings.append(&mut said);
    let policy = CompiledPolicy::new(parts).map_err(|error| refused(&names, &error))?;
    Ok(Compiled { policy, alerts, warnings })
}

/// In the order of the set: traffic policies, quotas, budgets, rate limits.
fn budgets_of(lowering: &mut Lowering<'_>) -> Vec<Budget> {
    for object in lowering.set.by_key().values() {
        match &object.spec {
            Spec::Traffic(policy) => traffic::lower(lowering, object, policy),
            Spec::Quota(quota) => quotas::lower(lowering, object, quota),
            Spec::Budget(budget) => budgets::lower(lowering, object, budget),
            Spec::RateLimits(config) => rate_limits::lower(lowering, object, config),
            _ => {}
        }
    }
    std::mem::take(&mut lowering.budgets)
}

/// What the runtime refuses, at the object that it came from.
fn refused(names: &naming::Names, error: &CompileError) -> PolicyErrors {
    let origin = match error {
        CompileError::Budget { budget, .. } => names.owner(budget),
        _ => None,
    };
    let (file, line) = origin.map_or(("policy", 0), |origin| (origin.file.as_str(), origin.line));
    PolicyError::new(file, line, 0, "", &error.to_string()).into()
}

/// What has been lowered so far, and what went wrong.
#[derive(Debug)]
pub(crate) struct Lowering<'a> {
    set: &'a ManifestSet,
    budgets: Vec<Budget>,
    domains: Vec<RateLimitDomain>,
    alerts: Vec<AlertRoute>,
    warnings: Vec<String>,
    errors: Vec<PolicyError>,
    names: naming::Names,
    zones: zone::Zones,
}

impl<'a> Lowering<'a> {
    fn new(set: &'a ManifestSet) -> Self {
        Self {
            set,
            budgets: Vec::new(),
            domains: Vec::new(),
            alerts: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            names: naming::Names::default(),
            zones: zone::Zones::default(),
        }
    }

    /// The objects of a kind, by namespace and name. Sets are large and most kinds in them few.
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &'a Object> + Clone + use<'a> {
        let first = ObjectKey { kind, namespace: String::new(), name: String::new() };
        self.set
            .by_key()
            .range(first..)
            .map(|(_, object)| object)
            .take_while(move |object| object.key.kind == kind)
    }

    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let key = ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        self.set.by_key().get(&key)
    }

    /// The object behind a backend's name, `namespace/name`.
    fn backend(&self, name: &str) -> Option<&'a Object> {
        let (namespace, name) = name.split_once('/')?;
        let kinds = [Kind::AIServiceBackend, Kind::AIBackend];
        kinds.into_iter().find_map(|kind| self.find(kind, namespace, name))
    }

    fn error(&mut self, object: &Object, path: &str, message: &str) {
        self.errors.push(mistake(object, path, message));
    }

    fn warn(&mut self, object: &Object, message: &str) {
        self.warnings.push(format!("{}: {message}", object.key));
    }

    /// Keeps a budget under its name, which must be free.
    fn push(&mut self, object: &Object, budget: Budget) {
        if let Err(other) = self.names.claim(&budget.rule.name, &object.key.to_string(), &object.origin) {
            let message = format!(
                "its budget {} has the name of one of {other}; give one of the two another name",
                budget.rule.name
            );
            self.error(object, "metadata.name", &message);
            return;
        }
        self.budgets.push(budget);
    }
}

fn mistake(object: &Object, path: &str, message: &str) -> PolicyError {
    PolicyError::new(&object.origin.file, object.origin.line, 0, path, message)
}
