//! What the ledger shows: read models as of a given time. Nothing here changes anything.

use std::sync::Arc;

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::tenant::Tenant;
use crate::{
    AccountView, Alert, AuditRecord, BudgetRule, KeyRecord, Ledger, PolicyVersion, PolicyView, ProviderView,
    ReservationId, ReservationView, TenantView, TimestampMs,
};

impl Ledger {
    /// The highest time applied so far.
    pub fn time(&self) -> TimestampMs {
        self.time
    }

    pub fn policy(&self) -> PolicyView {
        self.policy.view()
    }

    /// Cheaper than `policy()`: 0 before the first policy.
    pub fn policy_version(&self) -> u64 {
        self.policy.version()
    }

    /// By name, those after `after`; the empty string: all.
    pub fn tenants<'a>(&'a self, after: &str) -> Box<dyn Iterator<Item = TenantView> + 'a> {
        Box::new(self.tenants.iter_after(after).map(|(name, tenant)| tenant.view(name)))
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
        let after = after.map_or_else(String::new, |(budget, subject)| AccountKey::text(budget, subject));
        let now = self.time.max(at);
        let accounts = state.accounts.iter_after(&*after);
        Box::new(accounts.filter_map(move |(key, account)| self.account_view(now, name, key, account)))
    }

    /// `None` if the tenant has never used this account; then its balance is the budget's whole limit.
    pub fn account(&self, at: TimestampMs, tenant: &str, budget: &str, subject: &str) -> Option<AccountView> {
        let text = AccountKey::text(budget, subject);
        let (key, account) = self.tenant_state(tenant)?.accounts.get_key_value(&*text)?;
        self.account_view(self.time.max(at), tenant, key, account)
    }

    /// `None` if it is only kept until something looks at it. Whoever asks does not see when that happens.
    fn account_view(
        &self,
        now: TimestampMs,
        tenant: &str,
        key: &AccountKey,
        account: &Account,
    ) -> Option<AccountView> {
        let rule = self.policy.rule(tenant, key.budget());
        if account.can_go(rule, now) {
            return None;
        }
        let Some(rule) = rule else { return Some(account.view(tenant, key, None, now)) };
        let mut account = account.clone();
        account.roll(rule, now);
        Some(account.view(tenant, key, Some(rule), now))
    }

    /// Open reservations of one tenant, oldest id first.
    pub fn reservations<'a>(&'a self, tenant: &str) -> Box<dyn Iterator<Item = ReservationView> + 'a> {
        match self.tenants.get_key_value(tenant) {
            Some((name, state)) => Box::new(state.reservation_views(name)),
            None => Box::new(std::iter::empty()),
        }
    }

    /// Was this id decided on, and is that still remembered?
    pub fn knows(&self, tenant: &str, id: ReservationId) -> bool {
        self.tenant_state(tenant)
            .is_some_and(|tenant| tenant.open.contains_key(&id) || tenant.resolved.contains_key(&id))
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

    /// By backend and model, the whole backend first.
    pub fn providers(&self) -> impl Iterator<Item = ProviderView> + '_ {
        self.providers.views()
    }

    /// Another number after every change of a circuit.
    pub fn providers_revision(&self) -> u64 {
        self.providers.revision
    }

    /// Newest first.
    pub fn policy_history(&self) -> Vec<PolicyVersion> {
        self.policy.versions.iter().rev().map(|version| version.view()).collect()
    }

    /// `None`: there never was this version, or the history has let it go.
    pub fn policy_document(&self, version: u64) -> Option<(String, Vec<BudgetRule>)> {
        let found = self.policy.versions.iter().find(|kept| kept.version == version)?;
        Some((found.document.clone(), found.rules.values().cloned().collect()))
    }

    /// Those that nobody has acknowledged, oldest first.
    pub fn alerts_after(&self, seq: u64) -> impl Iterator<Item = Alert> + '_ {
        self.alerts.kept.iter_after(&seq).map(|(_, alert)| alert.clone())
    }

    /// Those that are to be delivered and those that were lately, oldest first.
    pub fn recent_alerts(&self, after: u64) -> impl Iterator<Item = Alert> + '_ {
        let delivered = self.alerts.delivered.iter_after(&after);
        delivered.chain(self.alerts.kept.iter_after(&after)).map(|(_, alert)| alert.clone())
    }

    /// How many nobody has acknowledged.
    pub fn alerts_waiting(&self) -> usize {
        self.alerts.kept.len()
    }

    /// Alerts that were dropped because nobody took them.
    pub fn alerts_dropped(&self) -> u64 {
        self.alerts.dropped
    }

    /// Oldest first.
    pub fn audit(&self, after_seq: u64) -> Vec<AuditRecord> {
        self.audit.kept.iter_after(&after_seq).map(|(_, record)| record.clone()).collect()
    }

    /// By id; revoked and expired ones too, until they are dropped.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRecord> + '_ {
        self.keys.records.iter().map(|(_, key)| key.as_ref())
    }

    pub fn key(&self, id: &str) -> Option<&KeyRecord> {
        self.keys.records.get(id).map(Arc::as_ref)
    }

    /// Another number after every change of a key.
    pub fn keys_revision(&self) -> u64 {
        self.keys.revision
    }
}
