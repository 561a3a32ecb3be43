//! A straight line through measured points, and whether it says that something grows.

use serde::Serialize;

/// A change below this share of the mean, in all the time that was looked at, is called flat. In a quarter of an hour: less
/// than a twenty-fifth an hour.
const FLAT_SHARE: f64 = 0.01;

/// Least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    pub slope: f64,
    pub at_zero: f64,
    /// Standard error of the slope; 0 with two points.
    pub slope_error: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Flat,
    Grows,
    Shrinks,
}

impl Line {
    /// `None`: fewer than two different x.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if points.len() < 2 || spread <= f64::EPSILON {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let at_zero = mean_y - slope * mean_x;
        let rest: f64 = points.iter().map(|(x, y)| (y - at_zero - slope * x).powi(2)).sum();
        let slope_error = if points.len() > 2 { (rest / (count - 2.0) / spread).sqrt() } else { 0.0 };
        Some(Self { slope, at_zero, slope_error })
    }
}

impl Verdict {
    /// Of a line of something by the hour, seen for so many hours: a change counts that is more than its error and more than
    /// a small share.
    pub fn of(by_hour: Line, mean: f64, hours: f64) -> Self {
        let change = by_hour.slope.abs();
        if change <= 2.0 * by_hour.slope_error || change * hours <= FLAT_SHARE * mean.abs() {
            Self::Flat
        } else if by_hour.slope > 0.0 {
            Self::Grows
        } else {
            Self::Shrinks
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Grows => "GROWS",
            Self::Shrinks => "shrinks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(slope: f64) -> Vec<(f64, f64)> {
        (0..100)
            .map(|i| (f64::from(i) / 100.0, 200.0 + slope * f64::from(i) / 100.0 + f64::from(i % 3)))
            .collect()
    }

    #[test]
    fn finds_a_line_and_its_error() {
        let exact = Line::through(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert!((exact.slope - 2.0).abs() < 1e-9 && (exact.at_zero - 1.0).abs() < 1e-9, "{exact:?}");
        assert!(exact.slope_error < 1e-9, "{exact:?}");
        let rough = Line::through(&[(0.0, 1.0), (1.0, 5.0), (2.0, 3.0)]).unwrap();
        assert!(rough.slope_error > 0.5, "{rough:?}");
        assert_eq!(Line::through(&[(1.0, 1.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }

    #[test]
    fn judges_growth_against_noise_and_size() {
        for (slope, verdict) in
            [(0.0, Verdict::Flat), (1.5, Verdict::Flat), (50.0, Verdict::Grows), (-50.0, Verdict::Shrinks)]
        {
            let line = Line::through(&noisy(slope)).unwrap();
            assert_eq!(Verdict::of(line, 200.0, 1.0), verdict, "{slope}: {line:?}");
        }
        // Steep, but lost in the noise.
        let line = Line { slope: 50.0, at_zero: 0.0, slope_error: 40.0 };
        assert_eq!(Verdict::of(line, 200.0, 1.0), Verdict::Flat);
        // Steep, but of one minute only.
        let line = Line { slope: 50.0, at_zero: 0.0, slope_error: 1.0 };
        assert_eq!(Verdict::of(line, 200.0, 1.0 / 60.0), Verdict::Flat);
    }
}
