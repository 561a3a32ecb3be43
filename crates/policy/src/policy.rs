//! A policy: the budgets in force, and where a request's tenant comes from.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_ledger::{Amount, BudgetRule, Unit, Window};

use crate::document::{Document, documents};
use crate::error::{MatchError, PolicyError};
use crate::field::NAME_MAX_BYTES;
use crate::file::{BudgetDocument, BudgetSpec, IdentityDocument, Kind, TenantSpec};
use crate::subject::{self, SubjectPart};
use crate::{BUDGETS_MAX, DOCUMENT_MAX_BYTES, warnings};

const SUBJECT_MAX_BYTES: usize = 512;
const SUBJECT_PARTS_MAX: usize = 8;
const OUTPUT_MAX_TOKENS: u64 = 10_000_000;

/// A rule: who it applies to, what it counts, limit and window.
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

/// A budget that a request is charged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetMatch {
    pub budget: Arc<Budget>,
    pub subject: String,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub budgets: Vec<Arc<Budget>>,
    tenant: TenantSpec,
    warnings: Vec<String>,
}

impl Policy {
    /// # Errors
    /// Names document, line, column and the nearest known name. Nothing is taken of a file with one mistake.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > DOCUMENT_MAX_BYTES {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let mut policy = Self { budgets: Vec::new(), tenant: TenantSpec::default(), warnings: Vec::new() };
        let mut identity_seen = false;
        let mut names = BTreeSet::new();
        for document in documents(text) {
            match document.kind()? {
                Kind::Budget => {
                    let budget = budget(&document, document.parse()?)?;
                    if !names.insert(budget.name.clone()) {
                        let message = format!("budget {} stands twice; give it another name", budget.name);
                        return Err(document.error("metadata.name", message));
                    }
                    if policy.budgets.len() == BUDGETS_MAX {
                        let message = format!("more than {BUDGETS_MAX} budgets; let subjects separate users");
                        return Err(document.error("kind", message));
                    }
                    policy.budgets.push(Arc::new(budget));
                }
                Kind::Identity => {
                    if std::mem::replace(&mut identity_seen, true) {
                        return Err(document.error("kind", "a second Identity; a policy has at most one"));
                    }
                    let parsed: IdentityDocument = document.parse()?;
                    policy.tenant = parsed.spec.tenant;
                }
            }
        }
        policy.warnings = warnings::find(&policy.budgets);
        Ok(policy)
    }

    /// What the ledger enforces of it.
    pub fn rules(&self) -> Vec<BudgetRule> {
        let rule = |budget: &Arc<Budget>| BudgetRule {
            tenant: budget.tenant.clone(),
            ..BudgetRule::new(budget.name.clone(), budget.unit, budget.limit, budget.window)
        };
        self.budgets.iter().map(rule).collect()
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
        let name = &self.tenant.header.value;
        let value = header(name)
            .filter(|value| !value.is_empty())
            .or_else(|| self.tenant.default.as_ref().map(|default| default.value.clone()));
        let value = value.ok_or_else(|| MatchError::NoTenant { header: name.clone() })?;
        if value.len() > NAME_MAX_BYTES || value.chars().any(char::is_control) {
            return Err(MatchError::BadTenant { header: name.clone(), bytes: value.len() });
        }
        Ok(value)
    }

    /// Every budget that a request of this tenant for this model is charged to, in the order of the file.
    ///
    /// # Errors
    /// A subject longer than 512 bytes.
    pub fn matching(
        &self,
        tenant: &str,
        model: &str,
        header: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<BudgetMatch>, MatchError> {
        let applies = |budget: &&Arc<Budget>| budget.tenant.as_deref().is_none_or(|only| only == tenant);
        let place = |budget: &Arc<Budget>| {
            let subject = subject::join(budget.subject.iter().map(|part| match part {
                SubjectPart::Header(name) => header(name).unwrap_or_default(),
                SubjectPart::Model => model.to_owned(),
            }));
            if subject.len() > SUBJECT_MAX_BYTES {
                return Err(MatchError::SubjectTooLong { budget: budget.name.clone(), bytes: subject.len() });
            }
            Ok(BudgetMatch { budget: budget.clone(), subject })
        };
        self.budgets.iter().filter(applies).map(place).collect()
    }
}

fn budget(document: &Document<'_>, parsed: BudgetDocument) -> Result<Budget, PolicyError> {
    let BudgetSpec { tenant, subject, limit, window, output } = parsed.spec;
    if subject.len() > SUBJECT_PARTS_MAX {
        let message = format!("{} parts, at most {SUBJECT_PARTS_MAX} are allowed", subject.len());
        return Err(document.error("spec.subject", message));
    }
    if let Some(twice) = subject.iter().enumerate().find(|(index, part)| subject[..*index].contains(part)) {
        return Err(document.error("spec.subject", format!("{} stands twice", twice.1)));
    }
    if output.floor == 0 || output.floor > output.default || output.default > OUTPUT_MAX_TOKENS {
        let message = format!(
            "default {} and floor {}; wanted: 1 <= floor <= default <= {OUTPUT_MAX_TOKENS}",
            output.default, output.floor
        );
        return Err(document.error("spec.output", message));
    }
    Ok(Budget {
        name: parsed.metadata.name.value,
        tenant: tenant.map(|tenant| tenant.value),
        subject,
        unit: Unit::Tokens,
        limit: limit.tokens.0,
        window: window.into(),
        output_default: output.default,
        output_floor: output.floor,
    })
}
