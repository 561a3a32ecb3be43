//! This node's clocks: the wall clock, which others see and which may jump, and the monotonic clock, which only runs.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Keeps sums of any two times from overflowing, whatever a clock or a peer says.
const FAR_MS: i64 = 1 << 60;
/// The two clocks are read one after the other; a thread that loses its processor between them would see a jump.
const READ_WITHIN_MS: i64 = 2;
const READS_MAX: usize = 4;

/// Both clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub wall_ms: i64,
    /// Since this process opened its folder.
    pub run_ms: i64,
}

impl Moment {
    /// The wall clock's reading when the monotonic clock stood at zero: constant unless the wall clock is set.
    pub fn origin_ms(self) -> i64 {
        self.wall_ms - self.run_ms
    }
}

/// Where a node takes its time from. Cheap to clone.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    started: Instant,
}

impl Clock {
    /// The operating system's.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// A wall clock in milliseconds since 1970, for tests.
    pub fn new(wall_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall_ms), started: Instant::now() }
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        bounded((self.wall)())
    }

    pub(crate) fn run_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(FAR_MS)
    }

    pub(crate) fn moment(&self) -> Moment {
        let mut best: Option<(i64, Moment)> = None;
        for _ in 0..READS_MAX {
            let (before, wall_ms, after) = (self.run_ms(), self.wall_ms(), self.run_ms());
            let took = after - before;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, Moment { wall_ms, run_ms: before + took / 2 }));
            }
            if took <= READ_WITHIN_MS {
                break;
            }
        }
        best.map_or(Moment { wall_ms: self.wall_ms(), run_ms: self.run_ms() }, |(_, moment)| moment)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// A time as a clock or a peer says it.
pub(crate) fn bounded(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(FAR_MS).min(FAR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reading_overflows() {
        let clock = Clock::new(|| u64::MAX);
        assert_eq!(clock.moment().wall_ms, FAR_MS);
        assert!(clock.moment().origin_ms() <= FAR_MS);
        assert_eq!(bounded(7), 7);
    }

    #[test]
    fn the_origin_moves_only_when_the_wall_clock_is_set() {
        let early = Moment { wall_ms: 10_000, run_ms: 40 };
        let later = Moment { wall_ms: 10_500, run_ms: 540 };
        assert_eq!(early.origin_ms(), later.origin_ms());
        assert_eq!(Moment { wall_ms: 15_500, ..later }.origin_ms() - early.origin_ms(), 5_000);
    }
}
