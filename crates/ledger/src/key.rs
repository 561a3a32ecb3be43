//! API keys that Quorate issued: who carries one is known by it. Only its hash is here.

use serde::{Deserialize, Serialize};

use crate::TimestampMs;

/// One key. Revoked and expired ones are dropped 30 days later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRecord {
    /// 1 to 64 bytes of `[a-z0-9]`; part of the key's text, no secret.
    pub id: String,
    /// SHA-256 of the whole text of the key.
    pub hash: [u8; 32],
    pub tenant: String,
    pub user: String,
    /// Empty: none.
    pub team: String,
    /// What it may ask for; empty: every model. At most 64.
    pub models: Vec<String>,
    /// Set by the ledger.
    pub created_at: TimestampMs,
    pub expires_at: Option<TimestampMs>,
    /// Set by the ledger.
    pub revoked_at: Option<TimestampMs>,
    /// Who made it. Set by the ledger from the command.
    pub by: String,
    /// At most 512 bytes.
    pub comment: String,
}
