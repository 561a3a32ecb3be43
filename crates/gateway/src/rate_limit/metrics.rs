//! What the service counts: for each limit of a domain, as envoyproxy/ratelimit does, and for all calls together.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use super::group::Standing;

/// Limits that get a label of their own; names may hold values of requests.
const LIMITS_MAX: usize = 2_000;
/// Of the limit, in percent: more is near it.
const NEAR_PERCENT: u64 = 80;
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// The hits of one call on one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hits {
    total: u64,
    within: u64,
    over: u64,
    near: u64,
    shadow: bool,
}

impl Hits {
    pub(super) fn of(hits: u64, standing: &Standing, shadow: bool) -> Self {
        let limit = standing.limit.units_floor();
        let near = limit / 100 * NEAR_PERCENT + limit % 100 * NEAR_PERCENT / 100;
        // Of hits that are over together, those that there was room for are near at most.
        let (within, fitting, used) = if standing.over {
            (0, standing.within.units_floor().min(hits), limit)
        } else {
            (hits, hits, standing.limit.saturating_sub(standing.left).units_floor())
        };
        let (over, near) = (hits - fitting, fitting.min(used.saturating_sub(near)));
        Self { total: hits, within, over, near, shadow }
    }
}

#[derive(Debug)]
struct Counters {
    total: Counter,
    within: Counter,
    near: Counter,
    over: Counter,
    shadow: Counter,
}

#[derive(Debug)]
pub(crate) struct RateLimitMetrics {
    calls: Family<CodeLabel, Counter>,
    /// Of it, looked up once.
    pub(super) ok: Counter,
    pub(super) over: Counter,
    pub(super) errors: Counter,
    families: [Family<LimitLabel, Counter>; 5],
    /// Looked up for every hit; written for a limit that is new.
    known: RwLock<HashMap<Arc<str>, Arc<Counters>>>,
    pub(super) global_shadow: Counter,
    pub(super) settled: Counter,
    pub(super) unsettled: Counter,
    /// Settlements that said nothing of some of the accounts.
    pub(super) kept: Counter,
    /// Reservations from slices of this process that lasted, and are in the cluster by now.
    pub(super) handed_over: Counter,
    /// Tries to do that which were denied or not decided.
    pub(super) not_handed_over: Counter,
    /// Settlements of reservations from leases that are neither here nor in the cluster: another gateway's, mostly.
    pub(super) held_elsewhere: Counter,
    /// Calls beyond `in_flight_max`.
    pub(super) turned_away: Counter,
    pub(super) config_taken: Counter,
    pub(super) config_refused: Counter,
    pub(super) seconds: Histogram,
}

impl RateLimitMetrics {
    pub(crate) fn new() -> Self {
        let calls = Family::<CodeLabel, Counter>::default();
        let [ok, over, errors] =
            ["ok", "over_limit", "error"].map(|code| calls.get_or_create(&CodeLabel { code }).clone());
        Self {
            calls,
            ok,
            over,
            errors,
            families: std::array::from_fn(|_| Family::default()),
            known: RwLock::default(),
            global_shadow: Counter::default(),
            settled: Counter::default(),
            unsettled: Counter::default(),
            kept: Counter::default(),
            handed_over: Counter::default(),
            not_handed_over: Counter::default(),
            held_elsewhere: Counter::default(),
            turned_away: Counter::default(),
            config_taken: Counter::default(),
            config_refused: Counter::default(),
            // From 10 µs to 1.3 s.
            seconds: Histogram::new((0..18).map(|step| 0.000_01 * f64::from(1 << step))),
        }
    }

    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("rate_limit_calls", "Calls of Envoy's rate limit service, by answer", self.calls.clone());
        let [total, within, near, over, shadow] = &self.families;
        r.register("rate_limit_hits", "Hits, by limit", total.clone());
        r.register("rate_limit_within_limit", "Hits within their limit", within.clone());
        r.register("rate_limit_near_limit", "Hits beyond 80 percent of their limit", near.clone());
        r.register("rate_limit_over_limit", "Hits over their limit", over.clone());
        r.register("rate_limit_shadow_mode", "Hits that shadow_mode let pass", shadow.clone());
        r.register(
            "rate_limit_global_shadow_mode",
            "Calls that the gateway's shadow_mode let pass",
            self.global_shadow.clone(),
        );
        r.register("rate_limit_settled", "Reservations settled", self.settled.clone());
        r.register("rate_limit_unsettled", "Settlements that were refused", self.unsettled.clone());
        r.register(
            "rate_limit_kept",
            "Settlements that left some accounts with what was held",
            self.kept.clone(),
        );
        r.register(
            "rate_limit_handed_over",
            "Reservations from leases that lasted, handed over to the cluster",
            self.handed_over.clone(),
        );
        r.register(
            "rate_limit_not_handed_over",
            "Tries to hand over a reservation that were denied or not decided",
            self.not_handed_over.clone(),
        );
        r.register(
            "rate_limit_held_elsewhere",
            "Settlements of reservations from leases that are not held here",
            self.held_elsewhere.clone(),
        );
        r.register("rate_limit_turned_away", "Calls beyond in_flight_max", self.turned_away.clone());
        r.register(
            "rate_limit_config_taken",
            "Configurations taken from the stream",
            self.config_taken.clone(),
        );
        r.register("rate_limit_config_refused", "Configurations refused", self.config_refused.clone());
        r.register_with_unit("rate_limit_answer", "Time to an answer", Unit::Seconds, self.seconds.clone());
    }

    pub(super) fn hits(&self, limit: &Arc<str>, hits: Hits) {
        let counters = self.counters(limit);
        counters.total.inc_by(hits.total);
        counters.within.inc_by(hits.within);
        counters.near.inc_by(hits.near);
        counters.over.inc_by(hits.over);
        if hits.shadow {
            counters.shadow.inc_by(hits.over);
        }
    }

    fn counters(&self, limit: &Arc<str>) -> Arc<Counters> {
        let known = self.known.read();
        let others = || known.get(OTHER).filter(|_| known.len() > LIMITS_MAX);
        if let Some(counters) = known.get(limit).or_else(others) {
            return Arc::clone(counters);
        }
        drop(known);
        self.learn(limit)
    }

    fn learn(&self, limit: &Arc<str>) -> Arc<Counters> {
        let mut known = self.known.write();
        let limit: Arc<str> = if known.len() < LIMITS_MAX { Arc::clone(limit) } else { OTHER.into() };
        if let Some(counters) = known.get(&limit) {
            return Arc::clone(counters);
        }
        let label = LimitLabel { limit: limit.to_string() };
        let [total, within, near, over, shadow] =
            self.families.each_ref().map(|family| family.get_or_create(&label).clone());
        let counters = Arc::new(Counters { total, within, near, over, shadow });
        known.insert(limit, Arc::clone(&counters));
        counters
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::Amount;

    use super::*;

    fn standing(limit: u64, left: u64, within: Option<u64>) -> Standing {
        let units = |n| Amount::from_units(n).unwrap();
        let (over, within) = (within.is_some(), units(within.unwrap_or(0)));
        Standing { over, limit: units(limit), left: units(left), within, resets_at: None }
    }

    #[test]
    fn hits_are_within_near_or_over() {
        for (hits, limit, left, fitting, expected) in [
            (1, 10, 9, None, (1, 0, 0)),
            (1, 10, 1, None, (1, 1, 0)),
            (5, 10, 0, None, (5, 2, 0)),
            (5, 10, 0, Some(0), (0, 0, 5)),
            (5, 10, 0, Some(1), (0, 1, 4)),
            (9, 10, 0, Some(5), (0, 2, 4)),
        ] {
            let of = Hits::of(hits, &standing(limit, left, fitting), false);
            assert_eq!((of.within, of.near, of.over), expected, "{hits} of {limit}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let metrics = RateLimitMetrics::new();
        let hits = Hits::of(1, &standing(10, 9, None), false);
        for index in 0..LIMITS_MAX + 10 {
            metrics.hits(&Arc::from(format!("d.key_{index}")), hits);
        }
        assert_eq!(metrics.known.read().len(), LIMITS_MAX + 1);
        let other = metrics.families[0].get_or_create(&LimitLabel { limit: OTHER.to_owned() }).get();
        assert_eq!(other, 10);
    }
}
