//! Tokens in every budget's own unit: what a request can cost before it is sent, and what it did cost after.

use quorate_ledger::{Amount, Balance, Charge, Enforcement};
use quorate_policy::runtime::{
    BudgetMatch, CostContext, CostError, OutputBounds, Prices, Usage as CostUsage,
};

use crate::{
    metrics::Metrics,
    plan::{Candidate, Plan},
    provider::Usage,
    refusal::Refusal,
};

/// A budget whose limit is below this many times the bound is not rich: count exactly at once.
const RICH_FACTOR: u64 = 16;
const MICRO: Result<Amount, quorate_ledger::AmountError> = Amount::from_micros(1);

impl From<Usage> for CostUsage {
    fn from(usage: Usage) -> Self {
        let Usage { input, cached_input, cache_creation_input, output, reasoning, total } = usage;
        Self { input, cached_input, cache_creation_input, output, reasoning, total }
    }
}

/// The candidates that a reservation is made for, the one that is tried first before the others, each with the most input tokens that it can count.
#[derive(Debug)]
pub(crate) struct Bounds<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) inputs: Vec<(&'p Candidate, u64)>,
    pub(crate) metrics: &'p Metrics,
}

impl Bounds<'_> {
    /// Of all candidates, in tokens.
    pub(crate) fn input(&self) -> u64 {
        self.inputs.iter().map(|(_, input)| *input).max().unwrap_or(0)
    }

    /// The most that a request with up to `output` tokens costs one budget, whichever candidate serves it. A backend's own
    /// is only charged for that backend, the first here.
    fn of(&self, found: &BudgetMatch, output: u64) -> Result<Amount, Refusal> {
        let mut most = Amount::ZERO;
        let serving = if found.budget.is_of_backend() { 1 } else { self.inputs.len() };
        for (candidate, input) in self.inputs.iter().take(serving) {
            let at = [self.plan.context(candidate)];
            let bound = found.budget.bound(*input, output, &at, self.plan.policy.policy.prices());
            let bound = match bound {
                Ok(bound) => bound,
                Err(CostError::NoPrice { model }) if !never_denies(found) => {
                    return Err(Refusal::NoPrice { budget: found.budget.rule.name.clone(), model });
                }
                Err(error) => instead(self.metrics, found, &error, input.saturating_add(output)),
            };
            most = most.max(bound);
        }
        Ok(most)
    }

    /// One charge for each budget.
    pub(crate) fn charges(&self, output: &OutputBounds) -> Result<Vec<Charge>, Refusal> {
        let charge = |(found, least): (&BudgetMatch, &u64)| {
            let amount = self.of(found, output.most)?;
            let at_least = if *least == output.most { amount } else { self.of(found, *least)?.min(amount) };
            Ok(Charge {
                budget: found.budget.rule.name.clone(),
                subject: found.subject.clone(),
                amount,
                // Nothing at all would read as "all of it" on the wire.
                at_least: at_least.max(MICRO.unwrap_or(amount)).min(amount),
            })
        };
        self.plan.matches.iter().zip(&output.least).map(charge).collect()
    }

    /// Whether every budget is so large that a loose bound does no harm.
    pub(crate) fn are_rich(&self, charges: &[Charge]) -> bool {
        self.plan.matches.iter().zip(charges).all(|(found, charge)| {
            !found.budget.binds() || found.budget.rule.limit.micros() / RICH_FACTOR > charge.amount.micros()
        })
    }

    /// The most output tokens whose cost fits into what each budget has granted. What they cost need not grow evenly with
    /// their number, so each guess is priced.
    pub(crate) fn granted_output(&self, output: &OutputBounds, balances: &[Balance]) -> Result<u64, Refusal> {
        let fits = |tokens: u64| {
            for (found, balance) in self.plan.matches.iter().zip(balances) {
                if found.budget.binds() && self.of(found, tokens)? > balance.amount {
                    return Ok(false);
                }
            }
            Ok::<bool, Refusal>(true)
        };
        if fits(output.most)? {
            return Ok(output.most);
        }
        // What is granted covers the fewest that the budgets accept.
        let mut fitting = output.least.iter().copied().min().unwrap_or(0);
        let mut above = output.most;
        while above - fitting > 1 {
            let middle = fitting + (above - fitting) / 2;
            if fits(middle)? {
                fitting = middle;
            } else {
                above = middle;
            }
        }
        Ok(fitting)
    }
}

/// What an answer costs each budget. `whole`: with what a request costs besides its answer; without it for an attempt
/// that is not the last.
pub(crate) fn actual(
    metrics: &Metrics,
    matches: &[BudgetMatch],
    usage: Usage,
    at: &CostContext<'_>,
    prices: &Prices,
    whole: bool,
) -> Vec<Amount> {
    let usage = CostUsage::from(usage);
    let of = |found: &BudgetMatch| {
        let charge = found.budget.charge(&usage, at, prices);
        let charge = charge.unwrap_or_else(|error| instead(metrics, found, &error, usage.total));
        if whole { charge } else { charge.saturating_sub(found.budget.request_cost) }
    };
    matches.iter().map(of).collect()
}

fn never_denies(found: &BudgetMatch) -> bool {
    found.budget.rule.enforcement == Enforcement::Shadow
}

/// Where a cost cannot be told: the token total. Wrong, but never free.
fn instead(metrics: &Metrics, found: &BudgetMatch, error: &CostError, total: u64) -> Amount {
    metrics.cost_error(&found.budget.rule.name);
    tracing::warn!(budget = found.budget.rule.name, %error, total, "a cost failed; the token total is charged");
    // A token is no dollar. Such a request is denied, unless the budget only watches.
    if let CostError::NoPrice { .. } = error {
        return Amount::ZERO;
    }
    let tokens = Amount::from_units(total).unwrap_or(Amount::MAX);
    tokens.checked_add(found.budget.request_cost).unwrap_or(Amount::MAX)
}
