//! One counter: what was spent and reserved in its present window, and the windows before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AccountView, Amount, Balance, BudgetRule, CLOSED_WINDOWS_MAX, ClosedWindowView, TimestampMs, WindowSpan,
};

/// (budget, subject); orders the accounts of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AccountKey {
    pub budget: Arc<str>,
    pub subject: Arc<str>,
}

impl AccountKey {
    pub fn new(budget: &str, subject: &str) -> Self {
        Self { budget: budget.into(), subject: subject.into() }
    }
}

/// One window of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Period {
    pub span: WindowSpan,
    /// The limit as last seen, override and top-ups included.
    pub limit: Amount,
    /// The highest limit that was in force at a grant: what "never overspent" is measured against.
    pub ceiling: Amount,
    pub spent: Amount,
    pub reserved: Amount,
    pub overdraft: Amount,
    pub topped_up: Amount,
    /// How often the account was reset: a charge made before a reset has been forgiven and is not taken back twice.
    pub resets: u32,
    /// Reservations, open or still remembered, that were made in this window.
    pub references: u32,
}

impl Period {
    fn new(span: WindowSpan, limit: Amount) -> Self {
        Self {
            span,
            limit,
            ceiling: Amount::ZERO,
            spent: Amount::ZERO,
            reserved: Amount::ZERO,
            overdraft: Amount::ZERO,
            topped_up: Amount::ZERO,
            resets: 0,
            references: 0,
        }
    }

    pub fn available(&self) -> Amount {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    pub fn balance(&self, key: &AccountKey, amount: Amount) -> Balance {
        Balance {
            budget: key.budget.to_string(),
            subject: key.subject.to_string(),
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            resets_at: self.span.end,
            amount,
        }
    }

    fn closed_view(&self) -> ClosedWindowView {
        ClosedWindowView {
            window: self.span,
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            overdraft: self.overdraft,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub limit_override: Option<Amount>,
    pub present: Period,
    /// Newest first. Bounded, but for windows that a reservation still refers to.
    pub closed: Vec<Period>,
}

impl Account {
    pub fn new(rule: &BudgetRule, now: TimestampMs) -> Self {
        let present = Period::new(rule.window.span_at(now), rule.limit);
        Self { limit_override: None, present, closed: Vec::new() }
    }

    /// Brings the account to `now` and to the rule in force: closes a window that is over, follows a changed limit.
    pub fn roll(&mut self, rule: &BudgetRule, now: TimestampMs) {
        let span = rule.window.span_at(now);
        if span != self.present.span {
            // A budget whose window kind was changed and changed back finds what it had counted.
            let again = self.closed.iter().position(|period| period.span == span);
            let next = again.map_or_else(|| Period::new(span, rule.limit), |index| self.closed.remove(index));
            let over = std::mem::replace(&mut self.present, next);
            self.closed.insert(0, over);
            self.prune();
        }
        self.present.limit = self.limit_of(rule, &self.present);
    }

    /// The present window as [`Account::roll`] would leave it, without copying the history.
    pub fn present_at(&self, rule: &BudgetRule, now: TimestampMs) -> Period {
        let span = rule.window.span_at(now);
        let mut period = self.period(span).cloned().unwrap_or_else(|| Period::new(span, rule.limit));
        period.limit = self.limit_of(rule, &period);
        period
    }

    fn limit_of(&self, rule: &BudgetRule, period: &Period) -> Amount {
        let base = self.limit_override.unwrap_or(rule.limit);
        base.checked_add(period.topped_up).unwrap_or(Amount::MAX)
    }

    /// Forgets the oldest closed windows beyond the bound that nothing refers to.
    pub fn prune(&mut self) {
        while self.closed.len() > CLOSED_WINDOWS_MAX
            && self.closed.last().is_some_and(|last| last.references == 0)
        {
            self.closed.pop();
        }
    }

    /// The window that started at `span`: where a reservation of that window is charged, whenever it is settled.
    pub fn period_mut(&mut self, span: WindowSpan) -> Option<&mut Period> {
        if self.present.span == span {
            return Some(&mut self.present);
        }
        self.closed.iter_mut().find(|period| period.span == span)
    }

    pub fn period(&self, span: WindowSpan) -> Option<&Period> {
        self.periods().find(|period| period.span == span)
    }

    pub fn periods(&self) -> impl Iterator<Item = &Period> {
        std::iter::once(&self.present).chain(&self.closed)
    }

    pub fn view(&self, tenant: &str, key: &AccountKey) -> AccountView {
        AccountView {
            tenant: tenant.to_owned(),
            budget: key.budget.to_string(),
            subject: key.subject.to_string(),
            limit: self.present.limit,
            spent: self.present.spent,
            reserved: self.present.reserved,
            available: self.present.available(),
            overdraft: self.present.overdraft,
            topped_up: self.present.topped_up,
            window: self.present.span,
            closed_windows: self.closed.iter().map(Period::closed_view).collect(),
        }
    }
}
