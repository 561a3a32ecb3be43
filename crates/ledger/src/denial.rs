//! What a denial says: which account was short, by how much, and when to ask again.

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::standing::Standing;
use crate::tenant::Tenant;
use crate::{Amount, BudgetRule, Charge, Denial, Enforcement, Ledger, TimestampMs};

/// A charge, the rule and the account that it meets, and where that stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub charge: &'a Charge,
    pub rule: &'a BudgetRule,
    /// `None`: it was never used.
    pub account: Option<&'a Account>,
    pub standing: Standing,
}

impl Place<'_> {
    pub fn is_short(&self) -> bool {
        match self.rule.enforcement {
            Enforcement::Reserve | Enforcement::Lease => self.standing.available() < self.charge.at_least,
            Enforcement::Count => self.standing.spent >= self.standing.limit,
            Enforcement::Shadow => false,
        }
    }

    /// Would so much be granted where `spent` is all that is used?
    fn fits(&self, spent: Amount, limit: Amount) -> bool {
        match self.rule.enforcement {
            Enforcement::Count => spent < limit,
            Enforcement::Reserve | Enforcement::Shadow | Enforcement::Lease => {
                spent.checked_add(self.charge.at_least).is_some_and(|sum| sum <= limit)
            }
        }
    }

    /// When what is used now will have left enough room, by time alone.
    fn frees_at(&self, now: TimestampMs) -> Option<TimestampMs> {
        // A top-up is for the present window only. What could be carried over may, in time, be.
        let limit = match self.account {
            Some(account) => account.limit_of(self.rule, Amount::MAX, Amount::ZERO),
            None => {
                self.rule.limit.checked_add(self.rule.carry_over.unwrap_or_default()).unwrap_or(Amount::MAX)
            }
        };
        let sliding_ms = self.rule.sliding_ms();
        match self.account.filter(|_| sliding_ms > 0) {
            None => self.standing.span.end.filter(|_| self.fits(Amount::ZERO, limit)),
            Some(account) => self.slices_leave_at(account, limit, now),
        }
    }

    fn slices_leave_at(&self, account: &Account, limit: Amount, now: TimestampMs) -> Option<TimestampMs> {
        let mut slices: Vec<_> = account.counted(self.rule.sliding_ms(), self.rule.unit, now).collect();
        slices.sort_by_key(|slice| slice.span);
        let holds = self.rule.enforcement != Enforcement::Count;
        let (mut used, mut topped_up) = (self.standing.spent, account.topped_up(self.rule, now));
        if holds {
            used = used.checked_add(self.standing.reserved).unwrap_or(Amount::MAX);
        }
        let mut leaving = slices.into_iter();
        leaving.find_map(|slice| {
            used = used.saturating_sub(slice.spent);
            if holds {
                used = used.saturating_sub(slice.reserved);
            }
            topped_up = topped_up.saturating_sub(slice.topped_up);
            let limit = limit.checked_add(topped_up).unwrap_or(Amount::MAX);
            slice.over_at().filter(|_| self.fits(used, limit))
        })
    }

    pub fn denial(&self, now: TimestampMs, tenant: Option<&Tenant>) -> Denial {
        let counts = self.rule.enforcement == Enforcement::Count;
        let held = !counts && self.fits(self.standing.spent, self.standing.limit);
        let freed = self.frees_at(now).map(|at| at.since(now));
        // Where only reservations are in the way, one of them may be settled any time, and is gone at its deadline.
        let deadline = tenant.and_then(Tenant::next_deadline).filter(|_| held);
        let deadline = deadline.map(|deadline| deadline.since(now).max(1));
        let key = AccountKey::from_text(&AccountKey::text(&self.charge.budget, &self.charge.subject));
        Denial {
            account: self.standing.balance(&key, Amount::ZERO),
            asked: self.charge.at_least,
            available: self.standing.available(),
            retry_after_ms: freed.into_iter().chain(deadline).min(),
            held_by_reservations: held,
        }
    }
}

impl Ledger {
    pub(crate) fn place<'a>(
        &'a self,
        now: TimestampMs,
        tenant: &str,
        charge: &'a Charge,
        rule: &'a BudgetRule,
    ) -> Place<'a> {
        let account = self.account_state(tenant, &charge.budget, &charge.subject);
        let standing = match account {
            Some(account) => account.standing(rule, now),
            None => Standing::of_new(rule, now),
        };
        Place { charge, rule, account, standing }
    }
}
