//! What a process has done with its slices, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of one budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetLeases {
    /// Slices that are held now.
    pub slices: u64,
    /// What of them is not spent, in micros of the budget's unit.
    pub leased_micros: u64,
    /// Requests admitted from a slice.
    pub local: u64,
    /// Of these, those that waited for their slice.
    pub waited: u64,
    /// Requests that no slice had room for.
    pub direct: u64,
    /// Slices that were granted.
    pub granted: u64,
    /// Slices that were not.
    pub denied: u64,
}

/// Of the whole process.
#[derive(Debug, Default)]
pub struct LeaseStats {
    pub(super) returned: AtomicU64,
    pub(super) unresolved: AtomicU64,
}

impl LeaseStats {
    /// Slices that were settled or released.
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Slices that could not be: they expire as charged.
    pub fn unresolved(&self) -> u64 {
        self.unresolved.load(Ordering::Relaxed)
    }
}

impl BudgetLeases {
    pub fn add(&mut self, more: &Self) {
        self.slices += more.slices;
        self.leased_micros = self.leased_micros.saturating_add(more.leased_micros);
        self.local += more.local;
        self.waited += more.waited;
        self.direct += more.direct;
        self.granted += more.granted;
        self.denied += more.denied;
    }
}
