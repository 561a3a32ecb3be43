//! Calendar windows in a time zone, given as a table of offsets. The names of zones and their rules are not known here.
//!
//! A day, week, month or year begins when the local clock first shows its midnight, or jumps over it: so a day has 23 or
//! 25 hours where the clock is changed, and none is counted twice. Seconds, minutes and hours follow the offset in
//! force and are cut short only where the clock is changed by less than a whole one.

use crate::{TimestampMs, Window, WindowSpan, ZoneOffset};

/// No offset is larger. Those in use are within -12 and +14 hours.
pub(crate) const OFFSET_MAX_SECONDS: i32 = 86_400;
const OFFSET_MAX_MS: i128 = OFFSET_MAX_SECONDS as i128 * 1_000;

/// The instance of `window` that contains `at`. An empty zone is UTC.
pub(crate) fn span_at(window: Window, zone: &[ZoneOffset], at: TimestampMs) -> WindowSpan {
    if zone.is_empty() {
        return window.span_at(at);
    }
    match window {
        Window::Lifetime | Window::Sliding { .. } => window.span_at(at),
        Window::Second | Window::Minute | Window::Hour => short_span_at(window, zone, at),
        Window::Day | Window::Week | Window::Month | Window::Year => {
            let mut local = window.span_at(local(zone, at));
            // Where the clock is set back over midnight, the new day has begun though the clock shows the old one.
            while let Some(end) = local.end.filter(|end| first_at(zone, *end) <= at) {
                let next = window.span_at(end);
                if next == local {
                    break; // the end of all time
                }
                local = next;
            }
            let start = cut_at_epoch(local.start, first_at(zone, local.start));
            WindowSpan { start, end: local.end.map(|end| first_at(zone, end)) }
        }
    }
}

fn short_span_at(window: Window, zone: &[ZoneOffset], at: TimestampMs) -> WindowSpan {
    let (from, offset, to) = segment(zone, index_at(zone, at));
    let span = window.span_at(local(zone, at));
    let utc = |local: TimestampMs| instant(i128::from(local.0) - offset);
    WindowSpan {
        start: cut_at_epoch(span.start, utc(span.start).max(from)),
        end: span.end.map(|end| to.map_or(utc(end), |to| to.min(utc(end)))),
    }
}

/// The first window of 1970 begins with it, wherever the clock is behind UTC.
fn cut_at_epoch(local: TimestampMs, start: TimestampMs) -> TimestampMs {
    if local.0 == 0 { local } else { start }
}

/// What the local clock shows. Before 1970 it shows the beginning of 1970.
fn local(zone: &[ZoneOffset], at: TimestampMs) -> TimestampMs {
    let (_, offset, _) = segment(zone, index_at(zone, at));
    instant(i128::from(at.0) + offset)
}

/// The first instant at which the local clock shows `local` or later.
fn first_at(zone: &[ZoneOffset], local: TimestampMs) -> TimestampMs {
    let local = i128::from(local.0);
    // No clock is ahead by more than the largest offset: what ended before that never shows it.
    let first = index_at(zone, instant(local - OFFSET_MAX_MS));
    let found = (first..zone.len()).find_map(|index| {
        let (from, offset, to) = segment(zone, index);
        let at = instant(local - offset).max(from);
        to.is_none_or(|to| at < to).then_some(at)
    });
    // The last segment never ends.
    found.unwrap_or(TimestampMs(u64::MAX))
}

fn index_at(zone: &[ZoneOffset], at: TimestampMs) -> usize {
    zone.partition_point(|offset| offset.from <= at).saturating_sub(1)
}

/// (from, offset in ms, to). The first one begins at the epoch, the last one has no end.
fn segment(zone: &[ZoneOffset], index: usize) -> (TimestampMs, i128, Option<TimestampMs>) {
    let entry = zone.get(index);
    let from = entry.filter(|_| index > 0).map_or(TimestampMs(0), |entry| entry.from);
    let offset = entry.map_or(0, |entry| i128::from(entry.seconds) * 1_000);
    (from, offset, zone.get(index + 1).map(|next| next.from))
}

fn instant(ms: i128) -> TimestampMs {
    TimestampMs(u64::try_from(ms.max(0)).unwrap_or(u64::MAX))
}
