//! The policy in force, and how it is replaced: as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::history::Version;
use crate::{
    AuditAction, BUDGETS_MAX, BudgetRule, Ledger, Outcome, POLICY_DOCUMENT_MAX_BYTES, PolicyView, Refusal,
    TimestampMs, check,
};

/// Offsets of the time zones of all budgets of a policy.
const ZONE_OFFSETS_MAX: usize = 500_000;

/// The versions that are kept, oldest first; the last one is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub versions: Vec<Arc<Version>>,
}

/// A PutPolicy as asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PutRequest<'a> {
    pub expected: Option<u64>,
    pub rules: &'a [BudgetRule],
    pub document: &'a str,
    pub upload: Option<u128>,
    pub by: &'a str,
    pub comment: &'a str,
}

impl Policy {
    /// `None`: none was put yet.
    pub fn in_force(&self) -> Option<&Version> {
        self.versions.last().map(Arc::as_ref)
    }

    /// 0: none was put yet.
    pub fn version(&self) -> u64 {
        self.in_force().map_or(0, |version| version.version)
    }

    /// The rule of a budget, if it applies to this tenant.
    pub fn rule(&self, tenant: &str, budget: &str) -> Option<&BudgetRule> {
        let rule = self.in_force()?.rules.get(budget);
        rule.filter(|rule| rule.tenant.as_deref().is_none_or(|only| only == tenant))
    }

    pub fn rule_or_refusal(&self, tenant: &str, budget: &str) -> Result<&BudgetRule, Refusal> {
        self.rule(tenant, budget)
            .ok_or_else(|| Refusal::UnknownBudget { tenant: tenant.to_owned(), budget: budget.to_owned() })
    }

    pub fn view(&self) -> PolicyView {
        let Some(version) = self.in_force() else {
            return PolicyView { version: 0, rules: Vec::new(), document: String::new() };
        };
        let rules = version.rules.values().cloned().collect();
        PolicyView { version: version.version, rules, document: version.document.clone() }
    }
}

impl Ledger {
    /// Accounts follow lazily: each sees the new rules when it is next used or read.
    pub(crate) fn put_policy(&mut self, now: TimestampMs, request: PutRequest<'_>) -> Outcome {
        self.try_put_policy(now, request).unwrap_or_else(Outcome::Refused)
    }

    fn try_put_policy(&mut self, now: TimestampMs, request: PutRequest<'_>) -> Result<Outcome, Refusal> {
        check::by(request.by).map_err(Refusal::Invalid)?;
        check::comment(request.comment).map_err(Refusal::Invalid)?;
        check::part(request.document).map_err(Refusal::Invalid)?;
        let before = self.policy.version();
        let is_replay = request.upload.is_some_and(|upload| {
            self.policy.in_force().is_some_and(|version| version.upload == Some(upload))
        });
        if is_replay {
            as_expected(request.expected, before)?;
            return Ok(Outcome::PolicyPut { version: before, changed: false });
        }
        let staged = request.upload.map(|upload| self.staged_whole(upload)).transpose()?;
        let (rules, document) = match staged {
            Some(stage) => {
                ([stage.rules.as_slice(), request.rules].concat(), stage.document.clone() + request.document)
            }
            None => (request.rules.to_vec(), request.document.to_owned()),
        };
        let rules = checked(rules, &document).map_err(Refusal::Invalid)?;
        as_expected(request.expected, before)?;
        if request.upload.is_some() {
            self.staged = None;
        }
        let same = |version: &Version| version.rules == rules && version.document == document;
        if self.policy.in_force().is_some_and(same) {
            return Ok(Outcome::PolicyPut { version: before, changed: false });
        }
        let version = before.saturating_add(1);
        let size = format!("{} budgets, {} bytes", rules.len(), document.len());
        let detail = if request.comment.is_empty() { size } else { format!("{size}; {}", request.comment) };
        self.audit.record(
            now,
            request.by,
            AuditAction::PutPolicy,
            format!("policy version {version}"),
            detail,
        );
        self.policy.add(Version {
            version,
            at: now,
            by: request.by.to_owned(),
            comment: request.comment.to_owned(),
            upload: request.upload,
            rules,
            document,
        });
        Ok(Outcome::PolicyPut { version, changed: true })
    }
}

fn as_expected(expected: Option<u64>, actual: u64) -> Result<(), Refusal> {
    match expected.filter(|expected| *expected != actual) {
        Some(expected) => Err(Refusal::VersionConflict { expected, actual }),
        None => Ok(()),
    }
}

fn checked(rules: Vec<BudgetRule>, document: &str) -> Result<BTreeMap<String, BudgetRule>, String> {
    size(rules.len(), document.len())?;
    let offsets: usize = rules.iter().map(|rule| rule.zone.len()).sum();
    if offsets > ZONE_OFFSETS_MAX {
        return Err(format!("the zones of a policy have at most {ZONE_OFFSETS_MAX} offsets, not {offsets}"));
    }
    let mut by_name = BTreeMap::new();
    for rule in rules {
        check::rule(&rule)?;
        if let Some(twice) = by_name.insert(rule.name.clone(), rule) {
            return Err(format!("budget {} stands twice in the policy", twice.name));
        }
    }
    Ok(by_name)
}

/// Of a whole policy.
pub(crate) fn size(rules: usize, document_bytes: usize) -> Result<(), String> {
    if rules > BUDGETS_MAX {
        return Err(format!("a policy has at most {BUDGETS_MAX} budgets, not {rules}"));
    }
    if document_bytes > POLICY_DOCUMENT_MAX_BYTES {
        let max = POLICY_DOCUMENT_MAX_BYTES;
        return Err(format!("a policy document has at most {max} bytes, not {document_bytes}"));
    }
    Ok(())
}
