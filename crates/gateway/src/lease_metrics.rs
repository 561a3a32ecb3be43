//! What a gateway counts of the slices that it holds. Set when somebody looks: the books themselves count.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_rpc::lease::{BudgetLeases, Leases};

use crate::metrics::BudgetLabel;

#[derive(Debug, Default)]
pub(crate) struct LeaseMetrics {
    leased: Family<BudgetLabel, Gauge<f64, AtomicU64>>,
    slices: Family<BudgetLabel, Gauge<u64, AtomicU64>>,
    local: Family<BudgetLabel, Counter>,
    waited: Family<BudgetLabel, Counter>,
    direct: Family<BudgetLabel, Counter>,
    granted: Family<BudgetLabel, Counter>,
    denied: Family<BudgetLabel, Counter>,
    returned: Counter,
    unresolved: Counter,
}

impl LeaseMetrics {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register(
            "leased",
            "Held of accounts in slices and not spent, in the budget's unit",
            self.leased.clone(),
        );
        r.register("lease_slices", "Slices held, by budget", self.slices.clone());
        r.register("lease_local", "Requests admitted from slices held here, by budget", self.local.clone());
        r.register("lease_waited", "Of these, requests that waited for their slice", self.waited.clone());
        r.register("lease_direct", "Requests that no slice had room for, by budget", self.direct.clone());
        r.register("lease_granted", "Slices taken, by budget", self.granted.clone());
        r.register("lease_denied", "Slices asked for in vain, by budget", self.denied.clone());
        r.register("lease_returned", "Slices settled or released", self.returned.clone());
        r.register("lease_unresolved", "Slices left to expire, charged whole", self.unresolved.clone());
    }

    pub(crate) fn set(&self, leases: &Leases, label: impl Fn(&str) -> BudgetLabel) {
        // Several budgets may share the label of those beyond the bound.
        let mut labelled: HashMap<BudgetLabel, BudgetLeases> = HashMap::new();
        for (budget, counts) in leases.by_budget() {
            labelled.entry(label(&budget)).or_default().add(&counts);
        }
        for (label, counts) in labelled {
            self.leased.get_or_create(&label).set(counts.leased_micros as f64 / 1e6);
            self.slices.get_or_create(&label).set(counts.slices);
            set(&self.local.get_or_create(&label), counts.local);
            set(&self.waited.get_or_create(&label), counts.waited);
            set(&self.direct.get_or_create(&label), counts.direct);
            set(&self.granted.get_or_create(&label), counts.granted);
            set(&self.denied.get_or_create(&label), counts.denied);
        }
        set(&self.returned, leases.stats().returned());
        set(&self.unresolved, leases.stats().unresolved());
    }
}

fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}
