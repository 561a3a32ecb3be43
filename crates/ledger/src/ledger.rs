//! The state machine: what it holds, and where each command goes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::adjust::AdjustRequest;
use crate::alert::Alerts;
use crate::audit::Audit;
use crate::cow_map::CowMap;
use crate::key::Keys;
use crate::policy::{Policy, PutRequest};
use crate::provider::{Claim, Providers};
use crate::reserve::Request;
use crate::staging::Stage;
use crate::tenant::Tenant;
use crate::{Command, Denial, Outcome, ReservationId, TimestampMs};

/// All budgets of a cluster. Cloning is cheap (structure is shared), so a snapshot never stops the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// The highest time applied so far.
    pub(crate) time: TimestampMs,
    pub(crate) policy: Policy,
    pub(crate) staged: Option<Arc<Stage>>,
    pub(crate) tenants: CowMap<Arc<str>, Arc<Tenant>>,
    /// When to forget which resolved record.
    pub(crate) forgetting: CowMap<(TimestampMs, Arc<str>, ReservationId), ()>,
    /// When to see which account can go.
    pub(crate) looks: CowMap<(TimestampMs, Arc<str>, AccountKey), ()>,
    pub(crate) alerts: Alerts,
    pub(crate) keys: Keys,
    pub(crate) audit: Audit,
    pub(crate) providers: Providers,
}

impl Ledger {
    /// Applies one command. Infallible and deterministic; time never goes back: `max(at, last)` is used.
    pub fn apply(&mut self, at: TimestampMs, command: &Command) -> Outcome {
        let now = self.time.max(at);
        self.time = now;
        self.forget_some(now, command);
        match command {
            Command::PutPolicy { expected_version, rules, document, staged, by, comment } => {
                let (expected, upload) = (*expected_version, *staged);
                self.put_policy(now, PutRequest { expected, rules, document, upload, by, comment })
            }
            Command::StagePolicy { upload, part, rules, document } => {
                self.stage_policy(*upload, *part, rules, document)
            }
            Command::Reserve { tenant, id, charges, ttl_ms, wait } => {
                self.reserve(now, Request { tenant, id: *id, charges, ttl_ms: *ttl_ms, wait: *wait })
            }
            Command::Extend { tenant, id, ttl_ms } => self.extend(now, tenant, *id, *ttl_ms),
            Command::Settle { tenant, id, actual, estimated } => {
                self.settle(now, tenant, *id, actual, *estimated)
            }
            Command::Release { tenant, id } => self.release(now, tenant, *id),
            Command::Expire { tenant, ids } => self.expire(now, tenant, ids),
            Command::AdjustAccount { tenant, id, budget, subject, adjustment, by } => {
                self.adjust(now, AdjustRequest { tenant, id: *id, budget, subject, adjustment, by })
            }
            Command::PutKey { key, by } => self.put_key(now, key, by),
            Command::RevokeKey { id, by } => self.revoke_key(now, id, by),
            Command::AckAlerts { up_to } => {
                self.alerts.ack(*up_to);
                Outcome::AlertsAcked
            }
            Command::ReportProvider(report) => self.report_provider(now, report),
            Command::ClaimProbe { backend, model, holder, probe, lease_ms } => {
                let (probe, lease_ms) = (*probe, *lease_ms);
                self.claim_probe(now, Claim { backend, model, holder, probe, lease_ms })
            }
            Command::DrainProvider { backend, drained, by } => {
                self.drain_provider(now, backend, *drained, by)
            }
            Command::RecordChange { action, subject, detail, by } => {
                self.record_change(now, by, *action, subject, detail)
            }
        }
    }

    /// The answer that `apply` would give to a Reserve at `at`, if that is a denial; `None` otherwise (also for replays
    /// and wrong operations: those go through the log). Changes nothing.
    pub fn would_deny(&self, at: TimestampMs, command: &Command) -> Option<Denial> {
        let Command::Reserve { tenant, id, charges, ttl_ms, wait } = command else { return None };
        self.consider_denial(
            self.time.max(at),
            Request { tenant, id: *id, charges, ttl_ms: *ttl_ms, wait: *wait },
        )
    }
}
