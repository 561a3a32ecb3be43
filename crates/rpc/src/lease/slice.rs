//! One slice: a reservation in the ledger, and what this process has made of it.

use quorate_ledger::{Amount, ReservationId, TimestampMs};

use super::types::{LeaseSettings, Now};

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
    pub life: Life,
}

/// How long a slice is of use, counted from when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// It gives.
    pub age_ms: u64,
    /// It goes back if nobody takes from it.
    pub idle_ms: u64,
}

/// Below `most`, and evenly over it for neighbours (Knuth, TAOCP 3, 6.4). Slices of accounts differ in the upper bits.
pub(super) fn spread(number: u64, most: u64) -> u64 {
    let part = number.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    most.saturating_mul(part) >> 32
}

impl Life {
    /// A slice of a small part of what is left has a long one, and no two end together that were taken together.
    pub fn new(far: bool, number: u64, settings: &LeaseSettings) -> Self {
        let LeaseSettings { age_max_ms, idle_ms, far_age_max_ms, far_idle_ms, .. } = *settings;
        if !far {
            return Self { age_ms: age_max_ms, idle_ms };
        }
        let early = spread(number, far_age_max_ms / 2);
        Self { age_ms: (far_age_max_ms - early).max(age_max_ms), idle_ms: far_idle_ms.max(idle_ms) }
    }

    /// When the next slice is asked for, if there is none yet.
    pub fn renewed_after_ms(&self) -> u64 {
        self.age_ms - self.age_ms / 5
    }
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

    pub fn is_young(&self, version: u64, now: Now) -> bool {
        self.is_younger(self.life.age_ms, version, now)
    }

    /// Young, and for some time yet.
    pub fn is_fresh(&self, version: u64, now: Now) -> bool {
        self.is_younger(self.life.renewed_after_ms(), version, now)
    }

    fn is_younger(&self, age_ms: u64, version: u64, now: Now) -> bool {
        self.version == version
            && now.local_ms < self.asked_ms.saturating_add(age_ms)
            && self.window_end.is_none_or(|end| now.ledger < end)
    }

    /// What nobody used for a while.
    pub fn is_idle(&self, now: Now) -> bool {
        now.local_ms >= self.used_ms.saturating_add(self.life.idle_ms)
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
