//! Tiers: the less is left of a budget, the smaller the model. What is left is read from the very grant (or denial) that
//! decides about the request, so the tier is exact; what was seen before is only a guess at what to ask for first.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use quorate_ledger::{Amount, Balance, TimestampMs};
use quorate_policy::runtime::{Budget, BudgetMatch, TierAction};

use crate::plan::Plan;

/// Accounts whose last tier is remembered; beyond it, all are forgotten.
const HINTS_MAX: usize = 10_000;

/// What a tier makes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Serve it as planned.
    Stay,
    /// Plan it for this model.
    Model(String),
    /// The budget's number among the matches.
    Reject(usize),
    Wait(usize),
}

/// The tiers of one request. Each budget's goes only down while it is decided: a smaller model may have an account of
/// its own, which must not lift it up again.
#[derive(Debug)]
pub(crate) struct Tiers {
    asked_for: String,
    /// By budget: the lowest tier seen, and the model it wants instead.
    reached: BTreeMap<String, (usize, Option<String>)>,
}

impl Tiers {
    pub(crate) fn new(asked_for: &str) -> Self {
        Self { asked_for: asked_for.to_owned(), reached: BTreeMap::new() }
    }

    /// Judges by what was left on each account before this request; `None`: not known.
    pub(crate) fn judge(
        &mut self,
        plan: &Plan,
        left: impl Fn(usize, &BudgetMatch) -> Option<(Amount, Amount)>,
    ) -> Verdict {
        for (number, found) in plan.matches.iter().enumerate() {
            let budget = &found.budget;
            let Some((left, limit)) = left(number, found).filter(|_| !budget.tiers.is_empty()) else {
                continue;
            };
            let tier = index(budget, left, limit);
            let reached = self.reached.get(&budget.rule.name).map_or(tier, |(before, _)| tier.max(*before));
            match budget.tiers.get(reached).map(|tier| &tier.action) {
                Some(TierAction::Reject) => return Verdict::Reject(number),
                Some(TierAction::Wait) => return Verdict::Wait(number),
                Some(TierAction::Model(_)) | None => {}
            }
            let model = instead(budget, reached, &self.asked_for);
            self.reached.insert(budget.rule.name.clone(), (reached, model));
        }
        let wanted = self.model();
        if wanted == plan.model { Verdict::Stay } else { Verdict::Model(wanted.to_owned()) }
    }

    /// What the lowest tier of all wants.
    fn model(&self) -> &str {
        let wanting =
            self.reached.values().filter_map(|(tier, model)| model.as_ref().map(|model| (tier, model)));
        wanting.max_by_key(|(tier, _)| **tier).map_or(&self.asked_for, |(_, model)| model)
    }
}

/// The first tier above which what is left lies; their number if there is none.
fn index(budget: &Budget, left: Amount, limit: Amount) -> usize {
    let above =
        |percent: u8| u128::from(left.micros()) * 100 > u128::from(limit.micros()) * u128::from(percent);
    budget.tiers.iter().position(|tier| above(tier.above_percent)).unwrap_or(budget.tiers.len())
}

/// The model of a tier, if that is a step down: not for who asks for it, or for one of a lower tier, and never in the
/// highest one for models that no tier names.
fn instead(budget: &Budget, tier: usize, asked_for: &str) -> Option<String> {
    let TierAction::Model(model) = &budget.tiers.get(tier)?.action else { return None };
    let own = budget
        .tiers
        .iter()
        .position(|tier| matches!(&tier.action, TierAction::Model(own) if own == asked_for));
    let down = own.map_or(tier > 0, |own| own < tier);
    down.then(|| model.clone())
}

/// What was left before this request, as its own grant tells.
pub(crate) fn left_before(balance: &Balance) -> (Amount, Amount) {
    let others = balance.reserved.saturating_sub(balance.amount);
    (balance.limit.saturating_sub(balance.spent).saturating_sub(others), balance.limit)
}

type AccountName = (String, String, String);

/// The last share seen of accounts with tiers. A guess: losing it costs a second question, nothing else.
#[derive(Debug, Default)]
pub(crate) struct Hints(Mutex<HashMap<AccountName, Share>>);

/// What was left of the limit, and until when that can hold.
#[derive(Debug, Clone, Copy)]
struct Share {
    left: Amount,
    limit: Amount,
    resets_at: Option<TimestampMs>,
}

impl Hints {
    pub(crate) fn saw(&self, tenant: &str, plan: &Plan, balances: &[Balance]) {
        for (found, balance) in plan.matches.iter().zip(balances) {
            if found.budget.tiers.is_empty() {
                continue;
            }
            let name = (tenant.to_owned(), balance.budget.clone(), balance.subject.clone());
            let mut seen = self.0.lock();
            if seen.len() >= HINTS_MAX && !seen.contains_key(&name) {
                seen.clear();
            }
            let (left, limit) = left_before(balance);
            seen.insert(name, Share { left, limit, resets_at: balance.resets_at });
        }
    }

    /// The model to ask for first.
    pub(crate) fn guess(&self, plan: &Plan, now: TimestampMs) -> Option<String> {
        if plan.matches.iter().all(|found| found.budget.tiers.is_empty()) {
            return None;
        }
        let tenant = &plan.who.identity.tenant;
        let left = |_: usize, found: &BudgetMatch| {
            let name = (tenant.clone(), found.budget.rule.name.clone(), found.subject.clone());
            let Share { left, limit, resets_at } = *self.0.lock().get(&name)?;
            resets_at.is_none_or(|at| at > now).then_some((left, limit))
        };
        match Tiers::new(&plan.model).judge(plan, left) {
            Verdict::Model(model) => Some(model),
            // A refusal needs a fact.
            Verdict::Stay | Verdict::Reject(_) | Verdict::Wait(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{BudgetRule, Unit, Window};
    use quorate_policy::runtime::{Cost, Tier, TokenKind};

    use super::*;

    fn budget() -> Budget {
        let limit = Amount::from_units(100).unwrap();
        let rule = BudgetRule::new("b", Unit::Tokens, limit, Window::Hour);
        let mut budget = Budget::new(rule, Cost::Tokens(TokenKind::Total));
        let model = |name: &str| TierAction::Model(name.to_owned());
        let tier = |above_percent, action| Tier { above_percent, action };
        budget.tiers = vec![tier(50, model("large")), tier(20, model("small")), tier(0, TierAction::Reject)];
        budget
    }

    #[test]
    fn shares_and_their_tiers() {
        for (left, expected) in [(100, 0), (51, 0), (50, 1), (21, 1), (20, 2), (1, 2), (0, 3)] {
            let units = |units| Amount::from_units(units).unwrap();
            assert_eq!(index(&budget(), units(left), units(100)), expected, "{left}");
        }
    }

    #[test]
    fn only_ever_down() {
        let small = Some("small".to_owned());
        for (tier, asked_for, expected) in [
            (0, "large", None),
            (0, "small", None),
            (0, "other", None),
            (1, "large", small.clone()),
            (1, "small", None),
            (1, "other", small),
            (2, "large", None),
            (3, "large", None),
        ] {
            assert_eq!(instead(&budget(), tier, asked_for), expected, "{tier} {asked_for}");
        }
    }
}
