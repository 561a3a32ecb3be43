//! The part of a budget that the ledger enforces. Who it applies to is the business of the policy crate.

use serde::{Deserialize, Serialize};

use crate::{ACCOUNTS_MAX_DEFAULT, Amount, TimestampMs, Window, WindowSpan, zone};

/// What a budget counts. An [`Amount`] is in millionths of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unit {
    #[default]
    Tokens,
    /// What a cost expression gives.
    Cost,
    Dollars,
}

impl Unit {
    /// `tokens`, `cost`, `dollars`
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::Dollars => "dollars",
        }
    }
}

/// When a request is charged, and whether it can be denied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Enforcement {
    /// The worst case is held first: the limit holds exactly.
    #[default]
    Reserve,
    /// Envoy's way: denied only when nothing is left, charged afterwards. Overshoot is possible, and shown as overdraft.
    Count,
    /// Held and charged like `Reserve`, never denied: what would have been denied is counted.
    Shadow,
    /// To the ledger the same as `Reserve`. A gateway may hold a slice of an account and spend from it by itself: a slice
    /// is a reservation like any other. Releases before it cannot read a policy that says so.
    Lease,
}

impl Enforcement {
    /// The worst case of a request is held before it starts, and the limit denies it.
    pub fn binds(self) -> bool {
        match self {
            Self::Reserve | Self::Lease => true,
            Self::Count | Self::Shadow => false,
        }
    }

    /// `Reserve`, `Count`, `Shadow`, `Lease`, as policy files say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserve => "Reserve",
            Self::Count => "Count",
            Self::Shadow => "Shadow",
            Self::Lease => "Lease",
        }
    }
}

/// From `from` on, local time is UTC + `seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ZoneOffset {
    pub from: TimestampMs,
    pub seconds: i32,
}

/// What one budget allows. Each (tenant, subject) that it meets has its own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BudgetRule {
    /// 1 to 128 bytes, unique in the policy.
    pub name: String,
    /// Only this tenant; `None`: every tenant.
    pub tenant: Option<String>,
    pub unit: Unit,
    pub limit: Amount,
    pub window: Window,
    /// The time zone of the window's boundaries, ascending by `from`. Before the first entry its own offset counts.
    /// Empty: UTC.
    pub zone: Vec<ZoneOffset>,
    pub enforcement: Enforcement,
    /// The limit of a window grows by what was left of the one before, up to this.
    pub carry_over: Option<Amount>,
    /// Shares of the limit in percent at which an alert is given: 1 to 100, ascending, at most 8.
    pub alerts: Vec<u8>,
    /// Accounts of this budget per tenant; 0: [`ACCOUNTS_MAX_DEFAULT`].
    pub accounts_max: u32,
}

impl BudgetRule {
    /// A budget of every tenant, in UTC, that reserves, carries nothing over and alerts nobody.
    pub fn new(name: impl Into<String>, unit: Unit, limit: Amount, window: Window) -> Self {
        Self {
            name: name.into(),
            tenant: None,
            unit,
            limit,
            window,
            zone: Vec::new(),
            enforcement: Enforcement::default(),
            carry_over: None,
            alerts: Vec::new(),
            accounts_max: 0,
        }
    }

    /// The instance of its window that contains `at`; of a sliding window the slice.
    pub fn span_at(&self, at: TimestampMs) -> WindowSpan {
        zone::span_at(self.window, &self.zone, at)
    }

    /// 0: not a sliding window.
    pub(crate) fn sliding_ms(&self) -> u64 {
        if let Window::Sliding { ms } = self.window { ms } else { 0 }
    }

    /// The bound in force: the default where the rule names none.
    pub fn accounts_max(&self) -> u32 {
        if self.accounts_max == 0 { ACCOUNTS_MAX_DEFAULT } else { self.accounts_max }
    }
}
