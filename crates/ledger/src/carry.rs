//! What a window leaves to the next one, where the rule says `carry_over`.
//!
//! It is fixed when the next window is first used; what is settled later in the old one changes nothing. Windows in
//! between that nobody used pass on what they got and their own limit. Once an idle account could have been let go, it
//! has nothing left to carry: so nobody sees when that happens.

use crate::account::Account;
use crate::period::Period;
use crate::{Amount, BudgetRule, TimestampMs, WindowSpan};

impl Account {
    /// For a window `span` that was not used before.
    pub fn carry(&self, rule: &BudgetRule, span: WindowSpan, now: TimestampMs) -> Amount {
        let Some(cap) = rule.carry_over else { return Amount::ZERO };
        let before = |period: &&Period| {
            period.counts_like(rule)
                && period.span.end.is_some_and(|end| end <= span.start)
                && rule.span_at(period.span.start) == period.span
        };
        let last = self.periods().filter(before).max_by_key(|period| period.span.end);
        let Some(last) = last.filter(|last| last.leaves_at().is_some_and(|at| now < at)) else {
            return Amount::ZERO;
        };
        let mut carried = left(last).min(cap);
        let mut end = last.span.end;
        while let Some(start) = end.filter(|end| *end < span.start) {
            let unused = self.limit_of(rule, carried, Amount::ZERO);
            carried = unused.min(cap);
            end = rule.span_at(start).end;
        }
        carried
    }
}

fn left(period: &Period) -> Amount {
    period.limit.saturating_sub(period.spent).saturating_sub(period.reserved)
}
