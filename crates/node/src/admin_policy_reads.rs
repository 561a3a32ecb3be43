//! What the admin service reads around policies: versions, the audit log, keys, alerts.

use quorate_ledger::{Alert, AuditRecord, KeyRecord, PolicyVersion};
use quorate_rpc::{admin, budget};

use crate::admin_reads::Reads;

impl Reads {
    pub fn policy_versions(&self) -> admin::ListPolicyVersionsResponse {
        self.replica.read(|ledger, at| admin::ListPolicyVersionsResponse {
            versions: ledger.policy_history().into_iter().map(policy_version).collect(),
            read_point: self.point(at, ledger.time()),
        })
    }

    pub fn audit(&self, request: &admin::ListAuditRequest) -> admin::ListAuditResponse {
        self.replica.read(|ledger, at| admin::ListAuditResponse {
            records: ledger.audit(request.after).into_iter().rev().map(audit_record).collect(),
            read_point: self.point(at, ledger.time()),
        })
    }

    pub fn keys(&self, request: &admin::ListKeysRequest) -> admin::ListKeysResponse {
        self.replica.read(|ledger, at| {
            let wanted = |key: &&KeyRecord| request.tenant.is_empty() || key.tenant == request.tenant;
            admin::ListKeysResponse {
                keys: ledger.keys().filter(wanted).map(without_hash).collect(),
                read_point: self.point(at, ledger.time()),
            }
        })
    }

    pub fn alerts(&self, request: &admin::ListAlertsRequest) -> admin::ListAlertsResponse {
        self.replica.read(|ledger, at| admin::ListAlertsResponse {
            alerts: ledger.recent_alerts(request.after).map(alert).collect(),
            read_point: self.point(at, ledger.time()),
        })
    }
}

/// Operators have no use for it.
pub(crate) fn without_hash(key: &KeyRecord) -> budget::ApiKey {
    budget::ApiKey { hash: Vec::new().into(), ..budget::ApiKey::from(key) }
}

pub(crate) fn policy_version(version: PolicyVersion) -> admin::PolicyVersion {
    admin::PolicyVersion {
        version: version.version,
        applied_at_ms: version.at.0,
        by: version.by,
        comment: version.comment,
        bytes: version.bytes,
        budgets: version.budgets,
    }
}

fn audit_record(record: AuditRecord) -> admin::AuditRecord {
    admin::AuditRecord {
        sequence: record.seq,
        at_ms: record.at.0,
        by: record.by,
        action: record.action.name().to_owned(),
        subject: record.subject_of_change,
        detail: record.detail,
    }
}

pub(crate) fn alert(alert: Alert) -> admin::Alert {
    admin::Alert {
        sequence: alert.seq,
        at_ms: alert.at.0,
        tenant: alert.tenant,
        budget: alert.budget,
        subject: alert.subject,
        unit: budget::Unit::from(alert.unit).into(),
        share: alert.share.into(),
        spent_micros: alert.spent.micros(),
        limit_micros: alert.limit.micros(),
        window_start_ms: alert.window.start.0,
        window_end_ms: alert.window.end.map_or(0, |end| end.0),
    }
}
