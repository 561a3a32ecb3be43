//! Windows on UTC calendar boundaries.

use serde::{Deserialize, Serialize};

use crate::TimestampMs;

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
}

/// One instance of a window: `start <= t < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowSpan {
    pub start: TimestampMs,
    /// `None`: never ends.
    pub end: Option<TimestampMs>,
}
