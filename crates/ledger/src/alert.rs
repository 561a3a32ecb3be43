//! Alerts: an account has reached a share of its limit. Each share at most once for each account and window.

use serde::{Deserialize, Serialize};

use crate::{Amount, TimestampMs, Unit, WindowSpan};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Alert {
    /// Ascending from 1, without gaps in what the ledger gives; those dropped or acknowledged are missing.
    pub seq: u64,
    pub at: TimestampMs,
    pub tenant: String,
    pub budget: String,
    pub subject: String,
    pub unit: Unit,
    /// In percent of `limit`.
    pub share: u8,
    /// As the charge left it.
    pub spent: Amount,
    pub limit: Amount,
    /// The window that was charged.
    pub window: WindowSpan,
}
