//! A plain view of a compiled policy, for callers that know only tokens and headers: what gateways and nodes ran before
//! they asked [`crate::runtime`] themselves.
//!
//! To be dropped with its last caller. Budgets that it cannot say are refused, never passed over.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use thiserror::Error;

use crate::manifests::{ManifestSet, Mode, PolicyError, PolicyErrors, Source};
use crate::runtime::{self, CompiledPolicy, Cost, HeaderSource, Identity, RequestView, TokenKind};

const TENANT_MAX_BYTES: usize = 128;

/// A budget in tokens for every request of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    /// `None`: every tenant, each with its own accounts.
    pub tenant: Option<String>,
    /// Empty: one account for the tenant.
    pub subject: Vec<SubjectPart>,
    pub unit: Unit,
    pub limit: Amount,
    pub window: Window,
    /// Output tokens reserved for a request that names no limit of its own.
    pub output_default: u64,
    /// The fewest output tokens such a request is admitted with.
    pub output_floor: u64,
}

/// Where a part of the subject comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectPart {
    /// The value of a request header; the name in lower case.
    Header(String),
    Model,
}

/// A budget that a request is charged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetMatch {
    pub budget: Arc<Budget>,
    pub subject: String,
}

/// A request that a policy cannot place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatchError {
    #[error("header {header} is missing: it names the tenant, and the policy has no default tenant")]
    NoTenant { header: String },
    #[error(
        "header {header} names a tenant of {bytes} bytes or with control characters; 1 to 128 bytes are allowed"
    )]
    BadTenant { header: String, bytes: usize },
    #[error(transparent)]
    SubjectTooLong(#[from] runtime::MatchError),
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub budgets: Vec<Arc<Budget>>,
    compiled: CompiledPolicy,
    warnings: Vec<String>,
}

impl Policy {
    /// # Errors
    /// Those of [`ManifestSet::parse`] and [`ManifestSet::compile`], and budgets that this view cannot say.
    pub fn parse(text: &str) -> Result<Self, PolicyErrors> {
        let source = Source { name: "policy file", text };
        let (set, mut warnings) = ManifestSet::parse(&[source], Mode::Strict)?;
        let (compiled, said) = set.compile()?;
        warnings.extend(said);
        let budgets: Result<Vec<_>, PolicyError> =
            compiled.all_budgets().iter().map(|one| plain(one)).collect();
        Ok(Self { budgets: budgets?, compiled, warnings })
    }

    /// What the ledger enforces of it.
    pub fn rules(&self) -> Vec<BudgetRule> {
        self.compiled.rules()
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The tenant of a request. `header` looks a header up by its name in lower case.
    ///
    /// # Errors
    /// The header is missing and there is no default, or its value is no tenant's name.
    pub fn tenant_of(&self, header: impl Fn(&str) -> Option<String>) -> Result<String, MatchError> {
        let field = &self.compiled.identity().tenant;
        let name = field.header.clone().unwrap_or_default();
        let value = header(&name).filter(|value| !value.is_empty()).or_else(|| field.default.clone());
        let value = value.ok_or_else(|| MatchError::NoTenant { header: name.clone() })?;
        if value.len() > TENANT_MAX_BYTES || value.chars().any(char::is_control) {
            return Err(MatchError::BadTenant { header: name, bytes: value.len() });
        }
        Ok(value)
    }

    /// Every budget that a request of this tenant for this model is charged to.
    ///
    /// # Errors
    /// A subject longer than 512 bytes.
    pub fn matching(
        &self,
        tenant: &str,
        model: &str,
        header: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<BudgetMatch>, MatchError> {
        let identity = Identity { tenant: tenant.to_owned(), team: None, user: None, key: None };
        let request = RequestView {
            method: "POST",
            path: "/",
            query: None,
            source: None,
            host: None,
            model,
            headers: &Headers(header),
            identity: &identity,
        };
        let found = self.compiled.budgets(&request, None)?;
        let known = |met: runtime::BudgetMatch| {
            let budget = self.budgets.iter().find(|budget| budget.name == met.budget.rule.name)?;
            Some(BudgetMatch { budget: budget.clone(), subject: met.subject })
        };
        Ok(found.into_iter().filter_map(known).collect())
    }
}

fn plain(budget: &runtime::Budget) -> Result<Arc<Budget>, PolicyError> {
    let refused = || {
        let message = format!("budget {} says more than this version acts on; upgrade it", budget.rule.name);
        PolicyError::new("policy file", 0, 0, "", &message)
    };
    let part = |part: &runtime::SubjectPart| match part {
        runtime::SubjectPart::Header(name) => Some(SubjectPart::Header(name.clone())),
        runtime::SubjectPart::Model => Some(SubjectPart::Model),
        _ => None,
    };
    let subject: Option<Vec<SubjectPart>> = budget.subject.iter().map(part).collect();
    let is_plain = matches!(budget.cost, Cost::Tokens(TokenKind::Total))
        && budget.selector.conditions.is_empty()
        && budget.routes.is_none()
        && budget.backends.is_none();
    match subject {
        Some(subject) if is_plain => Ok(Arc::new(Budget {
            name: budget.rule.name.clone(),
            tenant: budget.rule.tenant.clone(),
            subject,
            unit: budget.rule.unit,
            limit: budget.rule.limit,
            window: budget.rule.window,
            output_default: budget.output_default,
            output_floor: budget.output_floor,
        })),
        _ => Err(refused()),
    }
}

struct Headers<F>(F);

impl<F> fmt::Debug for Headers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

impl<F: Fn(&str) -> Option<String>> HeaderSource for Headers<F> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (self.0)(name).map(Cow::Owned)
    }
}

/// `header x-user-id`, `model`.
impl fmt::Display for SubjectPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Model => f.write_str("model"),
        }
    }
}
