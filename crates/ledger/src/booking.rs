//! A charge on an account: booked in its window, with what it means for overdraft, excess and alerts.

use crate::account::Account;
use crate::period::{Booked, Period};
use crate::standing::Standing;
use crate::tenant::Line;
use crate::{Amount, BudgetRule, Enforcement, TimestampMs};

/// What a booking did.
#[derive(Debug)]
pub(crate) struct Effect {
    pub booked: Booked,
    /// Shares of the limit reached for the first time, in percent.
    pub shares: Vec<u8>,
    /// The account in the window that was charged, if `shares` says something.
    pub standing: Option<Standing>,
}

impl Account {
    /// Books `amount` on the line's window; `None` if that is gone.
    pub fn book(
        &mut self,
        line: &mut Line,
        amount: Amount,
        was_open: bool,
        rule: Option<&BudgetRule>,
        now: TimestampMs,
    ) -> Option<Effect> {
        let counts = line.enforcement == Enforcement::Count;
        let before = self.period(line.window).filter(|_| counts);
        let before = before.map(|period| self.standing_in(rule, period, now));
        let booked = self.period_mut(line.window)?.book(line, amount, was_open);
        if let Some(before) = before {
            self.overshoot(line.window, before, booked);
            self.record_excess(line.window);
        }
        let mut effect = Effect { booked, shares: Vec::new(), standing: None };
        if let Some(rule) = rule.filter(|rule| !rule.alerts.is_empty() && booked.added > booked.taken_back) {
            self.alert(line.window, rule, now, &mut effect);
        }
        Some(effect)
    }

    /// Overdraft of a budget that only counts: the part of a charge beyond the limit, as long as it stays charged.
    fn overshoot(&mut self, window: u32, before: Standing, booked: Booked) {
        let Some(period) = self.period_mut(window) else { return };
        let rise = booked.added.saturating_sub(booked.taken_back);
        let fall = booked.taken_back.saturating_sub(booked.added);
        let below_limit = before.limit.saturating_sub(before.spent);
        let over = rise.saturating_sub(below_limit);
        period.overdraft = period.overdraft.saturating_sub(fall).checked_add(over).unwrap_or(Amount::MAX);
    }

    /// After a change that no limit stopped: whatever is used beyond ceiling and overdraft, in any window that this one
    /// is part of, is put down as its excess.
    pub fn record_excess(&mut self, window: u32) {
        let beyond = |last: &Period| {
            let inside = self.window_ending_in(last).any(|period| period.number == window);
            if inside { used_beyond(self.window_ending_in(last)) } else { 0 }
        };
        let most = self.periods().map(beyond).max().unwrap_or(0);
        let most = u64::try_from(most).ok().and_then(|micros| Amount::from_micros(micros).ok());
        let Some(most) = most.filter(|most| !most.is_zero()) else { return };
        if let Some(period) = self.period_mut(window) {
            let extra = period.extra_mut();
            extra.excess = extra.excess.checked_add(most).unwrap_or(Amount::MAX);
        }
    }

    /// Each share once for the window: what a slice has announced is not announced again as long as it counts.
    fn alert(&mut self, window: u32, rule: &BudgetRule, now: TimestampMs, effect: &mut Effect) {
        let Some(period) = self.period(window).filter(|period| period.counts_like(rule)) else { return };
        let standing = self.standing_in(Some(rule), period, now);
        let alerted = if period.sliding_ms == 0 {
            period.alerted()
        } else if period.is_over(now) {
            return;
        } else {
            let counted = self.counted(period.sliding_ms, period.unit, now);
            counted.fold(0, |bits, period| bits | period.alerted())
        };
        let mut reached = 0;
        let spent = u128::from(standing.spent.micros()) * 100;
        for share in rule.alerts.iter().filter(|share| **share < 128) {
            let bit = 1_u128 << share;
            if alerted & bit == 0 && spent >= u128::from(standing.limit.micros()) * u128::from(*share) {
                reached |= bit;
                effect.shares.push(*share);
            }
        }
        if let Some(period) = self.period_mut(window).filter(|_| reached > 0) {
            period.extra_mut().alerted |= reached;
            effect.standing = Some(standing);
        }
    }
}

/// By how much spent and reserved are above ceiling, overdraft and excess, in micros.
pub(crate) fn used_beyond<'a>(window: impl Iterator<Item = &'a Period>) -> u128 {
    let (mut used, mut ceiling, mut over) = (0, 0, 0);
    for period in window {
        used += micros(period.spent) + micros(period.reserved);
        ceiling = ceiling.max(micros(period.ceiling));
        over += micros(period.overdraft) + micros(period.excess());
    }
    used.saturating_sub(ceiling + over)
}

fn micros(amount: Amount) -> u128 {
    u128::from(amount.micros())
}
