//! Windows on UTC calendar boundaries, in integers only.

use serde::{Deserialize, Serialize};

use crate::TimestampMs;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// 1970-01-05 was the first Monday.
const FIRST_MONDAY_MS: u64 = 4 * DAY_MS;
/// Of a sliding window.
const SLICES: u64 = 60;

/// How long a budget counts before it starts again. Weeks start on Monday; months and years are calendar ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Window {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Lifetime,
    /// The last `ms` milliseconds at any time, in [`SLICES`] slices. 1,000 to 366 days.
    Sliding {
        ms: u64,
    },
}

/// One instance of a window: `start <= t < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowSpan {
    pub start: TimestampMs,
    /// `None`: never ends.
    pub end: Option<TimestampMs>,
}

impl Window {
    /// The instance that contains `at`, in UTC; of a sliding window the slice. The first week of 1970 is cut short at the epoch.
    pub fn span_at(self, at: TimestampMs) -> WindowSpan {
        let (start, end) = match self {
            Self::Sliding { ms } => fixed(at.0, slice_ms(ms)),
            Self::Second => fixed(at.0, SECOND_MS),
            Self::Minute => fixed(at.0, MINUTE_MS),
            Self::Hour => fixed(at.0, HOUR_MS),
            Self::Day => fixed(at.0, DAY_MS),
            Self::Week if at.0 < FIRST_MONDAY_MS => (0, FIRST_MONDAY_MS),
            Self::Week => {
                let (start, end) = fixed(at.0 - FIRST_MONDAY_MS, 7 * DAY_MS);
                (start + FIRST_MONDAY_MS, end.saturating_add(FIRST_MONDAY_MS))
            }
            Self::Month => {
                let (year, month) = year_month(at.0 / DAY_MS);
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (month_start_ms(year, month), month_start_ms(next_year, next_month))
            }
            Self::Year => {
                let (year, _) = year_month(at.0 / DAY_MS);
                (month_start_ms(year, 1), month_start_ms(year + 1, 1))
            }
            Self::Lifetime => return WindowSpan { start: TimestampMs(0), end: None },
        };
        WindowSpan { start: TimestampMs(start), end: Some(TimestampMs(end)) }
    }

    /// `Second` … `Lifetime`, `Sliding`, as policy files say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "Second",
            Self::Minute => "Minute",
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Week => "Week",
            Self::Month => "Month",
            Self::Year => "Year",
            Self::Lifetime => "Lifetime",
            Self::Sliding { .. } => "Sliding",
        }
    }
}

/// A sliding window is counted in whole slices: what is in one leaves when all of it is old enough.
pub(crate) fn slice_ms(window_ms: u64) -> u64 {
    window_ms.div_ceil(SLICES).max(1)
}

fn fixed(at: u64, length: u64) -> (u64, u64) {
    let start = at - at % length;
    (start, start.saturating_add(length))
}

/// Year and month (1 to 12) of a day since 1970-01-01, in the proleptic Gregorian calendar. The year starts in March
/// here, so that the leap day comes last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn year_month(day: u64) -> (u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month)
}

/// Midnight of the first day of a month, Unix milliseconds. The inverse of [`year_month`].
fn month_start_ms(year: u64, month: u64) -> u64 {
    let shifted_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    ((era * 146_097 + day_of_era) - 719_468).saturating_mul(DAY_MS)
}
