//! One counter: its present window, the windows before, and how long it is kept.

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::period::Period;
use crate::{AccountView, Amount, BudgetRule, CLOSED_WINDOWS_MAX, Enforcement, TimestampMs};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Account {
    pub limit_override: Option<Amount>,
    pub present: Period,
    /// Newest first: the last [`CLOSED_WINDOWS_MAX`], and any older one that a record still refers to.
    pub closed: Vec<Period>,
    /// The number of the next window.
    pub next_number: u32,
    /// When to see whether the account can go; `None`: never (lifetime).
    pub look_at: Option<TimestampMs>,
}

impl Account {
    pub fn new(rule: &BudgetRule, now: TimestampMs) -> Self {
        Self {
            limit_override: None,
            present: Period::new(0, rule.span_at(now), rule),
            closed: Vec::new(),
            next_number: 1,
            look_at: None,
        }
    }

    /// Brings the account to `now` and to the rule in force: closes a window that is over, follows a changed limit.
    /// Returns what was spent in windows that are now out of the history.
    pub fn roll(&mut self, rule: &BudgetRule, now: TimestampMs) -> u128 {
        let span = rule.span_at(now);
        let mut dropped = 0;
        if !self.present.is_of(rule, span) {
            // A budget whose window kind was changed and changed back finds what it had counted.
            let again = self.closed.iter().position(|period| period.is_of(rule, span));
            let next = match again {
                Some(index) => self.closed.remove(index),
                None => {
                    let number = self.next_number;
                    self.next_number = number.wrapping_add(1);
                    Period::new(number, span, rule)
                }
            };
            let over = std::mem::replace(&mut self.present, next);
            self.closed.insert(0, over);
            dropped = self.prune(now);
        }
        self.present.limit = self.limit_of(rule, &self.present);
        dropped
    }

    /// The present window as [`Account::roll`] would leave it, without copying the history.
    pub fn present_at(&self, rule: &BudgetRule, now: TimestampMs) -> Period {
        let span = rule.span_at(now);
        let known = self.periods().find(|period| period.is_of(rule, span));
        let mut period = known.cloned().unwrap_or_else(|| Period::new(self.next_number, span, rule));
        period.limit = self.limit_of(rule, &period);
        period
    }

    /// The limit in force for a window: that of now if it is the present one, else the last seen.
    pub fn limit_at(&self, rule: Option<&BudgetRule>, period: &Period, now: TimestampMs) -> Amount {
        match rule {
            Some(rule) if period.is_of(rule, rule.span_at(now)) => self.limit_of(rule, period),
            _ => period.limit,
        }
    }

    /// Top-ups count on top of an override; the sum ends at [`Amount::MAX`].
    fn limit_of(&self, rule: &BudgetRule, period: &Period) -> Amount {
        self.limit_of_fresh_window(rule).checked_add(period.topped_up).unwrap_or(Amount::MAX)
    }

    pub fn limit_of_fresh_window(&self, rule: &BudgetRule) -> Amount {
        self.limit_override.unwrap_or(rule.limit)
    }

    /// Forgets closed windows beyond the bound that are over and that nothing refers to. Returns what was spent in them.
    pub fn prune(&mut self, now: TimestampMs) -> u128 {
        if self.closed.len() <= CLOSED_WINDOWS_MAX {
            return 0;
        }
        let (mut place, mut dropped) = (0, 0);
        self.closed.retain(|period| {
            place += 1;
            let keep = place <= CLOSED_WINDOWS_MAX || period.references > 0 || !period.span.is_over(now);
            if !keep {
                dropped += u128::from(period.spent.micros());
            }
            keep
        });
        dropped
    }

    /// The window in which a reservation was made: where it is charged, whenever it is settled.
    pub fn period_mut(&mut self, number: u32) -> Option<&mut Period> {
        std::iter::once(&mut self.present).chain(&mut self.closed).find(|period| period.number == number)
    }

    pub fn period(&self, number: u32) -> Option<&Period> {
        self.periods().find(|period| period.number == number)
    }

    pub fn periods(&self) -> impl Iterator<Item = &Period> {
        std::iter::once(&self.present).chain(&self.closed)
    }

    pub fn is_referenced(&self) -> bool {
        self.periods().any(|period| period.references > 0)
    }

    pub fn spent_micros(&self) -> u128 {
        self.periods().map(|period| u128::from(period.spent.micros())).sum()
    }

    /// When the last of its windows is over; `None`: never. One that is closed and not over counts too: a budget whose
    /// window kind is changed and changed back must find what it had counted.
    fn over_at(&self) -> Option<TimestampMs> {
        self.periods().map(|period| period.span.end).reduce(|one, other| Some(one?.max(other?)))?
    }

    /// When an account that nobody uses any more can go: when its present window would leave the bounded history.
    pub fn idle_at(&self) -> Option<TimestampMs> {
        let (start, end) = (self.present.span.start, self.present.span.end?);
        let leaves = end.saturating_add(end.since(start).saturating_mul(CLOSED_WINDOWS_MAX as u64));
        Some(leaves.max(self.over_at()?))
    }

    /// Nothing refers to it, and it is idle; or, where its budget is gone, its windows are over.
    pub fn can_go(&self, rule: Option<&BudgetRule>, now: TimestampMs) -> bool {
        let goes_at = match rule {
            Some(_) if self.limit_override.is_some() => None,
            Some(_) => self.idle_at(),
            None => self.over_at(),
        };
        goes_at.is_some_and(|at| at <= now) && !self.is_referenced()
    }

    pub fn view(&self, tenant: &str, key: &AccountKey, enforcement: Option<Enforcement>) -> AccountView {
        AccountView {
            tenant: tenant.to_owned(),
            budget: key.budget().to_owned(),
            subject: key.subject().to_owned(),
            unit: self.present.unit,
            enforcement,
            limit: self.present.limit,
            spent: self.present.spent,
            reserved: self.present.reserved,
            available: self.present.available(),
            overdraft: self.present.overdraft,
            topped_up: self.present.topped_up,
            carried: Amount::ZERO,
            shadow_denied: 0,
            window: self.present.span,
            closed_windows: self.closed.iter().map(Period::closed_view).collect(),
        }
    }
}
