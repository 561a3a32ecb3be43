//! A policy too large for one command, put together part by part until a PutPolicy names it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{BudgetRule, Ledger, Outcome, Refusal, check, policy};

/// One upload at a time. What nobody finishes is dropped by the next one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub upload: u128,
    /// So far; the next part has this number.
    pub parts: u32,
    pub rules: Vec<BudgetRule>,
    pub document: String,
    /// Where the last part begins, in rules and in the document: so that a replay of it is recognised.
    last: (usize, usize),
}

impl Stage {
    fn new(upload: u128) -> Self {
        Self { upload, parts: 0, rules: Vec::new(), document: String::new(), last: (0, 0) }
    }

    fn is_last(&self, part: u32, rules: &[BudgetRule], document: &str) -> bool {
        part.checked_add(1) == Some(self.parts)
            && self.rules.get(self.last.0..) == Some(rules)
            && self.document.get(self.last.1..) == Some(document)
    }

    fn add(&mut self, rules: &[BudgetRule], document: &str) {
        self.last = (self.rules.len(), self.document.len());
        self.parts = self.parts.saturating_add(1);
        self.rules.extend_from_slice(rules);
        self.document.push_str(document);
    }
}

impl Ledger {
    pub(crate) fn stage_policy(
        &mut self,
        upload: u128,
        part: u32,
        rules: &[BudgetRule],
        document: &str,
    ) -> Outcome {
        match self.try_stage(upload, part, rules, document) {
            Ok(()) => Outcome::PolicyStaged,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn try_stage(
        &mut self,
        upload: u128,
        part: u32,
        rules: &[BudgetRule],
        document: &str,
    ) -> Result<(), Refusal> {
        check::part(document).map_err(Refusal::Invalid)?;
        rules.iter().try_for_each(check::rule).map_err(Refusal::Invalid)?;
        let known = self.staged.as_ref().filter(|stage| stage.upload == upload);
        if known.is_some_and(|stage| stage.is_last(part, rules, document)) {
            return Ok(());
        }
        let (parts, so_far) =
            known.map_or((0, (0, 0)), |stage| (stage.parts, (stage.rules.len(), stage.document.len())));
        if part != parts {
            return Err(Refusal::WrongPart { upload, part });
        }
        policy::size(so_far.0 + rules.len(), so_far.1 + document.len()).map_err(Refusal::Invalid)?;
        if part == 0 {
            self.staged = Some(Arc::new(Stage::new(upload)));
        }
        if let Some(stage) = &mut self.staged {
            Arc::make_mut(stage).add(rules, document);
        }
        Ok(())
    }

    /// What is there of an upload that a PutPolicy names.
    pub(crate) fn staged_whole(&self, upload: u128) -> Result<&Stage, Refusal> {
        let stage = self.staged.as_deref().filter(|stage| stage.upload == upload);
        stage.ok_or(Refusal::WrongPart { upload, part: 0 })
    }
}
