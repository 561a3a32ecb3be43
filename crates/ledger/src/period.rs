//! One window of one account (of a sliding one: one slice of it): its sums, and how a charge is booked on them.

use serde::{Deserialize, Serialize};

use crate::tenant::Line;
use crate::{
    Amount, BudgetRule, CLOSED_WINDOWS_MAX, ClosedWindowView, Enforcement, TimestampMs, Unit, WindowSpan,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Period {
    /// Which window of its account: what a reservation's line refers to.
    pub number: u32,
    /// Records that refer to this window: open reservations and what is remembered of resolved ones.
    pub references: u32,
    pub span: WindowSpan,
    /// Of the sliding window that this is a slice of; 0: of none.
    pub sliding_ms: u64,
    /// The limit as last seen, override, top-ups and what was carried over included.
    pub limit: Amount,
    /// The highest limit that was in force at a grant, or at a charge that only counts: what "never overspent" is
    /// measured against.
    pub ceiling: Amount,
    pub spent: Amount,
    /// spent + reserved is never above [`Amount::MAX`].
    pub reserved: Amount,
    /// Part of `spent`.
    pub overdraft: Amount,
    pub topped_up: Amount,
    pub extra: Option<Box<Extra>>,
    /// How often the account was reset: a charge made before a reset has been forgiven and is not taken back twice.
    pub resets: u16,
    /// A budget that counts in another unit starts again.
    pub unit: Unit,
    /// A request was let in that no limit held back: the budget only counted, or was a shadow.
    pub unbound: bool,
}

/// What most windows have nothing of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// What was left of the window before, at most what the rule then allowed.
    pub carried: Amount,
    /// What was let through beyond the limit and is no overdraft, because the budget only counts or is a shadow.
    pub excess: Amount,
    pub shadow_denied: u64,
    /// Part of `spent` that was counted or charged as reserved, because nobody said what was used.
    pub estimated: Amount,
    /// Bit n: an alert was given for n percent.
    pub alerted: u128,
}

/// By how much a booking changed `spent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booked {
    pub added: Amount,
    pub taken_back: Amount,
}

impl Period {
    pub fn new(number: u32, span: WindowSpan, rule: &BudgetRule) -> Self {
        Self {
            number,
            references: 0,
            span,
            sliding_ms: rule.sliding_ms(),
            limit: rule.limit,
            ceiling: Amount::ZERO,
            spent: Amount::ZERO,
            reserved: Amount::ZERO,
            overdraft: Amount::ZERO,
            topped_up: Amount::ZERO,
            extra: None,
            resets: 0,
            unit: rule.unit,
            unbound: false,
        }
    }

    /// Is this the window that the rule counts in at the time of `span`?
    pub fn is_of(&self, rule: &BudgetRule, span: WindowSpan) -> bool {
        self.span == span && self.counts_like(rule)
    }

    /// Slices of another window, or amounts of another unit, are not added to these.
    pub fn counts_like(&self, rule: &BudgetRule) -> bool {
        self.sliding_ms == rule.sliding_ms() && self.unit == rule.unit
    }

    /// Slices of one sliding window.
    pub fn counts_with(&self, other: &Self) -> bool {
        self.sliding_ms == other.sliding_ms && self.unit == other.unit
    }

    /// When it no longer counts; `None`: never. A slice counts for as long as the window that it is of.
    pub fn over_at(&self) -> Option<TimestampMs> {
        self.span.end.map(|end| end.saturating_add(self.sliding_ms))
    }

    pub fn is_over(&self, now: TimestampMs) -> bool {
        self.over_at().is_some_and(|at| at <= now)
    }

    /// When it would leave the bounded history, were the next windows as long as this one.
    pub fn leaves_at(&self) -> Option<TimestampMs> {
        let (start, end) = (self.span.start, self.span.end?);
        Some(end.saturating_add(end.since(start).saturating_mul(CLOSED_WINDOWS_MAX as u64)))
    }

    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub fn carried(&self) -> Amount {
        self.extra.as_ref().map_or(Amount::ZERO, |extra| extra.carried)
    }

    pub fn excess(&self) -> Amount {
        self.extra.as_ref().map_or(Amount::ZERO, |extra| extra.excess)
    }

    pub fn add_excess(&mut self, more: Amount) {
        if !more.is_zero() {
            let extra = self.extra_mut();
            extra.excess = extra.excess.checked_add(more).unwrap_or(Amount::MAX);
        }
    }

    pub fn shadow_denied(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.shadow_denied)
    }

    pub fn estimated(&self) -> Amount {
        self.extra.as_ref().map_or(Amount::ZERO, |extra| extra.estimated)
    }

    pub fn alerted(&self) -> u128 {
        self.extra.as_ref().map_or(0, |extra| extra.alerted)
    }

    /// Takes a line of `amount`: holds it, unless the budget only counts.
    pub fn take(&mut self, amount: Amount, enforcement: Enforcement) {
        if enforcement != Enforcement::Count {
            self.reserved = self.reserved.checked_add(amount).unwrap_or(Amount::MAX);
        }
        self.unbound |= !enforcement.binds();
        self.ceiling = self.ceiling.max(self.limit);
        self.references += 1;
    }

    /// Puts down what a shadow lets through.
    pub fn pass_shadow(&mut self, at_least: Amount, amount: Amount, available: Amount) {
        if available < at_least {
            self.extra_mut().shadow_denied += 1;
        }
        self.add_excess(amount.saturating_sub(available));
    }

    /// What to take back, and what to charge, where the line is to end up with `amount` charged. What a reset has
    /// forgiven is neither taken back nor charged again.
    pub fn booking(&self, line: &Line, amount: Amount) -> Booked {
        if line.resets == self.resets {
            Booked { added: amount, taken_back: line.charged }
        } else {
            Booked { added: amount.saturating_sub(line.charged), taken_back: Amount::ZERO }
        }
    }

    /// Would the account still count right after [`Period::book`]? The sum of all that is spent and reserved stays
    /// below [`Amount::MAX`], so that no later expiry can overflow either.
    pub fn can_book(&self, line: &Line, amount: Amount, was_open: bool) -> bool {
        let booked = self.booking(line, amount);
        let held = if was_open { line.reserved() } else { Amount::ZERO };
        let rest = self.spent.saturating_sub(booked.taken_back);
        let sum = rest.checked_add(self.reserved.saturating_sub(held));
        sum.and_then(|sum| sum.checked_add(booked.added)).is_some()
    }

    /// What can be charged of a line that expires: all of it, unless it was not held and other charges left no room
    /// below [`Amount::MAX`].
    pub fn expirable(&self, line: &Line) -> Amount {
        let room = Amount::MAX.saturating_sub(self.spent).saturating_sub(self.reserved);
        if line.enforcement == Enforcement::Count { line.held.min(room) } else { line.held }
    }

    /// Moves what the line holds (if it was open) or has charged (if it had expired) to `amount` charged. Overdraft is
    /// what was charged beyond what was held; of a budget that only counts, see `Account::book`.
    pub fn book(&mut self, line: &mut Line, amount: Amount, was_open: bool) -> Booked {
        let booked = self.booking(line, amount);
        if was_open {
            self.reserved = self.reserved.saturating_sub(line.reserved());
        }
        self.spent =
            self.spent.saturating_sub(booked.taken_back).checked_add(booked.added).unwrap_or(Amount::MAX);
        if line.enforcement != Enforcement::Count {
            let over = amount.saturating_sub(line.held).min(booked.added);
            self.overdraft = self.overdraft.checked_add(over).unwrap_or(Amount::MAX);
        }
        line.charged = amount;
        line.resets = self.resets;
        booked
    }

    /// Puts down how much of a booking is an estimate. Only an expiry is ever taken back, and all of it was one.
    pub fn mark(&mut self, booked: Booked, estimated: bool) {
        let more = if estimated { booked.added } else { Amount::ZERO };
        let rest = self.estimated().saturating_sub(booked.taken_back);
        let sum = rest.checked_add(more).unwrap_or(Amount::MAX);
        if sum != self.estimated() {
            self.extra_mut().estimated = sum;
        }
    }

    /// Forgives what was spent; returns how much that was.
    pub fn reset(&mut self) -> Amount {
        self.overdraft = Amount::ZERO;
        if let Some(extra) = &mut self.extra {
            extra.estimated = Amount::ZERO;
        }
        self.resets = self.resets.saturating_add(1);
        std::mem::take(&mut self.spent)
    }

    pub fn closed_view(&self) -> ClosedWindowView {
        ClosedWindowView {
            window: self.span,
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            overdraft: self.overdraft,
            estimated: self.estimated(),
            shadow_denied: self.shadow_denied(),
        }
    }
}
