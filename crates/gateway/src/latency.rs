//! How long backends take to the first byte: the fleet's average where it has one, and before that what this gateway sees
//! itself, an exponentially weighted average for each backend and model. It only ever decides between backends that would
//! do, so nothing is lost with the process.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use quorate_ledger::TimestampMs;
use tokio::time::Instant;

use crate::core::Providers;

/// Of each new sample: some ten requests back are as good as forgotten.
const WEIGHT: f64 = 0.2;
/// What is older is no measurement any more.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// Pairs of backend and model; beyond it all are forgotten. Clients may name any model where a route lets them.
const KEPT_MAX: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Latencies {
    fleet: Providers,
    kept: Mutex<Kept>,
}

/// By backend, then by model.
#[derive(Debug, Default)]
struct Kept {
    known: HashMap<String, HashMap<String, Known>>,
    count: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Milliseconds as this gateway sees them, and when it last did.
    own: Option<(f64, Instant)>,
}

impl Latencies {
    pub(crate) fn new(fleet: Providers) -> Self {
        Self { fleet, kept: Mutex::default() }
    }

    /// An answer with a good status began.
    pub(crate) fn saw(&self, backend: &str, model: &str, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        let mut kept = self.kept.lock();
        let known = kept.of(backend, model);
        let before = known.own.filter(|(_, at)| is_fresh(*at));
        let average = before.map_or(ms, |(before, _)| before + WEIGHT * (ms - before));
        known.own = Some((average, Instant::now()));
    }

    /// In milliseconds. `None`: not measured lately. `now`: by the ledger's clock.
    pub(crate) fn of(&self, backend: &str, model: &str, now: impl Fn() -> TimestampMs) -> Option<u64> {
        let fleet = {
            let providers = self.fleet.borrow();
            let circuit = quorate_rpc::circuit(&providers, backend, model);
            circuit.and_then(|view| Some((view.first_byte_ms?, view.first_byte_at?)))
        };
        if let Some((ms, at)) = fleet
            && u128::from(now().since(at)) < STALE_AFTER.as_millis()
        {
            return Some(ms);
        }
        let known = self.kept.lock().known.get(backend)?.get(model).copied()?;
        known.own.filter(|(_, at)| is_fresh(*at)).map(|(ms, _)| ms.round() as u64)
    }
}

fn is_fresh(at: Instant) -> bool {
    at.elapsed() < STALE_AFTER
}

impl Kept {
    fn of(&mut self, backend: &str, model: &str) -> &mut Known {
        let is_known = self.known.get(backend).is_some_and(|models| models.contains_key(model));
        if !is_known && self.count >= KEPT_MAX {
            *self = Self::default();
        }
        self.count += usize::from(!is_known);
        self.known.entry(backend.to_owned()).or_default().entry(model.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{ProviderState, ProviderView};
    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn new_samples_weigh_more_and_old_ones_end() {
        let latencies = Latencies::new(watch::Sender::default().subscribe());
        let ms = Duration::from_millis;
        latencies.saw("a", "m", ms(100));
        assert_eq!(
            (latencies.of("a", "m", now), latencies.of("a", "n", now), latencies.of("b", "m", now)),
            (Some(100), None, None)
        );
        latencies.saw("a", "m", ms(200));
        assert_eq!(latencies.of("a", "m", now), Some(120));
        for _ in 0..40 {
            latencies.saw("a", "m", ms(400));
        }
        assert_eq!(latencies.of("a", "m", now), Some(400));
        tokio::time::advance(STALE_AFTER).await;
        assert_eq!(latencies.of("a", "m", now), None);
        latencies.saw("a", "m", ms(10));
        assert_eq!(latencies.of("a", "m", now), Some(10));
    }

    #[test]
    fn what_clients_name_does_not_grow_without_bound() {
        let latencies = Latencies::new(watch::Sender::default().subscribe());
        for number in 0..3 * KEPT_MAX {
            latencies.saw("a", &number.to_string(), Duration::ZERO);
            assert!(latencies.kept.lock().count <= KEPT_MAX);
        }
    }

    fn now() -> TimestampMs {
        TimestampMs(1_790_000_000_000)
    }

    fn view(first_byte_ms: u64, ago_ms: u64) -> ProviderView {
        ProviderView {
            backend: "a".to_owned(),
            model: "m".to_owned(),
            state: ProviderState::Closed,
            since: TimestampMs(0),
            until: None,
            cause: None,
            reason: String::new(),
            reporter: String::new(),
            holder: String::new(),
            openings: 0,
            first_byte_ms: Some(first_byte_ms),
            first_byte_at: Some(TimestampMs(now().0 - ago_ms)),
            drained_since: None,
            drained_by: String::new(),
            revision: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_fleet_measures_comes_first_as_long_as_it_goes_on() {
        let fleet = watch::Sender::<quorate_rpc::Providers>::default();
        let latencies = Latencies::new(fleet.subscribe());
        let tell = |view: ProviderView| {
            fleet.send_modify(|known| {
                let models = std::sync::Arc::make_mut(known).entry("a".to_owned()).or_default();
                models.insert("m".to_owned(), view);
            });
        };
        latencies.saw("a", "m", Duration::from_millis(100));
        assert_eq!(latencies.of("a", "m", now), Some(100));
        tell(view(300, 59_000));
        assert_eq!(latencies.of("a", "m", now), Some(300), "however long it has stayed the same");
        tell(view(300, 60_000));
        assert_eq!(latencies.of("a", "m", now), Some(100), "the fleet's is old, this gateway's is not");
        tokio::time::advance(STALE_AFTER).await;
        assert_eq!(
            latencies.of("a", "m", now),
            None,
            "neither the fleet nor this gateway has seen any answer"
        );
        tell(view(310, 0));
        assert_eq!(latencies.of("a", "m", now), Some(310));
    }
}
