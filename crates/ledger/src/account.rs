//! One counter: its present window, the windows before, and how long it is kept.

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::period::Period;
use crate::standing::shown;
use crate::{AccountView, Amount, BudgetRule, CLOSED_WINDOWS_MAX, TimestampMs, WindowSpan};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Account {
    pub limit_override: Option<Amount>,
    pub present: Period,
    /// Newest first: the last [`CLOSED_WINDOWS_MAX`], and any older one that a record still refers to or that is not
    /// over: the slices of a sliding window.
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
                None => self.fresh(rule, span, now),
            };
            let over = std::mem::replace(&mut self.present, next);
            self.closed.insert(0, over);
            dropped = self.prune(now);
        }
        self.present.limit = self.limit_in(rule, &self.present, now);
        dropped
    }

    fn fresh(&mut self, rule: &BudgetRule, span: WindowSpan, now: TimestampMs) -> Period {
        let carried = self.carry(rule, span, now);
        let mut period = Period::new(self.next_number, span, rule);
        self.next_number = self.next_number.wrapping_add(1);
        if !carried.is_zero() {
            period.extra_mut().carried = carried;
        }
        period
    }

    /// The limit in force for a window: that of now if the budget counts in it now, else the last seen.
    pub fn limit_at(&self, rule: Option<&BudgetRule>, period: &Period, now: TimestampMs) -> Amount {
        let is_present = |rule: &&BudgetRule| {
            period.counts_like(rule) && (period.sliding_ms > 0 || rule.span_at(now) == period.span)
        };
        rule.filter(is_present).map_or(period.limit, |rule| self.limit_in(rule, period, now))
    }

    /// The limit in force for a window that the rule counts in at `now`.
    pub fn limit_in(&self, rule: &BudgetRule, period: &Period, now: TimestampMs) -> Amount {
        let topped_up = if period.sliding_ms > 0 { self.topped_up(rule, now) } else { period.topped_up };
        self.limit_of(rule, period.carried(), topped_up)
    }

    /// Top-ups and what was carried over count on top of an override; the sum ends at [`Amount::MAX`].
    pub fn limit_of(&self, rule: &BudgetRule, carried: Amount, topped_up: Amount) -> Amount {
        let carried = rule.carry_over.map_or(Amount::ZERO, |cap| cap.min(carried));
        let fresh = self.limit_of_fresh_window(rule);
        let sum = fresh.checked_add(carried).and_then(|sum| sum.checked_add(topped_up));
        sum.unwrap_or(Amount::MAX)
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
            let keep = place <= CLOSED_WINDOWS_MAX || period.references > 0 || !period.is_over(now);
            if !keep {
                dropped += u128::from(period.spent.micros());
            }
            keep
        });
        dropped
    }

    /// Forgives what counts in the present window; returns how much that was, in micros.
    pub fn reset(&mut self, now: TimestampMs) -> u128 {
        let counted: Vec<u32> = self.present_periods(now).map(|period| period.number).collect();
        let periods = self.periods_mut().filter(|period| counted.contains(&period.number));
        periods.map(|period| u128::from(period.reset().micros())).sum()
    }

    /// The window in which a reservation was made: where it is charged, whenever it is settled.
    pub fn period_mut(&mut self, number: u32) -> Option<&mut Period> {
        self.periods_mut().find(|period| period.number == number)
    }

    pub fn period(&self, number: u32) -> Option<&Period> {
        self.periods().find(|period| period.number == number)
    }

    pub fn periods(&self) -> impl Iterator<Item = &Period> {
        std::iter::once(&self.present).chain(&self.closed)
    }

    pub fn periods_mut(&mut self) -> impl Iterator<Item = &mut Period> {
        std::iter::once(&mut self.present).chain(&mut self.closed)
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
        self.periods().map(Period::over_at).reduce(|one, other| Some(one?.max(other?)))?
    }

    /// When an account that nobody uses any more can go: when its present window would leave the bounded history.
    pub fn idle_at(&self) -> Option<TimestampMs> {
        Some(self.present.leaves_at()?.max(self.over_at()?))
    }

    /// Nothing refers to it, and it is idle. Where its budget is gone, it stays as long for reports; an override is
    /// then no reason to keep it.
    pub fn can_go(&self, rule: Option<&BudgetRule>, now: TimestampMs) -> bool {
        let goes_at = match rule {
            Some(_) if self.limit_override.is_some() => None,
            _ => self.idle_at(),
        };
        goes_at.is_some_and(|at| at <= now) && !self.is_referenced()
    }

    /// After [`Account::roll`], where its budget is still there.
    pub fn view(
        &self,
        tenant: &str,
        key: &AccountKey,
        rule: Option<&BudgetRule>,
        now: TimestampMs,
    ) -> AccountView {
        let standing = self.rolled_standing(now);
        let sum = |part: fn(&Period) -> Amount| {
            shown(self.present_periods(now).map(|period| u128::from(part(period).micros())).sum())
        };
        let cap = rule.map_or(Some(Amount::MAX), |rule| rule.carry_over).unwrap_or_default();
        AccountView {
            tenant: tenant.to_owned(),
            budget: key.budget().to_owned(),
            subject: key.subject().to_owned(),
            unit: standing.unit,
            enforcement: rule.map(|rule| rule.enforcement),
            limit: standing.limit,
            spent: standing.spent,
            reserved: standing.reserved,
            available: standing.available(),
            overdraft: sum(|period| period.overdraft),
            estimated: sum(Period::estimated),
            topped_up: sum(|period| period.topped_up),
            carried: self.present.carried().min(cap),
            shadow_denied: self.present_periods(now).map(Period::shadow_denied).sum(),
            window: standing.span,
            closed_windows: self.closed.iter().map(Period::closed_view).collect(),
        }
    }
}
