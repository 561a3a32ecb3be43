//! A charge on an account: booked in its window, with what it means for overdraft, excess and alerts.

use crate::account::Account;
use crate::period::Booked;
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
        }
        let mut effect = Effect { booked, shares: Vec::new(), standing: None };
        if let Some(rule) = rule.filter(|rule| !rule.alerts.is_empty() && booked.added > booked.taken_back) {
            self.alert(line.window, rule, now, &mut effect);
        }
        Some(effect)
    }

    /// Of a budget that only counts, as long as it stays charged: overdraft is the part of a charge beyond the limit;
    /// excess what it takes, besides, from what others have reserved.
    fn overshoot(&mut self, window: u32, before: Standing, booked: Booked) {
        let Some(period) = self.period_mut(window) else { return };
        let rise = booked.added.saturating_sub(booked.taken_back);
        let fall = booked.taken_back.saturating_sub(booked.added);
        let over = rise.saturating_sub(before.limit.saturating_sub(before.spent));
        period.overdraft = period.overdraft.saturating_sub(fall).checked_add(over).unwrap_or(Amount::MAX);
        period.ceiling = period.ceiling.max(before.limit);
        period.add_excess(rise.saturating_sub(before.available()).saturating_sub(over));
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
