//! Whether parts make a policy: the last check before it is in force. The manifests half knows the places in files and
//! finds most mistakes first; this one holds whoever made the parts. A route or a budget may name a backend or a route that
//! is not there (yet): manifests come one file at a time.

use std::collections::HashSet;

use super::{Budget, CompileError, PolicyParts, SubjectPart, TierAction};

/// As the ledger's: budgets of one policy.
const BUDGETS_MAX: usize = 20_000;
const NAME_MAX_BYTES: usize = 128;
const SUBJECT_PARTS_MAX: usize = 8;
const CONDITIONS_MAX: usize = 256;
const TIERS_MAX: usize = 8;
/// Of one answer.
const OUTPUT_MAX_TOKENS: u64 = 10_000_000;
/// A request that waits longer has lost its client.
const WAIT_MAX_MS: u64 = 600_000;

pub(super) fn parts(parts: &PolicyParts) -> Result<(), CompileError> {
    let PolicyParts { budgets, routes, backends, .. } = parts;
    if budgets.len() > BUDGETS_MAX {
        return Err(CompileError::TooManyBudgets { count: budgets.len(), max: BUDGETS_MAX });
    }
    unique("budget", budgets.iter().map(|budget| budget.rule.name.as_str()))?;
    unique("route", routes.iter().map(|route| route.name.as_str()))?;
    unique("backend", backends.iter().map(|backend| backend.name.as_str()))?;
    budgets.iter().try_for_each(|budget| {
        let named = |problem| CompileError::Budget { budget: budget.rule.name.clone(), problem };
        one_budget(budget).map_err(named)
    })
}

fn unique<'a>(kind: &'static str, mut names: impl Iterator<Item = &'a str>) -> Result<(), CompileError> {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(CompileError::Twice { kind, name: name.to_owned() }),
        None => Ok(()),
    }
}

fn one_budget(budget: &Budget) -> Result<(), String> {
    let Budget { rule, subject, output_default, output_floor, output_max, tiers, .. } = budget;
    if rule.name.is_empty() || rule.name.len() > NAME_MAX_BYTES || rule.name.chars().any(char::is_control) {
        return Err(format!("its name must have 1 to {NAME_MAX_BYTES} bytes and no control characters"));
    }
    if subject.len() > SUBJECT_PARTS_MAX {
        let parts = subject.len();
        return Err(format!("its subject has {parts} parts, at most {SUBJECT_PARTS_MAX} are allowed"));
    }
    if let Some((_, part)) = subject.iter().enumerate().find(|(at, part)| subject[..*at].contains(part)) {
        return Err(format!("its subject names {part} twice"));
    }
    if subject.contains(&SubjectPart::Header(String::new())) {
        return Err("its subject names a header without a name".to_owned());
    }
    if budget.selector.conditions.len() > CONDITIONS_MAX {
        return Err(format!("more than {CONDITIONS_MAX} conditions"));
    }
    if *output_floor == 0 || output_floor > output_default || *output_default > OUTPUT_MAX_TOKENS {
        return Err(format!(
            "output default {output_default} and floor {output_floor}; wanted: 1 <= floor <= default <= {OUTPUT_MAX_TOKENS}"
        ));
    }
    if output_max.is_some_and(|max| max < *output_default) {
        return Err("the largest output is below the default one".to_owned());
    }
    if budget.max_wait_ms > WAIT_MAX_MS {
        return Err(format!(
            "it lets requests wait for {} ms, at most {WAIT_MAX_MS} are allowed",
            budget.max_wait_ms
        ));
    }
    if tiers.len() > TIERS_MAX {
        return Err(format!("{} tiers, at most {TIERS_MAX} are allowed", tiers.len()));
    }
    let descending = tiers.is_sorted_by(|above, below| above.above_percent > below.above_percent);
    if !descending || tiers.iter().any(|tier| tier.above_percent >= 100) {
        return Err("tiers must descend, each above 0 to 99 percent".to_owned());
    }
    if tiers.iter().any(|tier| matches!(&tier.action, TierAction::Model(model) if model.is_empty())) {
        return Err("a tier names an empty model".to_owned());
    }
    Ok(())
}
