//! The time with which a leader stamps batches: its wall clock, unless that has jumped. No clock in here.
//!
//! The ledger's time never goes back, so one stamp far ahead shifts all windows and deadlines for good. Between two rounds of
//! comparing nobody else would notice. But a wall clock that is set moves against the monotonic clock: from then on the
//! stamp is the last believed time plus what has passed since, until a majority's clocks confirm the new one. A node whose
//! clock the majority finds wrong stamps with the majority's time, should it have to lead all the same.

use super::source::Moment;
use super::verdict::Verdict;

#[derive(Debug, Clone, Copy)]
pub(crate) struct StampClock {
    /// The origin (see [`Moment`]) that is believed; none before the first use.
    believed_ms: Option<i64>,
    offset_max_ms: i64,
}

impl StampClock {
    pub fn new(offset_max_ms: i64) -> Self {
        Self { believed_ms: None, offset_max_ms }
    }

    /// The time to stamp with. The first one is believed for want of a better.
    pub fn stamp(&mut self, moment: Moment) -> i64 {
        self.believed_ms.get_or_insert(moment.origin_ms());
        self.time(moment)
    }

    /// The same without believing it from now on.
    pub fn time(&self, moment: Moment) -> i64 {
        moment.wall_ms - self.held_ms(moment)
    }

    /// So far the wall clock has jumped ahead (negative: back) without being believed; 0: it is what stamps say.
    pub fn held_ms(&self, moment: Moment) -> i64 {
        let jump = moment.origin_ms() - self.believed_origin(moment);
        if jump.abs() > self.offset_max_ms { jump } else { 0 }
    }

    /// Takes up what the comparison at this moment says.
    pub fn hear(&mut self, moment: Moment, verdict: &Verdict) {
        let off = verdict.deviation_ms.filter(|deviation| deviation.abs() > self.offset_max_ms);
        if verdict.is_confirmed() {
            self.believed_ms = Some(moment.origin_ms());
        } else if let Some(deviation) = off {
            self.believed_ms = Some(moment.origin_ms() - deviation);
        }
    }

    /// Of the time that stamps follow: what other clocks are measured by.
    pub fn believed_origin(&self, moment: Moment) -> i64 {
        self.believed_ms.unwrap_or_else(|| moment.origin_ms())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::sample::Estimate;
    use crate::clock::verdict::judge;

    const MAX: i64 = 500;

    fn moment(wall_ms: i64, run_ms: i64) -> Moment {
        Moment { wall_ms, run_ms }
    }

    fn hears(clock: &mut StampClock, moment: Moment, others: &[i64]) {
        let others: Vec<_> =
            others.iter().map(|origin_ms| Some(Estimate { origin_ms: *origin_ms, error_ms: 2 })).collect();
        clock.hear(moment, &judge(moment.origin_ms(), &others, MAX));
    }

    #[test]
    fn a_jump_counts_when_it_is_confirmed() {
        let mut clock = StampClock::new(MAX);
        assert_eq!(clock.stamp(moment(10_000, 0)), 10_000);
        assert_eq!(clock.stamp(moment(10_100, 100)), 10_100);
        // Set by an hour; the monotonic clock has run for 100 ms.
        assert_eq!(clock.stamp(moment(3_610_200, 200)), 10_200);
        assert_eq!(clock.held_ms(moment(3_610_200, 200)), 3_600_000);
        // One of two others has not made the jump: no majority has it.
        clock.hear(
            moment(3_610_300, 300),
            &judge(3_610_000, &[Some(Estimate { origin_ms: 10_000, error_ms: 2 }), None], MAX),
        );
        assert_eq!(clock.stamp(moment(3_610_300, 300)), 10_300);
        hears(&mut clock, moment(3_610_400, 400), &[3_610_001, 10_000]);
        assert_eq!(clock.stamp(moment(3_610_400, 400)), 3_610_400);
        assert_eq!(clock.held_ms(moment(3_610_400, 400)), 0);
    }

    #[test]
    fn small_steps_are_no_jumps() {
        let mut clock = StampClock::new(MAX);
        clock.stamp(moment(10_000, 0));
        assert_eq!(clock.stamp(moment(10_600, 100)), 10_600);
        assert_eq!(clock.stamp(moment(10_601, 100)), 10_100);
        assert_eq!(clock.stamp(moment(9_600, 100)), 9_600);
        assert_eq!(clock.stamp(moment(9_599, 100)), 10_100);
    }

    #[test]
    fn a_clock_that_was_wrong_from_the_start_is_corrected() {
        let mut clock = StampClock::new(MAX);
        hears(&mut clock, moment(10_000, 0), &[5_000, 5_100]);
        let stamp = clock.stamp(moment(10_100, 100));
        assert!((5_100..5_210).contains(&stamp), "{stamp}");
        // And followed again when it is right.
        assert_eq!(clock.stamp(moment(5_250, 200)), 5_250);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Pass(i64),
        Jump(i64),
        Compare,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3_000_i64).prop_map(Step::Pass),
            2 => prop_oneof![-100_000..100_000_i64, -700..700_i64].prop_map(Step::Jump),
            2 => Just(Step::Compare),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Two others keep the true time: whatever this node's wall clock does, and whenever they are compared, no stamp is
        /// further from the true time than the limit, and the clocks' own error, allow.
        #[test]
        fn no_jump_of_one_clock_moves_the_stamps(steps in steps(), start in 0..1_000_000_000_i64) {
            let mut clock = StampClock::new(MAX);
            let (mut run, mut set) = (0, 0);
            clock.stamp(moment(start, 0));
            for step in steps {
                match step {
                    Step::Pass(ms) => run += ms,
                    Step::Jump(ms) => set += ms,
                    Step::Compare => hears(&mut clock, moment(start + set + run, run), &[start, start + 1]),
                }
                let stamp = clock.stamp(moment(start + set + run, run));
                // Believed up to the limit (and errors) off, then up to the limit from that.
                prop_assert!((stamp - start - run).abs() <= 2 * (MAX + 3), "{} at {run}", stamp - start - run);
            }
        }

        /// All clocks make the same jump: after the next comparison the stamps do.
        #[test]
        fn what_all_clocks_say_is_followed(start in 0..1_000_000_000_i64, jump in -1_000_000..1_000_000_i64) {
            let mut clock = StampClock::new(MAX);
            clock.stamp(moment(start, 0));
            hears(&mut clock, moment(start + jump + 1_000, 1_000), &[start + jump, start + jump]);
            prop_assert_eq!(clock.stamp(moment(start + jump + 1_100, 1_100)), start + jump + 1_100);
        }
    }
}
