//! Policies that were in force, so that one can be looked at and put again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::{BudgetRule, PolicyVersion, TimestampMs};

const VERSIONS_MAX: usize = 50;
/// Documents of all versions together. The one in force is kept in any case.
const DOCUMENTS_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Rules of all versions together, as they are in memory, roughly.
const RULES_MAX_BYTES: usize = 32 * 1024 * 1024;
const RULE_BYTES: usize = 192;
const OFFSET_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Version {
    pub version: u64,
    pub at: TimestampMs,
    pub by: String,
    pub comment: String,
    /// The upload it came in: a replay of its PutPolicy is recognised by it.
    pub upload: Option<u128>,
    pub rules: BTreeMap<String, BudgetRule>,
    pub document: String,
}

impl Version {
    fn rules_bytes(&self) -> usize {
        let bytes = |rule: &BudgetRule| RULE_BYTES + 2 * rule.name.len() + OFFSET_BYTES * rule.zone.len();
        self.rules.values().map(bytes).sum()
    }

    pub fn view(&self) -> PolicyVersion {
        PolicyVersion {
            version: self.version,
            at: self.at,
            by: self.by.clone(),
            comment: self.comment.clone(),
            bytes: self.document.len() as u64,
            budgets: self.rules.len() as u64,
        }
    }
}

impl Policy {
    /// Puts a version in force, and forgets those that are too old or too much.
    pub fn add(&mut self, version: Version) {
        self.versions.push(Arc::new(version));
        let (mut documents, mut rules) = (0, 0);
        let fits = |version: &&Arc<Version>| {
            documents += version.document.len();
            rules += version.rules_bytes();
            documents <= DOCUMENTS_MAX_BYTES && rules <= RULES_MAX_BYTES
        };
        let kept = self.versions.iter().rev().take(VERSIONS_MAX).take_while(fits).count();
        self.versions.drain(..self.versions.len() - kept.max(1));
    }
}
