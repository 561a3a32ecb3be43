//! What is forgotten, and when: resolved records after the retention, accounts that nobody uses any more, keys that
//! ended long ago.
//!
//! Both wait in an index ordered by time. A command takes off as many as a command of its size can add, and a few more:
//! so memory is bounded by rate × retention, and none is slow. Everything happens at ledger time, alike on every replica.

use std::sync::Arc;

use crate::tenant::Resolved;
use crate::{Command, FUTURE_SKEW_MAX_MS, Ledger, RETENTION_MS, ReservationId, TimestampMs};

/// An id may be ahead of the ledger by the skew; only so much later than the retention is a replay surely stale.
const FORGET_AFTER_MS: u64 = RETENTION_MS + FUTURE_SKEW_MAX_MS;
/// Beyond what the command itself can add.
const EXTRA_PER_COMMAND: usize = 2;

impl Ledger {
    pub(crate) fn forget_some(&mut self, now: TimestampMs, command: &Command) {
        let (records, accounts) = match command {
            Command::Reserve { charges, .. } => (1, charges.len().min(crate::CHARGES_MAX)),
            Command::Expire { ids, .. } => (ids.len(), 0),
            _ => (1, 1),
        };
        for _ in 0..EXTRA_PER_COMMAND {
            if !self.keys.drop_one(now) {
                break;
            }
        }
        for _ in 0..records + EXTRA_PER_COMMAND {
            if !self.forget_a_record(now) {
                break;
            }
        }
        for _ in 0..accounts + EXTRA_PER_COMMAND {
            if !self.look_at_an_account(now) {
                break;
            }
        }
    }

    /// Keeps a resolved record for the retention. A record already there (an expiry now corrected) is replaced.
    pub(crate) fn remember(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        id: ReservationId,
        mut resolved: Resolved,
    ) {
        let forget_at = now.saturating_add(FORGET_AFTER_MS);
        resolved.forget_at = forget_at;
        let (name, state) = self.tenant_mut(tenant);
        let before = state.resolved.insert(id, resolved);
        if let Some(before) = before {
            self.forgetting.remove(&(before.forget_at, name.clone(), id));
        }
        self.forgetting.insert((forget_at, name, id), ());
    }

    /// False if none is due.
    fn forget_a_record(&mut self, now: TimestampMs) -> bool {
        let first = self.forgetting.first_key_value().filter(|((at, ..), ())| *at < now);
        let Some(key) = first.map(|(key, ())| key.clone()) else { return false };
        self.forgetting.remove(&key);
        let (_, name, id) = key;
        if let Some(tenant) = self.tenant_existing(&name) {
            tenant.forget(id, now);
            self.drop_if_blank(&name);
        }
        true
    }

    /// Looks at the account that has waited longest: lets it go, or says when to look again. False if none is due.
    fn look_at_an_account(&mut self, now: TimestampMs) -> bool {
        let first = self.looks.first_key_value().filter(|((at, ..), ())| *at <= now);
        let Some(look) = first.map(|(look, ())| look.clone()) else { return false };
        self.looks.remove(&look);
        let (_, name, key) = look;
        let rule = self.policy.rule(&name, key.budget());
        let Some(tenant) = self.tenants.get_mut(&*name).map(Arc::make_mut) else { return true };
        let Some(account) = tenant.accounts.get_mut(&key) else { return true };
        if account.can_go(rule, now) {
            tenant.drop_account(&key);
            self.drop_if_blank(&name);
            return true;
        }
        account.look_at = account.idle_at().map(|at| at.max(now.saturating_add(FORGET_AFTER_MS)));
        if let Some(at) = account.look_at {
            self.looks.insert((at, name, key), ());
        }
        true
    }

    fn drop_if_blank(&mut self, name: &Arc<str>) {
        if self.tenants.get(&**name).is_some_and(|tenant| tenant.is_blank()) {
            self.tenants.remove(&**name);
        }
    }
}
