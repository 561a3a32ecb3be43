//! What a gateway may admit while the budget cluster is away: for budgets that say `FailOpen`, up to an amount for each
//! account and window. Kept in this process only; what was used is charged to the cluster when it is back.
//!
//! Not exact: every gateway has an allowance of its own, one that restarts has a new one, and what it owed is lost with
//! it. Exact: this gateway never admits more than the amount, worst cases included.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use quorate_ledger::{
    Amount, Balance, BudgetRule, Charge, Enforcement, Grant, TimestampMs, Unit, Window, WindowSpan,
};
use quorate_policy::runtime::ClusterLoss;
use tokio::time::Instant;

use crate::plan::Plan;

/// Accounts with an allowance in use; beyond it requests are refused.
const ACCOUNTS_MAX: usize = 10_000;
/// After a loss, requests that may go on without the cluster do not ask it again for this long.
const LOST_FOR: Duration = Duration::from_secs(1);

/// One account of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AccountName {
    pub(crate) tenant: String,
    pub(crate) budget: String,
    pub(crate) subject: String,
    /// Amounts of another one are no part of this.
    pub(crate) unit: Unit,
}

#[derive(Debug, Clone, Copy)]
struct Local {
    window: WindowSpan,
    /// Held and used, in this window.
    used: Amount,
    /// Used, and not charged to the cluster yet.
    owed: Amount,
    /// The same, of what was counted here because no backend said it.
    owed_estimated: Amount,
}

/// An amount that the cluster does not know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debt {
    pub(crate) account: AccountName,
    pub(crate) amount: Amount,
    pub(crate) estimated: bool,
    /// The last one in which it grew.
    window: WindowSpan,
}

/// What one request holds of the allowance.
#[derive(Debug)]
pub(crate) struct Taken {
    /// One for each charge; `None`: a budget that only watches.
    lines: Vec<Option<(AccountName, WindowSpan, Amount)>>,
    balances: Vec<Balance>,
}

#[derive(Debug, Default)]
pub(crate) struct Spare {
    accounts: Mutex<HashMap<AccountName, Local>>,
    lost_until: Mutex<Option<Instant>>,
}

impl Spare {
    /// The cluster did not answer.
    pub(crate) fn lost(&self) {
        *self.lost_until.lock() = Some(Instant::now() + LOST_FOR);
    }

    /// Whether it was so a moment ago.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Takes all amounts, or none: a budget that does not fail open, or one whose allowance is used up.
    pub(crate) fn take(&self, plan: &Plan, charges: &[Charge], now: TimestampMs) -> Option<Taken> {
        let mut accounts = self.accounts.lock();
        forget_ended(&mut accounts, now);
        let (mut lines, mut balances) = (Vec::new(), Vec::new());
        for (found, charge) in plan.matches.iter().zip(charges) {
            let rule = &found.budget.rule;
            let watches = rule.enforcement == Enforcement::Shadow;
            let up_to = match found.budget.on_cluster_loss {
                ClusterLoss::FailOpen { up_to } => up_to,
                ClusterLoss::FailClosed if watches => Amount::MAX,
                ClusterLoss::FailClosed => return None,
            };
            let account = AccountName {
                tenant: plan.who.identity.tenant.clone(),
                budget: charge.budget.clone(),
                subject: charge.subject.clone(),
                unit: rule.unit,
            };
            let window = window(rule, now);
            let used = accounts.get(&account).filter(|local| local.window == window).map(|local| local.used);
            let after = used.unwrap_or_default().checked_add(charge.amount).filter(|sum| *sum <= up_to)?;
            balances.push(Balance {
                budget: charge.budget.clone(),
                subject: charge.subject.clone(),
                unit: rule.unit,
                limit: up_to,
                spent: after.saturating_sub(charge.amount),
                reserved: charge.amount,
                resets_at: window.end,
                amount: charge.amount,
            });
            lines.push((!watches).then_some((account, window, charge.amount)));
        }
        let new = lines.iter().flatten().filter(|(account, ..)| !accounts.contains_key(account)).count();
        if accounts.len() + new > ACCOUNTS_MAX {
            return None;
        }
        for (account, window, amount) in lines.iter().flatten() {
            let fresh = Local::new(*window, Amount::ZERO);
            let local = accounts.entry(account.clone()).or_insert(fresh);
            if local.window != *window {
                (local.window, local.used) = (*window, Amount::ZERO);
            }
            local.used = local.used.checked_add(*amount).unwrap_or(Amount::MAX);
        }
        Some(Taken { lines, balances })
    }

    /// Puts what was used in place of what was held. One amount for each charge; none: nothing was used.
    pub(crate) fn settle(&self, taken: &Taken, actual: &[Amount], estimated: bool) {
        let mut accounts = self.accounts.lock();
        for (number, line) in taken.lines.iter().enumerate() {
            let Some((account, window, held)) = line else { continue };
            let used = actual.get(number).copied().unwrap_or_default();
            let fresh = Local::new(*window, *held);
            let local = accounts.entry(account.clone()).or_insert(fresh);
            if local.window == *window {
                local.used = local.used.saturating_sub(*held).checked_add(used).unwrap_or(Amount::MAX);
            }
            local.owe(used, estimated);
        }
    }

    /// What is owed, taken off the books: whoever takes it charges it or gives it back. What was said and what was
    /// estimated are debts of their own.
    pub(crate) fn debts(&self) -> Vec<Debt> {
        let mut accounts = self.accounts.lock();
        let owing = accounts.iter_mut().filter(|(_, local)| local.owes());
        let debts = owing.flat_map(|(account, local)| {
            let amounts =
                [(std::mem::take(&mut local.owed), false), (std::mem::take(&mut local.owed_estimated), true)];
            let window = local.window;
            amounts.map(|(amount, estimated)| Debt { account: account.clone(), amount, estimated, window })
        });
        debts.filter(|debt| !debt.amount.is_zero()).collect()
    }

    /// The debt could not be charged yet. Its account may have been forgotten meanwhile.
    pub(crate) fn give_back(&self, debt: Debt) {
        let Debt { account, amount, estimated, window } = debt;
        let mut accounts = self.accounts.lock();
        let local = accounts.entry(account).or_insert(Local::new(window, Amount::ZERO));
        local.owe(amount, estimated);
    }
}

fn forget_ended(accounts: &mut HashMap<AccountName, Local>, now: TimestampMs) {
    accounts.retain(|_, local| local.owes() || local.window.end.is_none_or(|end| end > now));
}

/// The window of an allowance. A sliding one is cut into whole pieces here.
fn window(rule: &BudgetRule, now: TimestampMs) -> WindowSpan {
    match rule.window {
        Window::Sliding { ms } if ms > 0 => {
            let start = now.0 - now.0 % ms;
            WindowSpan { start: TimestampMs(start), end: Some(TimestampMs(start.saturating_add(ms))) }
        }
        _ => rule.span_at(now),
    }
}

impl Local {
    fn new(window: WindowSpan, used: Amount) -> Self {
        Self { window, used, owed: Amount::ZERO, owed_estimated: Amount::ZERO }
    }

    fn owe(&mut self, more: Amount, estimated: bool) {
        let owed = if estimated { &mut self.owed_estimated } else { &mut self.owed };
        *owed = owed.checked_add(more).unwrap_or(Amount::MAX);
    }

    fn owes(&self) -> bool {
        !self.owed.is_zero() || !self.owed_estimated.is_zero()
    }
}

impl Taken {
    /// As the ledger would have granted it, with the allowance for a limit.
    pub(crate) fn as_granted(&self) -> Grant {
        Grant { deadline: TimestampMs(0), balances: self.balances.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_that_comes_back_after_its_window_is_still_owed() {
        let spare = Spare::default();
        let window = WindowSpan { start: TimestampMs(0), end: Some(TimestampMs(1_000)) };
        let name = |text: &str| text.to_owned();
        let account = AccountName {
            tenant: name("acme"),
            budget: name("b"),
            subject: name("alice"),
            unit: Unit::Tokens,
        };
        let amount = Amount::from_micros(7).unwrap();
        let taken = Taken { lines: vec![Some((account, window, amount))], balances: Vec::new() };
        spare.settle(&taken, &[amount], false);
        spare.settle(&taken, &[amount], true);
        spare.settle(&taken, &[], false);
        let mut debts = spare.debts();
        let kinds: Vec<_> = debts.iter().map(|debt| (debt.amount, debt.estimated)).collect();
        assert_eq!(kinds, [(amount, false), (amount, true)]);
        forget_ended(&mut spare.accounts.lock(), TimestampMs(2_000));
        assert!(spare.accounts.lock().is_empty());
        spare.give_back(debts.remove(1));
        let back = spare.debts();
        assert_eq!((back.len(), back[0].amount, back[0].estimated), (1, amount, true));
    }
}
