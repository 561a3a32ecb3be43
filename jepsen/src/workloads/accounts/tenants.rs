//! The tenants of a run: a few hot ones at a time, each for so many operations, then others. So each has a short history,
//! which a checker can search.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_ledger::{Amount, ReservationId};
use rand::Rng;

use crate::check::words::{self, Limit};
use crate::history::Recorder;

/// Reservations that a client may still end; beyond it the oldest are left to expire.
const OPEN_MAX: usize = 12;

/// A reservation that was granted, or may have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    pub id: ReservationId,
    /// What each charge holds, if that is known; else what was asked.
    pub held: Vec<Amount>,
}

#[derive(Debug)]
pub struct Hot {
    pub name: String,
    operations: AtomicU64,
    /// Held for a look only.
    made: Mutex<Vec<Made>>,
}

impl Hot {
    pub fn keep(&self, made: Made) {
        let mut all = self.made.lock();
        if all.len() >= OPEN_MAX {
            all.remove(0);
        }
        all.push(made);
    }

    /// One of those that were made; taken away if it is to end.
    pub fn pick(&self, random: &mut impl Rng, take: bool) -> Option<Made> {
        let mut all = self.made.lock();
        if all.is_empty() {
            return None;
        }
        let place = random.random_range(0..all.len());
        if take { Some(all.swap_remove(place)) } else { all.get(place).cloned() }
    }
}

#[derive(Debug)]
pub struct Tenants {
    workload: &'static str,
    limits: Vec<Limit>,
    operations_max: u64,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    hot: Vec<Arc<Hot>>,
    names: Vec<String>,
}

impl Tenants {
    pub fn new(workload: &'static str, limits: Vec<Limit>, operations_max: u64) -> Self {
        Self { workload, limits, operations_max, slots: Mutex::default() }
    }

    /// One of `hot` tenants, for one more operation.
    pub fn next(&self, recorder: &Recorder, random: &mut impl Rng, hot: usize) -> Arc<Hot> {
        let mut slots = self.slots.lock();
        let slot = random.random_range(0..hot);
        let known = slots.hot.get(slot).cloned();
        if let Some(tenant) = known
            && tenant.operations.fetch_add(1, Ordering::Relaxed) < self.operations_max
        {
            return tenant;
        }
        // Over a run of several minutes, names still sort by their time.
        let name = format!("{}-{:05}", self.workload, slots.names.len());
        let tenant =
            Arc::new(Hot { name: name.clone(), operations: AtomicU64::new(1), made: Mutex::default() });
        let event = words::Tenant { tenant: name.clone(), accounts: self.limits.clone() };
        recorder.info(self.workload, words::TENANT, &event);
        slots.names.push(name);
        match slots.hot.get_mut(slot) {
            Some(place) => *place = tenant.clone(),
            None => slots.hot.push(tenant.clone()),
        }
        tenant
    }

    /// All that there ever were.
    pub fn names(&self) -> Vec<String> {
        self.slots.lock().names.clone()
    }
}
