//! One slice: a reservation in the ledger, and what this process has made of it.

use quorate_ledger::{Amount, ReservationId, TimestampMs};

use super::types::Now;

/// After its deadline the ledger has charged a slice whole, and corrects that if it hears better within its retention.
/// This is less, so that a correction still arrives.
const CORRECTABLE_MS: u64 = quorate_ledger::RETENTION_MS - 10_000;

#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub number: u64,
    pub id: ReservationId,
    /// As granted.
    pub amount: Amount,
    /// By requests that have ended; beyond `amount` where they used more than they held.
    pub spent: Amount,
    /// By requests that have not.
    pub held: Amount,
    pub holds: u32,
    pub estimated: bool,
    /// Of the policy under which it was asked for.
    pub version: u64,
    /// By the ledger's clock; `None`: never.
    pub window_end: Option<TimestampMs>,
    /// When it was asked for: the ledger's deadline for it is not before this plus its time to live.
    pub asked_ms: u64,
    pub used_ms: u64,
    pub deadline_ms: u64,
}

impl Slice {
    /// What a request could have now.
    pub fn free(&self) -> Amount {
        self.left().saturating_sub(self.held)
    }

    /// What a request could have when all others have ended without using anything.
    pub fn left(&self) -> Amount {
        self.amount.saturating_sub(self.spent)
    }

    pub fn is_young(&self, version: u64, now: Now, age_max_ms: u64) -> bool {
        self.version == version
            && now.local_ms < self.asked_ms.saturating_add(age_max_ms)
            && self.window_end.is_none_or(|end| now.ledger < end)
    }

    /// What nobody used for a while.
    pub fn is_idle(&self, now: Now, idle_ms: u64) -> bool {
        now.local_ms >= self.used_ms.saturating_add(idle_ms)
    }

    /// There must be room.
    pub fn take(&mut self, amount: Amount, now: Now) {
        self.held = self.held.checked_add(amount).unwrap_or(Amount::MAX);
        self.holds += 1;
        self.used_ms = now.local_ms;
    }

    /// One hold ends. What it used is charged even where it was more than it held.
    pub fn end(&mut self, held: Amount, used: Amount, estimated: bool) {
        self.held = self.held.saturating_sub(held);
        self.holds = self.holds.saturating_sub(1);
        self.spent = self.spent.checked_add(used).unwrap_or(Amount::MAX);
        self.estimated |= estimated && !used.is_zero();
    }

    /// When nothing can be said of it any more.
    pub fn until_ms(&self) -> u64 {
        self.deadline_ms.saturating_add(CORRECTABLE_MS)
    }
}
