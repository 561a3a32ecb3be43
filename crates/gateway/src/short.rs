//! What becomes of a request that a budget is too short for: another way of counting, a smaller model, less held for
//! fallbacks, another backend, a wait; and only then a refusal.

use std::time::Duration;

use quorate_ledger::{Balance, Denial};
use quorate_policy::runtime::{BudgetMatch, OutputBounds};
use tokio::time::{Instant, sleep};

use crate::{
    cost::Bounds,
    passing::Hope,
    refusal::Refusal,
    reserve::Reserving,
    tier::{self, Verdict},
};

/// An id is good for a minute: no single question waits longer.
const WAIT_MAX: Duration = Duration::from_secs(50);
/// Between two looks at a budget whose tier says to wait, at least.
const TIER_PAUSE: Duration = Duration::from_millis(500);

impl Reserving<'_> {
    /// Does what a tier says.
    pub(crate) async fn follow(
        &mut self,
        verdict: Verdict,
        balance: impl Fn(usize) -> Option<Balance>,
    ) -> Result<(), Refusal> {
        let own =
            |number: &usize| self.plan.matches.get(*number).is_some_and(|one| one.budget.is_of_backend());
        let mut hope = Hope::default();
        let number = match verdict {
            Verdict::Stay => return Ok(()),
            Verdict::Model(model) => return self.plan_for(&model),
            Verdict::Reject(number) => number,
            Verdict::Wait(number) if own(&number) && !self.passing.may_wait() => {
                hope.waits = true;
                number
            }
            Verdict::Wait(number) => {
                let wait = self.plan.matches.get(number).map_or(0, |found| found.budget.max_wait_ms);
                let until_deadline =
                    self.call.deadline_of(&self.plan).saturating_duration_since(Instant::now());
                let left = Duration::from_millis(wait).saturating_sub(self.waited).min(until_deadline);
                if !left.is_zero() {
                    // Few looks, however long the wait.
                    let pause = left.min(TIER_PAUSE.max(Duration::from_millis(wait / 8)));
                    self.while_wanted(sleep(pause)).await?;
                    self.waited += pause;
                    return Ok(());
                }
                number
            }
        };
        let balance = balance(number).ok_or(Refusal::Internal)?;
        let budget = balance.budget.clone();
        let refusal = Refusal::TierRejects {
            tenant: self.plan.who.identity.tenant.clone(),
            window: self.window(&budget),
            account: Box::new(balance),
        };
        self.refuse(&budget, refusal, hope)
    }

    /// Whether a denial can be got around: by counting exactly, by a smaller model, or by holding less for fallbacks.
    pub(crate) async fn changes(&mut self, denial: &Denial) -> Result<bool, Refusal> {
        if !self.counts.is_exact() && self.is_countable() {
            self.count_exactly().await;
            return Ok(true);
        }
        let account = &denial.account;
        let (left, limit) = tier::left_before(account);
        let of_account = |_: usize, found: &BudgetMatch| {
            (found.budget.rule.name == account.budget).then_some((left, limit))
        };
        let verdict = self.tiers.judge(&self.plan, of_account);
        if verdict != Verdict::Stay {
            self.follow(verdict, |_| Some(account.clone())).await?;
            return Ok(true);
        }
        // The fallbacks may be dearer than what is tried first; they are reserved for when they are needed.
        let narrow = self.covered.len() > 1 && !self.is_own(&account.budget);
        if narrow {
            self.covered.truncate(1);
        }
        Ok(narrow)
    }

    /// How long the budget that was short lets a request queue, while only reservations are in the way.
    pub(crate) fn wait_for(&self, denial: &Denial) -> Option<Duration> {
        let named = |found: &&_| -> bool {
            let found: &BudgetMatch = found;
            found.budget.rule.name == denial.account.budget
        };
        let budget = &self.plan.matches.iter().find(named)?.budget;
        let left = Duration::from_millis(budget.max_wait_ms).saturating_sub(self.waited);
        let until_deadline = self.call.deadline_of(&self.plan).saturating_duration_since(Instant::now());
        let wait = left.min(until_deadline).min(WAIT_MAX);
        (denial.held_by_reservations && !wait.is_zero()).then_some(wait)
    }

    /// A budget of the candidate's own, and of no other.
    pub(crate) fn is_own(&self, budget: &str) -> bool {
        let mut matches = self.plan.matches.iter();
        matches.any(|found| found.budget.rule.name == budget && found.budget.is_of_backend())
    }

    /// There is no way around a denial, other than another candidate.
    pub(crate) fn short(
        &mut self,
        denial: Denial,
        bounds: &Bounds<'_>,
        output: &OutputBounds,
    ) -> Result<(), Refusal> {
        let budget = denial.account.budget.clone();
        let charges = bounds.charges(output)?;
        let least = charges.iter().find(|charge| charge.budget == budget).map(|charge| charge.at_least);
        let hope = Hope {
            shorter: least.is_some_and(|least| least < denial.asked && least <= denial.available),
            waits: self.wait_for(&denial).is_some(),
        };
        let window = self.window(&budget);
        let tenant = self.plan.who.identity.tenant.clone();
        self.refuse(&budget, Refusal::Denied { tenant, denial: Box::new(denial), window }, hope)
    }

    /// Refuses the request, or passes over the candidate where the budget is its own.
    fn refuse(&mut self, budget: &str, refusal: Refusal, hope: Hope) -> Result<(), Refusal> {
        let metrics = &self.call.core.metrics;
        let candidate = self.passing.left().first().and_then(|first| self.plan.candidates.get(*first));
        let out_of_time = Instant::now() >= self.call.deadline_of(&self.plan);
        let Some(candidate) = candidate.filter(|_| self.is_own(budget) && !out_of_time) else {
            metrics.denied(budget);
            return Err(refusal);
        };
        tracing::debug!(backend = candidate.name, %refusal, "a budget of the backend's own is short");
        match self.passing.pass(refusal, hope) {
            Ok(()) => metrics.passed_over(&candidate.name),
            Err(earliest) => {
                metrics.denied(earliest.budget().unwrap_or(budget));
                return Err(earliest);
            }
        }
        self.covered = self.passing.left();
        Ok(())
    }
}
