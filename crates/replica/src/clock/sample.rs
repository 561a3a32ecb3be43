//! What is known of one peer's wall clock, from question and answer as in NTP (RFC 5905, section 8). No clock in here.
//!
//! The peer read its clock at some time between the question and the answer. So its clock's origin (see `Moment`) lies
//! within half a round trip of the middle, surely: both ends are taken by this node's monotonic clock. Answers overlap, and
//! what they have in common is nearer to the truth than any of them. One that contradicts a later one is from before the
//! peer's clock was set: it and all before it are left out.

use std::collections::VecDeque;

const SAMPLES_MAX: usize = 8;
/// Later than this, a sample says nothing any more.
pub(crate) const EXPIRES_MS: i64 = 10_000;
/// Times come in whole milliseconds; so much is cut off.
const ROUNDING_MS: i64 = 2;

/// The origin of a clock, in the terms of this node's monotonic clock, and how wrong that may be either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub origin_ms: i64,
    pub error_ms: i64,
}

impl Estimate {
    /// How far `origin_ms` is ahead of this clock, at least: nothing, where it may be the same.
    pub fn behind_ms(self, origin_ms: i64) -> i64 {
        let apart = origin_ms - self.origin_ms;
        apart.signum() * (apart.abs() - self.error_ms).max(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    low_ms: i64,
    high_ms: i64,
    answered_ms: i64,
}

impl Sample {
    /// The peer's wall clock stood at `wall_ms` at some time between the two, which are this node's monotonic clock's.
    pub fn new(asked_ms: i64, answered_ms: i64, wall_ms: i64) -> Self {
        Self {
            low_ms: wall_ms - answered_ms - ROUNDING_MS,
            high_ms: wall_ms - asked_ms + ROUNDING_MS,
            answered_ms,
        }
    }
}

/// The last samples of one peer, the newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerClock {
    samples: VecDeque<Sample>,
}

impl PeerClock {
    pub fn add(&mut self, sample: Sample) {
        self.samples.truncate(SAMPLES_MAX - 1);
        self.samples.push_front(sample);
    }

    /// `None`: not known, or not to within `error_max_ms`.
    pub fn estimate(&self, now_ms: i64, error_max_ms: i64) -> Option<Estimate> {
        let mut fresh = self.samples.iter().filter(|sample| now_ms - sample.answered_ms <= EXPIRES_MS);
        let newest = fresh.next()?;
        let (mut low, mut high) = (newest.low_ms, newest.high_ms);
        for sample in fresh {
            if sample.low_ms > high || sample.high_ms < low {
                break;
            }
            (low, high) = (low.max(sample.low_ms), high.min(sample.high_ms));
        }
        let estimate = Estimate { origin_ms: low + (high - low) / 2, error_ms: (high - low + 1) / 2 };
        (estimate.error_ms <= error_max_ms).then_some(estimate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(samples: &[(i64, i64, i64)]) -> PeerClock {
        let mut peer = PeerClock::default();
        for (asked, answered, wall) in samples {
            peer.add(Sample::new(*asked, *answered, *wall));
        }
        peer
    }

    #[test]
    fn half_a_round_trip_is_the_error() {
        // Asked at 100, answered at 140, the peer's clock said 5,120: its origin is 5,000, give or take 20 and rounding.
        let estimate = peer(&[(100, 140, 5_120)]).estimate(200, 250).unwrap();
        assert_eq!(estimate, Estimate { origin_ms: 5_000, error_ms: 22 });
        assert_eq!(estimate.behind_ms(5_022), 0);
        assert_eq!(estimate.behind_ms(5_100), 78);
        assert_eq!(estimate.behind_ms(4_900), -78);
    }

    #[test]
    fn what_is_old_or_vague_is_not_known() {
        let table = [
            // (samples, now, known)
            (vec![], 0, false),
            (vec![(0, 10, 5_005)], EXPIRES_MS + 10, true),
            (vec![(0, 10, 5_005)], EXPIRES_MS + 11, false),
            (vec![(0, 496, 5_005)], 500, true),
            (vec![(0, 497, 5_005)], 500, false),
            // A quick answer helps a slow one for as long as it is fresh.
            (vec![(0, 10, 5_005), (100, 2_100, 6_000)], 2_100, true),
            (vec![(0, 10, 5_005), (9_000, 11_000, 15_000)], 11_000, false),
        ];
        for (samples, now, known) in table {
            assert_eq!(peer(&samples).estimate(now, 250).is_some(), known, "{samples:?} at {now}");
        }
    }

    #[test]
    fn a_jump_of_the_peer_is_seen_at_once() {
        let samples = [(0, 2, 5_001), (1_000, 1_002, 6_001), (2_000, 2_010, 12_005)];
        let estimate = peer(&samples).estimate(2_010, 250).unwrap();
        assert_eq!(estimate.origin_ms, 10_000);
    }

    /// Question, the peer's reading, the answer: `(pause, there, back)`.
    fn exchanges() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        proptest::collection::vec((0..3_000_i64, 0..400_i64, 0..400_i64), 1..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_truth_is_within_the_error(origin in -1_000_000..1_000_000_i64, exchanges in exchanges()) {
            let (mut peer, mut now) = (PeerClock::default(), 0);
            let mut least = i64::MAX;
            for (pause, there, back) in exchanges {
                let asked = now + pause;
                now = asked + there + back;
                peer.add(Sample::new(asked, now, origin + asked + there));
                least = (there + back + 1) / 2 + ROUNDING_MS;
                let estimate = peer.estimate(now, i64::MAX).unwrap();
                prop_assert!((estimate.origin_ms - origin).abs() <= estimate.error_ms);
                prop_assert!(estimate.error_ms <= least);
                prop_assert_eq!(estimate.behind_ms(origin), 0);
            }
            prop_assert!(peer.estimate(now, least).is_some());
        }

        #[test]
        fn after_a_jump_the_newest_answer_bounds_the_error(
            origin in -1_000_000..1_000_000_i64,
            jumps in proptest::collection::vec(-5_000..5_000_i64, 20),
            exchanges in exchanges(),
        ) {
            let (mut peer, mut now, mut origin) = (PeerClock::default(), 0, origin);
            for ((pause, there, back), jump) in exchanges.into_iter().zip(jumps) {
                let asked = now + pause;
                now = asked + there + back;
                // Also while the question is on its way.
                origin += jump;
                peer.add(Sample::new(asked, now, origin + asked + there));
                let estimate = peer.estimate(now, i64::MAX).unwrap();
                let newest = there + back + 2 * ROUNDING_MS;
                prop_assert!((estimate.origin_ms - origin).abs() <= newest);
            }
        }
    }
}
