//! The state machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::{Account, AccountKey};
use crate::cow_map::CowMap;
use crate::reserve::Request;
use crate::tenant::{Line, Resolved, Tenant};
use crate::{
    AccountView, Amount, Balance, BudgetRule, Command, Denial, FUTURE_SKEW_MAX_MS, Outcome, PolicyView,
    ProviderView, RETENTION_MS, Refusal, ReservationId, ReservationView, TenantView, TimestampMs,
};

/// Records forgotten by one command: more than one makes, so that the backlog shrinks; few, so that none is slow.
const FORGET_PER_COMMAND: usize = 4;
/// An id may be ahead of the ledger by the skew; only so much later than the retention is a replay surely stale.
const FORGET_AFTER_MS: u64 = RETENTION_MS + FUTURE_SKEW_MAX_MS;

/// All budgets of a cluster. Cloning is cheap (structure is shared), so a snapshot never stops the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub(crate) time: TimestampMs,
    pub(crate) policy_version: u64,
    pub(crate) rules: BTreeMap<String, BudgetRule>,
    pub(crate) document: String,
    pub(crate) tenants: CowMap<Arc<str>, Arc<Tenant>>,
    /// When to forget which resolved record.
    pub(crate) forgetting: CowMap<(TimestampMs, Arc<str>, ReservationId), ()>,
    pub(crate) providers: BTreeMap<String, ProviderView>,
}

impl Ledger {
    /// Applies one command. Infallible and deterministic; time never goes back: `max(at, last)` is used.
    pub fn apply(&mut self, at: TimestampMs, command: &Command) -> Outcome {
        let now = self.time.max(at);
        self.time = now;
        self.forget_some(now);
        match command {
            Command::PutPolicy { expected_version, rules, document } => {
                self.put_policy(*expected_version, rules, document)
            }
            Command::Reserve { tenant, id, charges, ttl_ms } => {
                self.reserve(now, Request { tenant, id: *id, charges, ttl_ms: *ttl_ms })
            }
            Command::Extend { tenant, id, ttl_ms } => self.extend(now, tenant, *id, *ttl_ms),
            Command::Settle { tenant, id, actual } => self.settle(now, tenant, *id, actual),
            Command::Release { tenant, id } => self.release(now, tenant, *id),
            Command::Expire { tenant, ids } => self.expire(now, tenant, ids),
            Command::AdjustAccount { .. } => self.adjust(now, command),
            Command::ReportProvider(report) => self.report_provider(now, report),
        }
    }

    /// The answer that `apply` would give to a Reserve at `at`, if that is a denial; `None` otherwise (also for replays
    /// and wrong operations: those go through the log). Changes nothing.
    pub fn would_deny(&self, at: TimestampMs, command: &Command) -> Option<Denial> {
        let Command::Reserve { tenant, id, charges, ttl_ms } = command else { return None };
        self.consider_denial(self.time.max(at), Request { tenant, id: *id, charges, ttl_ms: *ttl_ms })
    }

    /// The highest time applied so far.
    pub fn time(&self) -> TimestampMs {
        self.time
    }

    pub fn policy(&self) -> PolicyView {
        let rules = self.rules.values().cloned().collect();
        PolicyView { version: self.policy_version, rules, document: self.document.clone() }
    }

    /// Cheaper than `policy()`: 0 before the first policy.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// By name, those after `after`; the empty string: all.
    pub fn tenants<'a>(&'a self, after: &str) -> Box<dyn Iterator<Item = TenantView> + 'a> {
        Box::new(self.tenants.iter_after(after.into()).map(|(name, tenant)| tenant.view(name)))
    }

    pub fn tenant(&self, name: &str) -> Option<TenantView> {
        self.tenant_state(name).map(|tenant| tenant.view(name))
    }

    /// Accounts of one tenant by (budget, subject), those after `after`, as of `at` (a window that has ended by then is
    /// shown as closed).
    pub fn accounts<'a>(
        &'a self,
        at: TimestampMs,
        tenant: &str,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = AccountView> + 'a> {
        let Some((name, state)) = self.tenants.get_key_value(tenant) else {
            return Box::new(std::iter::empty());
        };
        let after = after
            .map_or_else(|| AccountKey::new("", ""), |(budget, subject)| AccountKey::new(budget, subject));
        let now = self.time.max(at);
        Box::new(
            state
                .accounts
                .iter_after(after)
                .map(move |(key, account)| self.account_view(now, name, key, account)),
        )
    }

    /// `None` if the tenant has never used this account; then its balance is the budget's whole limit.
    pub fn account(&self, at: TimestampMs, tenant: &str, budget: &str, subject: &str) -> Option<AccountView> {
        let key = AccountKey::new(budget, subject);
        let account = self.tenant_state(tenant)?.accounts.get(&key)?;
        Some(self.account_view(self.time.max(at), tenant, &key, account))
    }

    /// Open reservations of one tenant, oldest id first.
    pub fn reservations<'a>(&'a self, tenant: &str) -> Box<dyn Iterator<Item = ReservationView> + 'a> {
        match self.tenants.get_key_value(tenant) {
            Some((name, state)) => Box::new(state.reservation_views(name)),
            None => Box::new(std::iter::empty()),
        }
    }

    /// (tenant, earliest deadline) of every tenant with open reservations: what a new leader has to watch.
    pub fn deadlines(&self) -> Vec<(String, TimestampMs)> {
        let next =
            |(name, tenant): (&Arc<str>, &Arc<Tenant>)| Some((name.to_string(), tenant.next_deadline()?));
        self.tenants.iter().filter_map(next).collect()
    }

    /// Open reservations of the tenant whose deadline is at or before `at`, at most `max`.
    pub fn due(&self, tenant: &str, at: TimestampMs, max: usize) -> Vec<ReservationId> {
        self.tenant_state(tenant).map(|tenant| tenant.due(at, max)).unwrap_or_default()
    }

    /// The earliest deadline of the tenant's open reservations.
    pub fn next_deadline(&self, tenant: &str) -> Option<TimestampMs> {
        self.tenant_state(tenant)?.next_deadline()
    }

    pub fn providers(&self) -> Vec<ProviderView> {
        self.providers.values().cloned().collect()
    }

    pub(crate) fn tenant_state(&self, name: &str) -> Option<&Tenant> {
        self.tenants.get(name).map(Arc::as_ref)
    }

    pub(crate) fn tenant_existing(&mut self, name: &str) -> Option<&mut Tenant> {
        self.tenants.get_mut(name).map(Arc::make_mut)
    }

    pub(crate) fn tenant_mut(&mut self, name: &str) -> &mut Tenant {
        if !self.tenants.contains_key(name) {
            self.tenants.insert(name.into(), Arc::default());
        }
        match self.tenants.get_mut(name) {
            Some(tenant) => Arc::make_mut(tenant),
            None => unreachable!("the tenant was inserted above"),
        }
    }

    /// The rule of a budget that applies to this tenant.
    pub(crate) fn rule_for(&self, tenant: &str, budget: &str) -> Result<&BudgetRule, Refusal> {
        let applies = |rule: &&BudgetRule| rule.tenant.as_deref().is_none_or(|only| only == tenant);
        self.rules
            .get(budget)
            .filter(applies)
            .ok_or_else(|| Refusal::UnknownBudget { tenant: tenant.to_owned(), budget: budget.to_owned() })
    }

    /// The account, made if need be, with its present window at `now`.
    pub(crate) fn account_rolled(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        budget: &str,
        subject: &str,
    ) -> Result<(AccountKey, &mut Account), Refusal> {
        let rule = self.rule_for(tenant, budget)?.clone();
        let key = AccountKey::new(budget, subject);
        let accounts = &mut self.tenant_mut(tenant).accounts;
        if !accounts.contains_key(&key) {
            accounts.insert(key.clone(), Account::new(&rule, now));
        }
        let Some(account) = accounts.get_mut(&key) else { unreachable!("the account was inserted above") };
        account.roll(&rule, now);
        Ok((key, account))
    }

    /// Keeps a resolved record for the retention. A record already there (an expiry now corrected) is replaced.
    pub(crate) fn remember(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        id: ReservationId,
        mut resolved: Resolved,
    ) {
        resolved.forget_at = now.saturating_add(FORGET_AFTER_MS);
        let forget_at = resolved.forget_at;
        let before = self.tenant_mut(tenant).resolved.insert(id, resolved);
        let name: Arc<str> =
            self.tenants.get_key_value(tenant).map_or_else(|| tenant.into(), |(name, _)| name.clone());
        if let Some(before) = before {
            self.forgetting.remove(&(before.forget_at, name.clone(), id));
        }
        self.forgetting.insert((forget_at, name, id), ());
    }

    fn forget_some(&mut self, now: TimestampMs) {
        for _ in 0..FORGET_PER_COMMAND {
            let Some((key, ())) =
                self.forgetting.first_key_value().filter(|((forget_at, ..), ())| *forget_at < now)
            else {
                return;
            };
            let key = key.clone();
            self.forgetting.remove(&key);
            let (_, name, id) = key;
            let Some(tenant) = self.tenants.get_mut(&*name).map(Arc::make_mut) else { continue };
            tenant.forget(id);
            if tenant.is_blank() {
                self.tenants.remove(&*name);
            }
        }
    }

    fn account_view(
        &self,
        now: TimestampMs,
        tenant: &str,
        key: &AccountKey,
        account: &Account,
    ) -> AccountView {
        match self.rule_for(tenant, &key.budget) {
            Ok(rule) => {
                let mut account = account.clone();
                account.roll(rule, now);
                account.view(tenant, key)
            }
            Err(_) => account.view(tenant, key),
        }
    }
}

impl Tenant {
    /// The line's account in the line's window; `None` only if the account is gone.
    pub(crate) fn balance(&self, line: &Line, amount: Amount) -> Option<Balance> {
        let period = self.accounts.get(&line.account)?.period(line.span)?;
        Some(period.balance(&line.account, amount))
    }
}
