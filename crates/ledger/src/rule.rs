//! The part of a budget that the ledger enforces. Who it applies to is the business of the policy crate.

use serde::{Deserialize, Serialize};

use crate::{Amount, Window};

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unit {
    Tokens,
}

/// Limit and window of one budget. Each (tenant, subject) that it meets has its own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BudgetRule {
    /// 1 to 128 bytes, unique in the policy.
    pub name: String,
    /// Only this tenant; `None`: every tenant.
    pub tenant: Option<String>,
    pub unit: Unit,
    pub limit: Amount,
    pub window: Window,
}
