//! What only ever grows (a place in the log, a number of a version): which readings of it show less than another one that
//! had ended before they began. Not for writes, whose places differ: that is `order.rs`.

/// One look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    pub invoked_us: u64,
    pub completed_us: u64,
    pub value: u64,
    pub event: u64,
}

/// Each that went back, after the highest one that it ought to have seen.
pub fn back(mut readings: Vec<Reading>) -> Vec<(Reading, Reading)> {
    readings.sort_unstable();
    let mut ended = readings.clone();
    ended.sort_unstable_by_key(|reading| reading.completed_us);
    let (mut ended, mut highest) = (ended.into_iter().peekable(), None::<Reading>);
    let mut found = Vec::new();
    for reading in readings {
        while let Some(before) = ended.next_if(|before| before.completed_us < reading.invoked_us) {
            if highest.is_none_or(|highest| highest.value < before.value) {
                highest = Some(before);
            }
        }
        found.extend(highest.filter(|before| before.value > reading.value).map(|before| (before, reading)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(event: u64, invoked_us: u64, completed_us: u64, value: u64) -> Reading {
        Reading { invoked_us, completed_us, value, event }
    }

    #[test]
    fn only_what_had_ended_counts() {
        let long = reading(0, 0, 30, 7);
        let short = reading(1, 5, 10, 9);
        // Both were under way at once.
        assert_eq!(back(vec![long, short]), []);
        let later = reading(2, 11, 12, 8);
        assert_eq!(back(vec![later, long, short]), [(short, later)]);
        assert_eq!(back(vec![later, reading(3, 12, 20, 9), reading(4, 31, 32, 9)]), []);
        // The highest before it, not the last.
        let last = reading(5, 40, 41, 8);
        assert_eq!(back(vec![long, short, last]), [(short, last)]);
    }
}
