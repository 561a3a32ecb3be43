//! The state machine.

use serde::{Deserialize, Serialize};

use crate::{
    AccountView, Command, Outcome, PolicyView, ProviderView, ReservationId, ReservationView, TenantView, TimestampMs,
};

/// All budgets of a cluster. Cloning is cheap (structure is shared), so a snapshot never stops the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {}

impl Ledger {
    /// Applies one command. Infallible and deterministic; time never goes back: `max(at, last)` is used.
    pub fn apply(&mut self, at: TimestampMs, command: &Command) -> Outcome {
        let _ = (at, command);
        todo!()
    }

    /// The answer that `apply` would give to a Reserve at `at`, if that is a denial; `None` otherwise (also for replays
    /// and wrong operations: those go through the log). Changes nothing.
    pub fn would_deny(&self, at: TimestampMs, command: &Command) -> Option<crate::Denial> {
        let _ = (at, command);
        todo!()
    }

    /// The highest time applied so far.
    pub fn time(&self) -> TimestampMs {
        todo!()
    }

    pub fn policy(&self) -> PolicyView {
        todo!()
    }

    /// Cheaper than `policy()`: 0 before the first policy.
    pub fn policy_version(&self) -> u64 {
        todo!()
    }

    /// By name, those after `after`.
    pub fn tenants<'a>(&'a self, after: &str) -> Box<dyn Iterator<Item = TenantView> + 'a> {
        let _ = after;
        todo!()
    }

    pub fn tenant(&self, name: &str) -> Option<TenantView> {
        let _ = name;
        todo!()
    }

    /// Accounts of one tenant by (budget, subject), those after `after`, as of `at` (a window that has ended by then is shown as closed).
    pub fn accounts<'a>(
        &'a self,
        at: TimestampMs,
        tenant: &str,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = AccountView> + 'a> {
        let _ = (at, tenant, after);
        todo!()
    }

    /// `None` if the tenant has never used this account; then its balance is the budget's whole limit.
    pub fn account(&self, at: TimestampMs, tenant: &str, budget: &str, subject: &str) -> Option<AccountView> {
        let _ = (at, tenant, budget, subject);
        todo!()
    }

    /// Open reservations of one tenant, oldest id first.
    pub fn reservations<'a>(&'a self, tenant: &str) -> Box<dyn Iterator<Item = ReservationView> + 'a> {
        let _ = tenant;
        todo!()
    }

    /// (tenant, earliest deadline) of every tenant with open reservations: what a new leader has to watch.
    pub fn deadlines(&self) -> Vec<(String, TimestampMs)> {
        todo!()
    }

    /// Open reservations of the tenant whose deadline is at or before `at`, at most `max`.
    pub fn due(&self, tenant: &str, at: TimestampMs, max: usize) -> Vec<ReservationId> {
        let _ = (tenant, at, max);
        todo!()
    }

    /// The earliest deadline of the tenant's open reservations.
    pub fn next_deadline(&self, tenant: &str) -> Option<TimestampMs> {
        let _ = tenant;
        todo!()
    }

    pub fn providers(&self) -> Vec<ProviderView> {
        todo!()
    }
}
