//! Time zones as tables: the ledger reads no time zone database, it gets the offsets of the next twenty years.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quorate_ledger::{TimestampMs, ZoneOffset};

/// 2025-01-01 and 2047-01-01, UTC. Fixed, so that the same manifest always gives the same rule; later dates keep the
/// last offset.
const FROM_SECOND: i64 = 1_735_689_600;
const TO_SECOND: i64 = 2_429_913_600;

/// Tables by name: a set has many budgets and few zones.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    known: BTreeMap<String, Vec<ZoneOffset>>,
}

impl Zones {
    /// Empty for UTC. `None`: no such zone.
    pub fn offsets(&mut self, name: &str) -> Option<Vec<ZoneOffset>> {
        if let Some(known) = self.known.get(name) {
            return Some(known.clone());
        }
        let offsets = table(&jiff::tz::db().get(name).ok()?)?;
        self.known.insert(name.to_owned(), offsets.clone());
        Some(offsets)
    }
}

fn table(zone: &TimeZone) -> Option<Vec<ZoneOffset>> {
    let from = Timestamp::from_second(FROM_SECOND).ok()?;
    let entry = |at: Timestamp, seconds: i32| {
        let from = TimestampMs(u64::try_from(at.as_millisecond()).ok()?);
        Some(ZoneOffset { from, seconds })
    };
    let mut offsets = vec![entry(from, zone.to_offset(from).seconds())?];
    for transition in zone.following(from) {
        if transition.timestamp().as_second() >= TO_SECOND {
            break;
        }
        let seconds = transition.offset().seconds();
        // A zone may change its name or its summer time without changing its clock.
        if offsets.last().is_none_or(|last| last.seconds != seconds) {
            offsets.push(entry(transition.timestamp(), seconds)?);
        }
    }
    let is_utc = offsets.len() == 1 && offsets[0].seconds == 0;
    Some(if is_utc { Vec::new() } else { offsets })
}
