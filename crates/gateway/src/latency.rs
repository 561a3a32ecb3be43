//! How long backends take to the first byte, as this gateway sees it: an exponentially weighted average for each backend
//! and model. Lost with the process, and of this gateway alone; it only ever decides between backends that would do.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Of each new sample: some ten requests back are as good as forgotten.
const WEIGHT: f64 = 0.2;
/// What is older is no measurement any more.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// Pairs of backend and model; beyond it all are forgotten. Clients may name any model where a route lets them.
const KEPT_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Average {
    ms: f64,
    at: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<Kept>);

/// By backend, then by model.
#[derive(Debug, Default)]
struct Kept {
    averages: HashMap<String, HashMap<String, Average>>,
    count: usize,
}

impl Latencies {
    /// An answer with a good status began.
    pub(crate) fn saw(&self, backend: &str, model: &str, took: Duration) {
        let (ms, at) = (took.as_secs_f64() * 1000.0, Instant::now());
        let mut kept = self.0.lock();
        if let Some(known) = kept.averages.get_mut(backend).and_then(|models| models.get_mut(model)) {
            let fresh = known.at.elapsed() < STALE_AFTER;
            known.ms = if fresh { known.ms + WEIGHT * (ms - known.ms) } else { ms };
            known.at = at;
            return;
        }
        if kept.count >= KEPT_MAX {
            *kept = Kept::default();
        }
        kept.count += 1;
        let models = kept.averages.entry(backend.to_owned()).or_default();
        models.insert(model.to_owned(), Average { ms, at });
    }

    /// `None`: not measured lately. The one place to put what the whole fleet has measured before what this gateway has.
    pub(crate) fn of(&self, backend: &str, model: &str) -> Option<u64> {
        let kept = self.0.lock();
        let known = kept.averages.get(backend)?.get(model)?;
        (known.at.elapsed() < STALE_AFTER).then_some(known.ms.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn new_samples_weigh_more_and_old_ones_end() {
        let latencies = Latencies::default();
        let ms = Duration::from_millis;
        latencies.saw("a", "m", ms(100));
        assert_eq!(
            (latencies.of("a", "m"), latencies.of("a", "n"), latencies.of("b", "m")),
            (Some(100), None, None)
        );
        latencies.saw("a", "m", ms(200));
        assert_eq!(latencies.of("a", "m"), Some(120));
        for _ in 0..40 {
            latencies.saw("a", "m", ms(400));
        }
        assert_eq!(latencies.of("a", "m"), Some(400));
        tokio::time::advance(STALE_AFTER).await;
        assert_eq!(latencies.of("a", "m"), None);
        latencies.saw("a", "m", ms(10));
        assert_eq!(latencies.of("a", "m"), Some(10));
    }

    #[test]
    fn what_clients_name_does_not_grow_without_bound() {
        let latencies = Latencies::default();
        for number in 0..3 * KEPT_MAX {
            latencies.saw("a", &number.to_string(), Duration::ZERO);
            assert!(latencies.0.lock().count <= KEPT_MAX);
        }
    }
}
