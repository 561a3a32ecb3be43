//! Which faults when: drawn from a seed, so that a run can be had again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::{Known, Need, all};
use crate::deploy::Options;

/// Two faults at once, one time in so many.
const PAIRS_ONE_IN: u32 = 4;
const LASTS_MS: std::ops::RangeInclusive<u64> = 2_000..=8_000;
const QUIET_MS: std::ops::RangeInclusive<u64> = 1_000..=4_000;
/// One time in so many nothing happens for longer than recovery may take: else a recovery that is too slow would never show.
const LONG_QUIET_ONE_IN: u32 = 3;
const LONG_QUIET_MS: std::ops::RangeInclusive<u64> = 6_000..=8_000;

#[derive(Debug, Clone)]
pub struct Step {
    /// Nothing happens for so long, then
    pub quiet: Duration,
    /// these are injected in this order,
    pub faults: Vec<&'static Known>,
    /// and healed, the last one first, after so long.
    pub lasts: Duration,
}

/// An endless sequence of steps.
#[derive(Debug, Clone)]
pub struct Schedule {
    random: StdRng,
    choice: Vec<&'static Known>,
}

impl Schedule {
    /// `choice` must not be empty.
    pub fn new(seed: u64, choice: Vec<&'static Known>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), choice }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let random = &mut self.random;
        let first = *self.choice.choose(random)?;
        let second = *self.choice.choose(random)?;
        let pair = random.random_ratio(1, PAIRS_ONE_IN) && first.class.goes_with(second.class);
        let faults = if pair { vec![first, second] } else { vec![first] };
        let quiet = if random.random_ratio(1, LONG_QUIET_ONE_IN) { LONG_QUIET_MS } else { QUIET_MS };
        let mut ms = |range| Duration::from_millis(random.random_range(range));
        Some(Step { quiet: ms(quiet), faults, lasts: ms(LASTS_MS) })
    }
}

/// For `--fault random`: all that are possible here and those that are not, with the reason.
pub fn possible(options: &Options) -> (Vec<&'static Known>, Vec<(&'static str, String)>) {
    let (mut possible, mut not) = (Vec::new(), Vec::new());
    for known in all() {
        match known.missing(options) {
            Some(missing) => not.push((known.name, missing)),
            // It is about one restart into a new binary; by itself it is not part of a mix.
            None if known.needs.contains(&Need::Previous) || known.name == "none" => {}
            None => possible.push(known),
        }
    }
    (possible, not)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::availability::RECOVERY_MAX_US;

    fn draw(seed: u64) -> Vec<(Duration, Vec<&'static str>, Duration)> {
        let steps = Schedule::new(seed, all().iter().collect()).take(200);
        steps.map(|step| (step.quiet, step.faults.iter().map(|f| f.name).collect(), step.lasts)).collect()
    }

    #[test]
    fn a_seed_always_draws_the_same_and_another_one_not() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn pairs_go_together_and_times_keep_to_their_bounds() {
        let (mut pairs, mut long) = (0, 0);
        for step in Schedule::new(3, all().iter().collect()).take(2_000) {
            assert!((2..=8).contains(&step.lasts.as_secs()) && (1..=8).contains(&step.quiet.as_secs()));
            // Long enough to see a recovery that is too slow.
            long += usize::from(step.quiet.as_micros() > u128::from(RECOVERY_MAX_US));
            if let [first, second] = step.faults[..] {
                assert!(first.class.goes_with(second.class), "{first:?} and {second:?}");
                pairs += 1;
            }
        }
        assert!((100..700).contains(&pairs), "{pairs}");
        assert!((500..900).contains(&long), "{long}");
    }

    #[test]
    fn without_a_choice_there_is_nothing() {
        assert!(Schedule::new(1, Vec::new()).next().is_none());
    }
}
