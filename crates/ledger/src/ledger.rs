//! The state machine: what it holds, and where each command goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::adjust::AdjustRequest;
use crate::cow_map::CowMap;
use crate::policy::Policy;
use crate::reserve::Request;
use crate::tenant::Tenant;
use crate::{Command, Denial, Outcome, ProviderView, Refusal, ReservationId, TimestampMs};

/// All budgets of a cluster. Cloning is cheap (structure is shared), so a snapshot never stops the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// The highest time applied so far.
    pub(crate) time: TimestampMs,
    pub(crate) policy: Policy,
    pub(crate) tenants: CowMap<Arc<str>, Arc<Tenant>>,
    /// When to forget which resolved record.
    pub(crate) forgetting: CowMap<(TimestampMs, Arc<str>, ReservationId), ()>,
    /// When to see which account can go.
    pub(crate) looks: CowMap<(TimestampMs, Arc<str>, AccountKey), ()>,
    pub(crate) providers: BTreeMap<String, ProviderView>,
}

impl Ledger {
    /// Applies one command. Infallible and deterministic; time never goes back: `max(at, last)` is used.
    pub fn apply(&mut self, at: TimestampMs, command: &Command) -> Outcome {
        let now = self.time.max(at);
        self.time = now;
        self.forget_some(now, command);
        match command {
            Command::PutPolicy { staged: Some(_), .. } | Command::StagePolicy { .. } => {
                not_yet("a policy in several parts")
            }
            Command::PutPolicy { expected_version, rules, document, staged: None, by: _, comment: _ } => {
                self.put_policy(*expected_version, rules, document)
            }
            Command::Reserve { wait: true, .. } => not_yet("a reservation that waits"),
            Command::Reserve { tenant, id, charges, ttl_ms, wait: false } => {
                self.reserve(now, Request { tenant, id: *id, charges, ttl_ms: *ttl_ms })
            }
            Command::Extend { tenant, id, ttl_ms } => self.extend(now, tenant, *id, *ttl_ms),
            Command::Settle { tenant, id, actual } => self.settle(now, tenant, *id, actual),
            Command::Release { tenant, id } => self.release(now, tenant, *id),
            Command::Expire { tenant, ids } => self.expire(now, tenant, ids),
            Command::AdjustAccount { tenant, id, budget, subject, adjustment, by: _ } => {
                self.adjust(now, AdjustRequest { tenant, id: *id, budget, subject, adjustment })
            }
            Command::PutKey { .. } | Command::RevokeKey { .. } => not_yet("an API key"),
            Command::AckAlerts { .. } => not_yet("an acknowledged alert"),
            Command::ReportProvider(report) => self.report_provider(now, report),
        }
    }

    /// The answer that `apply` would give to a Reserve at `at`, if that is a denial; `None` otherwise (also for replays
    /// and wrong operations: those go through the log). Changes nothing.
    pub fn would_deny(&self, at: TimestampMs, command: &Command) -> Option<Denial> {
        let Command::Reserve { tenant, id, charges, ttl_ms, wait: _ } = command else { return None };
        self.consider_denial(self.time.max(at), Request { tenant, id: *id, charges, ttl_ms: *ttl_ms })
    }
}

fn not_yet(what: &str) -> Outcome {
    Outcome::Refused(Refusal::Invalid(format!("{what} is not possible yet")))
}
