//! Who changed what, and when: the last changes that operators made.

use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;
use crate::{AUDIT_MAX, Ledger, Outcome, Refusal, TimestampMs, check};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuditAction {
    PutPolicy,
    AdjustAccount,
    PutKey,
    RevokeKey,
    DrainBackend,
    UndrainBackend,
    AddNode,
    RemoveNode,
    ReplaceNode,
    /// A member that lost its folder.
    RejoinNode,
}

impl AuditAction {
    /// `put policy`, `adjust account`, `put key`, `revoke key`, `drain backend`, `undrain backend`, `add node`,
    /// `remove node`, `replace node`, `rejoin node`
    pub fn name(self) -> &'static str {
        match self {
            Self::PutPolicy => "put policy",
            Self::AdjustAccount => "adjust account",
            Self::PutKey => "put key",
            Self::RevokeKey => "revoke key",
            Self::DrainBackend => "drain backend",
            Self::UndrainBackend => "undrain backend",
            Self::AddNode => "add node",
            Self::RemoveNode => "remove node",
            Self::ReplaceNode => "replace node",
            Self::RejoinNode => "rejoin node",
        }
    }
}

impl std::fmt::Display for AuditAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Ascending from 1.
    pub seq: u64,
    pub at: TimestampMs,
    /// As the caller said; may be empty.
    pub by: String,
    pub action: AuditAction,
    /// `policy version 3`, `tenant acme, budget hourly, subject "alice"`, `key k1 of tenant acme`, `backend openai`,
    /// `node 4`
    pub subject_of_change: String,
    pub detail: String,
}

/// The last [`AUDIT_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub written: u64,
    pub kept: CowMap<u64, AuditRecord>,
}

impl Audit {
    pub fn record(
        &mut self,
        at: TimestampMs,
        by: &str,
        action: AuditAction,
        subject_of_change: String,
        detail: String,
    ) {
        self.written += 1;
        let seq = self.written;
        let by = by.to_owned();
        self.kept.insert(seq, AuditRecord { seq, at, by, action, subject_of_change, detail });
        if self.kept.len() > AUDIT_MAX {
            self.kept.remove(&(seq - AUDIT_MAX as u64));
        }
    }
}

impl Ledger {
    /// A change that is not the ledger's own, such as one of the cluster's membership.
    pub(crate) fn record_change(
        &mut self,
        now: TimestampMs,
        by: &str,
        action: AuditAction,
        subject: &str,
        detail: &str,
    ) -> Outcome {
        let checked =
            check::by(by).and_then(|()| check::subject(subject)).and_then(|()| check::comment(detail));
        if let Err(message) = checked {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        self.audit.record(now, by, action, subject.to_owned(), detail.to_owned());
        Outcome::ChangeRecorded
    }
}
