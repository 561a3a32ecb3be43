//! The policy in force, and how it is replaced: as a whole or not at all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    BUDGETS_MAX, BudgetRule, DOCUMENT_PART_MAX_BYTES, Enforcement, Ledger, Outcome, PolicyView, Refusal,
    Window, check,
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// 0: none was put yet.
    pub version: u64,
    pub rules: BTreeMap<String, BudgetRule>,
    pub document: String,
}

impl Policy {
    /// The rule of a budget, if it applies to this tenant.
    pub fn rule(&self, tenant: &str, budget: &str) -> Option<&BudgetRule> {
        self.rules.get(budget).filter(|rule| rule.tenant.as_deref().is_none_or(|only| only == tenant))
    }

    pub fn rule_or_refusal(&self, tenant: &str, budget: &str) -> Result<&BudgetRule, Refusal> {
        self.rule(tenant, budget)
            .ok_or_else(|| Refusal::UnknownBudget { tenant: tenant.to_owned(), budget: budget.to_owned() })
    }

    pub fn view(&self) -> PolicyView {
        let rules = self.rules.values().cloned().collect();
        PolicyView { version: self.version, rules, document: self.document.clone() }
    }
}

impl Ledger {
    /// Accounts follow lazily: each sees the new rules when it is next used or read.
    pub(crate) fn put_policy(
        &mut self,
        expected: Option<u64>,
        rules: &[BudgetRule],
        document: &str,
    ) -> Outcome {
        let rules = match checked(rules, document) {
            Ok(rules) => rules,
            Err(message) => return Outcome::Refused(Refusal::Invalid(message)),
        };
        let actual = self.policy.version;
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Outcome::Refused(Refusal::VersionConflict { expected, actual });
        }
        let changed = actual == 0 || self.policy.rules != rules || self.policy.document != document;
        if changed {
            self.policy = Policy { version: actual.saturating_add(1), rules, document: document.to_owned() };
        }
        Outcome::PolicyPut { version: self.policy.version, changed }
    }
}

fn checked(rules: &[BudgetRule], document: &str) -> Result<BTreeMap<String, BudgetRule>, String> {
    if rules.len() > BUDGETS_MAX {
        return Err(format!("a policy has at most {BUDGETS_MAX} budgets, not {}", rules.len()));
    }
    if document.len() > DOCUMENT_PART_MAX_BYTES {
        return Err(format!(
            "a policy document has at most {DOCUMENT_PART_MAX_BYTES} bytes, not {}",
            document.len()
        ));
    }
    let mut by_name = BTreeMap::new();
    for rule in rules {
        check::name("budget", &rule.name)?;
        if let Some(tenant) = &rule.tenant {
            check::name("tenant", tenant)?;
        }
        supported(rule)?;
        if by_name.insert(rule.name.clone(), rule.clone()).is_some() {
            return Err(format!("budget {} stands twice in the policy", rule.name));
        }
    }
    Ok(by_name)
}

fn supported(rule: &BudgetRule) -> Result<(), String> {
    let wanted = [
        (matches!(rule.window, Window::Sliding { .. }), "a sliding window"),
        (!rule.zone.is_empty(), "a time zone"),
        (rule.enforcement != Enforcement::Reserve, "an enforcement other than Reserve"),
        (rule.carry_over.is_some(), "carry_over"),
        (!rule.alerts.is_empty(), "alerts"),
        (rule.accounts_max != 0, "accounts_max"),
    ];
    match wanted.iter().find(|(wanted, _)| *wanted) {
        Some((_, what)) => Err(format!("budget {}: {what} is not possible yet", rule.name)),
        None => Ok(()),
    }
}
