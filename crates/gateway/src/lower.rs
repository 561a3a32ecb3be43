//! A policy document as the gateway's compiled policy.

use quorate_ledger::BudgetRule;
use quorate_policy::{
    MatchError, Policy,
    runtime::{Budget, CompiledPolicy, Cost, IdentityRules, PolicyParts, SubjectPart, TokenKind},
};

/// # Errors
/// Names the place in the document.
pub(crate) fn compile(document: &str) -> Result<CompiledPolicy, String> {
    let policy = Policy::parse(document).map_err(|error| error.to_string())?;
    let mut identity =
        IdentityRules { explicit: document.contains("kind: Identity"), ..IdentityRules::default() };
    let named = std::cell::RefCell::new(None);
    let default = policy.tenant_of(|name| {
        named.replace(Some(name.to_owned()));
        None
    });
    identity.tenant.header = named.into_inner();
    identity.tenant.default = match default {
        Ok(default) => Some(default),
        Err(
            MatchError::NoTenant { .. } | MatchError::BadTenant { .. } | MatchError::SubjectTooLong { .. },
        ) => None,
    };
    let budgets = policy.budgets.iter().map(|budget| {
        let mut rule = BudgetRule::new(&budget.name, budget.unit, budget.limit, budget.window);
        rule.tenant = budget.tenant.clone();
        let mut lowered = Budget::new(rule, Cost::Tokens(TokenKind::Total));
        lowered.output_default = budget.output_default;
        lowered.output_floor = budget.output_floor;
        lowered.subject = budget
            .subject
            .iter()
            .map(|part| match part {
                quorate_policy::SubjectPart::Header(name) => SubjectPart::Header(name.clone()),
                quorate_policy::SubjectPart::Model => SubjectPart::Model,
            })
            .collect();
        lowered
    });
    let parts = PolicyParts { budgets: budgets.collect(), identity, ..PolicyParts::default() };
    CompiledPolicy::new(parts).map_err(|error| error.to_string())
}
