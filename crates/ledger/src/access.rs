//! How operations reach tenants, accounts and windows.

use std::sync::Arc;

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::cow_map::CowMap;
use crate::tenant::{Line, Tenant, Totals};
use crate::{Amount, Balance, BudgetRule, Ledger, Refusal, TENANT_ACCOUNTS_MAX, TimestampMs};

/// An account with its present window at now, ready to be changed.
pub(crate) struct Touched<'a> {
    pub key: AccountKey,
    pub account: &'a mut Account,
    pub totals: &'a mut Totals,
}

impl Ledger {
    pub(crate) fn tenant_state(&self, name: &str) -> Option<&Tenant> {
        self.tenants.get(name).map(Arc::as_ref)
    }

    pub(crate) fn tenant_existing(&mut self, name: &str) -> Option<&mut Tenant> {
        self.tenants.get_mut(name).map(Arc::make_mut)
    }

    /// The tenant, made if need be, and its shared name.
    pub(crate) fn tenant_mut(&mut self, name: &str) -> (Arc<str>, &mut Tenant) {
        made(&mut self.tenants, name)
    }

    /// The account, made if need be, rolled to `now`.
    pub(crate) fn touch(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        budget: &str,
        subject: &str,
    ) -> Result<(&BudgetRule, Touched<'_>), Refusal> {
        let rule = self.policy.rule_or_refusal(tenant, budget)?;
        let (name, state) = made(&mut self.tenants, tenant);
        let text = AccountKey::text(budget, subject);
        if !state.accounts.contains_key(&*text) {
            state.add_account(AccountKey::from_text(&text), Account::new(rule, now));
        }
        let Tenant { accounts, totals, .. } = state;
        let Some((key, account)) = accounts.get_key_value_mut(&*text) else {
            unreachable!("the account was inserted above")
        };
        totals.dropped_micros += account.roll(rule, now);
        if account.look_at.is_none() {
            account.look_at = account.idle_at();
            if let Some(at) = account.look_at {
                self.looks.insert((at, name, key.clone()), ());
            }
        }
        Ok((rule, Touched { key: key.clone(), account, totals }))
    }

    pub(crate) fn account_state(&self, tenant: &str, budget: &str, subject: &str) -> Option<&Account> {
        self.tenant_state(tenant)?.accounts.get(&*AccountKey::text(budget, subject))
    }

    /// May the tenant have `more` accounts of this budget, and `more_of_all` in all?
    pub(crate) fn check_room(
        &self,
        tenant: &str,
        rule: &BudgetRule,
        more: usize,
        more_of_all: usize,
    ) -> Result<(), Refusal> {
        let (of_budget, of_all) = match self.tenant_state(tenant) {
            Some(state) => (state.accounts_of(&rule.name) as usize, state.accounts.len()),
            None => (0, 0),
        };
        let bounds =
            [(of_budget + more, rule.accounts_max() as usize), (of_all + more_of_all, TENANT_ACCOUNTS_MAX)];
        match bounds.iter().find(|(wanted, max)| wanted > max) {
            None => Ok(()),
            Some((_, max)) => Err(Refusal::TooManyAccounts {
                tenant: tenant.to_owned(),
                budget: rule.name.clone(),
                max: *max as u64,
            }),
        }
    }

    /// The line's account as of now, in the line's window; `None` only if that window is gone.
    pub(crate) fn balance(
        &self,
        now: TimestampMs,
        name: &str,
        tenant: &Tenant,
        line: &Line,
        amount: Amount,
    ) -> Option<Balance> {
        let account = tenant.accounts.get(&line.account)?;
        let period = account.period(line.window)?;
        let rule = self.policy.rule(name, line.account.budget());
        Some(account.standing_in(rule, period, now).balance(&line.account, amount))
    }

    /// One for each line: what a record refers to is kept as long as the record.
    pub(crate) fn balances(
        &self,
        now: TimestampMs,
        name: &str,
        tenant: &Tenant,
        lines: &[Line],
        amount: impl Fn(&Line) -> Amount,
    ) -> Vec<Balance> {
        lines.iter().filter_map(|line| self.balance(now, name, tenant, line, amount(line))).collect()
    }
}

fn made<'a>(tenants: &'a mut CowMap<Arc<str>, Arc<Tenant>>, name: &str) -> (Arc<str>, &'a mut Tenant) {
    match tenants.get_or_insert_with(name, || (name.into(), Arc::default())) {
        Some((name, tenant)) => (name.clone(), Arc::make_mut(tenant)),
        None => unreachable!("the tenant was inserted above"),
    }
}
