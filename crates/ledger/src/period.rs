//! One window of one account: its sums, and how a charge is booked on them.

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::tenant::Line;
use crate::{Amount, Balance, BudgetRule, ClosedWindowView, Unit, WindowSpan};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Period {
    /// Which window of its account: what a reservation's line refers to.
    pub number: u32,
    pub span: WindowSpan,
    /// A budget that counts in another unit starts again.
    pub unit: Unit,
    /// The limit as last seen, override and top-ups included.
    pub limit: Amount,
    /// The highest limit that was in force at a grant: what "never overspent" is measured against.
    pub ceiling: Amount,
    pub spent: Amount,
    /// spent + reserved is never above [`Amount::MAX`].
    pub reserved: Amount,
    /// Part of `spent`.
    pub overdraft: Amount,
    pub topped_up: Amount,
    /// How often the account was reset: a charge made before a reset has been forgiven and is not taken back twice.
    pub resets: u32,
    /// Records that refer to this window: open reservations and what is remembered of resolved ones.
    pub references: u32,
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
            span,
            unit: rule.unit,
            limit: rule.limit,
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

    /// Holds `amount`, of which [`Period::available`] said that it is there.
    pub fn hold(&mut self, amount: Amount) {
        self.reserved = self.reserved.checked_add(amount).unwrap_or(Amount::MAX);
        self.ceiling = self.ceiling.max(self.limit);
        self.references += 1;
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
        let held = if was_open { line.held } else { Amount::ZERO };
        let rest = self.spent.saturating_sub(booked.taken_back);
        let sum = rest.checked_add(self.reserved.saturating_sub(held));
        sum.and_then(|sum| sum.checked_add(booked.added)).is_some()
    }

    /// Moves what the line holds (if it was open) or has charged (if it had expired) to `amount` charged.
    pub fn book(&mut self, line: &mut Line, amount: Amount, was_open: bool) -> Booked {
        let booked = self.booking(line, amount);
        if was_open {
            self.reserved = self.reserved.saturating_sub(line.held);
        }
        self.spent =
            self.spent.saturating_sub(booked.taken_back).checked_add(booked.added).unwrap_or(Amount::MAX);
        let over = amount.saturating_sub(line.held).min(booked.added);
        self.overdraft = self.overdraft.checked_add(over).unwrap_or(Amount::MAX);
        line.charged = amount;
        line.resets = self.resets;
        booked
    }

    /// Forgives what was spent; returns how much that was.
    pub fn reset(&mut self) -> Amount {
        self.overdraft = Amount::ZERO;
        self.resets = self.resets.wrapping_add(1);
        std::mem::take(&mut self.spent)
    }

    pub fn balance(&self, key: &AccountKey, limit: Amount, amount: Amount) -> Balance {
        Balance {
            budget: key.budget().to_owned(),
            subject: key.subject().to_owned(),
            unit: self.unit,
            limit,
            spent: self.spent,
            reserved: self.reserved,
            resets_at: self.span.end,
            amount,
        }
    }

    pub fn closed_view(&self) -> ClosedWindowView {
        ClosedWindowView {
            window: self.span,
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            overdraft: self.overdraft,
            shadow_denied: 0,
        }
    }

    /// Is this the window that the rule counts in at the time of `span`?
    pub fn is_of(&self, rule: &BudgetRule, span: WindowSpan) -> bool {
        self.span == span && self.unit == rule.unit
    }
}
