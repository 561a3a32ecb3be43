//! Histograms of openraft's statistics, for the crate of this name on crates.io: that one makes tables of every scale that
//! it knows when the first histogram is made, 26 MiB in every node, and openraft uses the third of sixteen scales only.
//! Here the bounds of a bucket are computed.
//!
//! Not a histogram for anybody else, and not the whole of the other crate: what openraft 0.10.0-alpha.37 names without its
//! feature `runtime-stats`. With that feature, or another version of openraft, it may not compile; take the line under
//! `[patch.crates-io]` out of the root Cargo.toml then, and this folder with it.

use std::fmt;
use std::marker::PhantomData;

/// Buckets to each power of two, so that a bucket is at most a quarter of its lower bound wide.
const PER_POWER: usize = 4;
const BUCKETS: usize = (u64::BITS as usize - 1) * PER_POWER;

/// How often values were seen, by their size. Percentiles are the lower bounds of buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64]>,
    /// The other crate's histograms carry data with their windows; openraft's have none.
    data: PhantomData<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// Several histograms, one a line.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), data: PhantomData }
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, times: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count = count.saturating_add(times);
        }
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        let at = |permille| self.percentile(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The bucket of the value that so many of a thousand do not exceed; 0 of none.
    fn percentile(&self, samples: u64, permille: u64) -> u64 {
        let wanted = (u128::from(samples) * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        reached.map_or(0, lower_bound)
    }
}

/// Small values have buckets of their own; then the three highest bits decide.
fn bucket_of(value: u64) -> usize {
    let powers = (u64::BITS - value.leading_zeros()).saturating_sub(3) as usize;
    let leading = usize::try_from(value >> powers).unwrap_or(0);
    powers * PER_POWER + leading
}

fn lower_bound(bucket: usize) -> u64 {
    let powers = (bucket / PER_POWER).saturating_sub(1);
    let leading = bucket - powers * PER_POWER;
    (leading as u64) << powers
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(out, "{name}: {stats}"))
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} samples, p50 {}, p99 {}, p99.9 {}", self.samples, self.p50, self.p99, self.p99_9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_hold_it() {
        let near =
            |power: u32| (0..3).map(move |more| (1_u64 << power).saturating_add(more).saturating_sub(1));
        for value in (0..u64::BITS).flat_map(near).chain([u64::MAX]) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS, "{value}");
            assert!(lower_bound(bucket) <= value, "{value} {bucket}");
            assert!(bucket + 1 == BUCKETS || value < lower_bound(bucket + 1), "{value} {bucket}");
        }
    }

    #[test]
    fn percentiles_are_lower_bounds_of_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        (1..=7).for_each(|value| histogram.record(value));
        histogram.record_n(1_030, 93);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p5, stats.p50, stats.p99_9), (100, 1, 5, 1_024, 1_024));
    }
}
