//! Where an account stands in a window: the sums that are compared with the limit. Those of a sliding window are made
//! up of all its slices that ended less than the window ago; so in no interval of that length is more spent.

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::period::Period;
use crate::{Amount, Balance, BudgetRule, TimestampMs, Unit, WindowSpan};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub unit: Unit,
    /// Of a sliding window: from the oldest slice that something is in until that leaves the window.
    pub span: WindowSpan,
    /// In force: override, top-ups and what was carried over included.
    pub limit: Amount,
    pub spent: Amount,
    pub reserved: Amount,
}

impl Standing {
    pub fn available(&self) -> Amount {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    pub fn balance(&self, key: &AccountKey, amount: Amount) -> Balance {
        Balance {
            budget: key.budget().to_owned(),
            subject: key.subject().to_owned(),
            unit: self.unit,
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            resets_at: self.span.end,
            amount,
        }
    }

    /// Of an account that was never used.
    pub fn of_new(rule: &BudgetRule, now: TimestampMs) -> Self {
        let span = ends_later(rule.span_at(now), rule.sliding_ms());
        Self { unit: rule.unit, span, limit: rule.limit, spent: Amount::ZERO, reserved: Amount::ZERO }
    }
}

impl Account {
    /// In the window of now, as [`Account::roll`] would leave it.
    pub fn standing(&self, rule: &BudgetRule, now: TimestampMs) -> Standing {
        let span = rule.span_at(now);
        if rule.sliding_ms() > 0 {
            let limit = self.limit_of(rule, Amount::ZERO, self.topped_up(rule, now));
            return self.sliding_standing(span, rule.sliding_ms(), rule.unit, limit, now);
        }
        match self.periods().find(|period| period.is_of(rule, span)) {
            Some(period) => stand(period, self.limit_in(rule, period, now)),
            None => {
                let limit = self.limit_of(rule, self.carry(rule, span, now), Amount::ZERO);
                Standing { limit, ..Standing::of_new(rule, now) }
            }
        }
    }

    /// In one of its windows.
    pub fn standing_in(&self, rule: Option<&BudgetRule>, period: &Period, now: TimestampMs) -> Standing {
        self.stand_in(period, self.limit_at(rule, period, now), now)
    }

    /// In the present window, right after [`Account::roll`].
    pub fn rolled_standing(&self, now: TimestampMs) -> Standing {
        self.stand_in(&self.present, self.present.limit, now)
    }

    fn stand_in(&self, period: &Period, limit: Amount, now: TimestampMs) -> Standing {
        if period.sliding_ms == 0 {
            return stand(period, limit);
        }
        self.sliding_standing(period.span, period.sliding_ms, period.unit, limit, now)
    }

    /// `span`: the slice to show where nothing counts.
    fn sliding_standing(
        &self,
        span: WindowSpan,
        sliding_ms: u64,
        unit: Unit,
        limit: Amount,
        now: TimestampMs,
    ) -> Standing {
        let (mut spent, mut reserved, mut oldest) = (0, 0, None::<WindowSpan>);
        for period in self.counted(sliding_ms, unit, now) {
            spent += u128::from(period.spent.micros());
            reserved += u128::from(period.reserved.micros());
            if !period.spent.is_zero() || !period.reserved.is_zero() {
                oldest = oldest.into_iter().chain([period.span]).min();
            }
        }
        let span = ends_later(oldest.unwrap_or(span), sliding_ms);
        Standing { unit, span, limit, spent: shown(spent), reserved: shown(reserved) }
    }

    /// The slices that count at `now` in a sliding window.
    pub fn counted(&self, sliding_ms: u64, unit: Unit, now: TimestampMs) -> impl Iterator<Item = &Period> {
        self.periods().filter(move |period| {
            period.sliding_ms == sliding_ms && period.unit == unit && !period.is_over(now)
        })
    }

    /// What is added up at `now` where the present window is sliding; otherwise only the present window.
    pub fn present_periods(&self, now: TimestampMs) -> impl Iterator<Item = &Period> {
        let present = &self.present;
        self.periods().filter(move |period| {
            period.number == present.number
                || present.sliding_ms > 0 && period.counts_with(present) && !period.is_over(now)
        })
    }

    /// Top-ups of a sliding window last as long as the slice in which they were made.
    pub fn topped_up(&self, rule: &BudgetRule, now: TimestampMs) -> Amount {
        let counted = self.counted(rule.sliding_ms(), rule.unit, now);
        shown(counted.map(|period| u128::from(period.topped_up.micros())).sum())
    }
}

fn stand(period: &Period, limit: Amount) -> Standing {
    Standing { unit: period.unit, span: period.span, limit, spent: period.spent, reserved: period.reserved }
}

fn ends_later(span: WindowSpan, ms: u64) -> WindowSpan {
    WindowSpan { end: span.end.map(|end| end.saturating_add(ms)), ..span }
}

/// A sum over slices. Each is at most [`Amount::MAX`], and so is what is shown of all.
pub(crate) fn shown(micros: u128) -> Amount {
    u64::try_from(micros).ok().and_then(|micros| Amount::from_micros(micros).ok()).unwrap_or(Amount::MAX)
}
