//! Tiers: what becomes of a request by the share of its budget that is left. A pure function; the gateway acts on it.

use quorate_ledger::Amount;

/// One step. Those of a budget stand in descending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Applies while strictly more than this share of the limit is left, 0 to 99 percent.
    pub above_percent: u8,
    pub action: TierAction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierAction {
    /// Serve the request with this model.
    Model(String),
    Reject,
    /// Wait for the budget's `max_wait_ms` at most, then reject.
    Wait,
}

/// The first tier of `tiers` above which the share `left` of `limit` lies. `None`: no tier applies, and the request
/// stays as it is.
pub fn tier_at(tiers: &[Tier], left: Amount, limit: Amount) -> Option<&TierAction> {
    let above = |tier: &&Tier| {
        u128::from(left.micros()) * 100 > u128::from(limit.micros()) * u128::from(tier.above_percent)
    };
    tiers.iter().find(above).map(|tier| &tier.action)
}
