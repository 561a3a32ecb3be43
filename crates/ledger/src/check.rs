//! Bounds of what comes in. A message names the field.

use crate::zone::OFFSET_MAX_SECONDS;
use crate::{
    BudgetRule, FUTURE_SKEW_MAX_MS, RETENTION_MS, Refusal, ReservationId, TTL_MAX_MS, TimestampMs, Window,
};

const NAME_MAX_BYTES: usize = 128;
const SUBJECT_MAX_BYTES: usize = 512;
const ALERTS_OF_BUDGET_MAX: usize = 8;
/// Of one time zone: two changes a year for more than a century.
const ZONE_OFFSETS_MAX: usize = 256;
const SLIDING_MS_MIN: u64 = 1_000;
const SLIDING_MS_MAX: u64 = 366 * 86_400_000;

pub(crate) fn name(field: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(format!("{field} has 1 to {NAME_MAX_BYTES} bytes, not {}", name.len()));
    }
    without_control(field, name)
}

pub(crate) fn subject(subject: &str) -> Result<(), String> {
    if subject.len() > SUBJECT_MAX_BYTES {
        return Err(format!("subject has at most {SUBJECT_MAX_BYTES} bytes, not {}", subject.len()));
    }
    without_control("subject", subject)
}

fn without_control(field: &str, text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        Err(format!("{field} {text:?} has a control character"))
    } else {
        Ok(())
    }
}

pub(crate) fn ttl(ttl_ms: u64) -> Result<(), String> {
    if (1..=TTL_MAX_MS).contains(&ttl_ms) {
        Ok(())
    } else {
        Err(format!("ttl_ms is 1 to {TTL_MAX_MS}, not {ttl_ms}"))
    }
}

/// Is a new id recent enough that a replay of it would still be recognised?
pub(crate) fn id_time(id: ReservationId, now: TimestampMs) -> Result<(), Refusal> {
    let age_ms = now.since(id.timestamp());
    let ahead_ms = id.timestamp().since(now);
    if age_ms > RETENTION_MS {
        return Err(Refusal::StaleId { id, age_ms });
    }
    if ahead_ms > FUTURE_SKEW_MAX_MS {
        return Err(Refusal::FutureId { id, ahead_ms });
    }
    Ok(())
}

/// What a budget asks of the ledger. Its name and tenant are checked apart.
pub(crate) fn rule(rule: &BudgetRule) -> Result<(), String> {
    if let Window::Sliding { ms } = rule.window
        && !(SLIDING_MS_MIN..=SLIDING_MS_MAX).contains(&ms)
    {
        return Err(format!("a sliding window has {SLIDING_MS_MIN} to {SLIDING_MS_MAX} ms, not {ms}"));
    }
    if rule.carry_over.is_some() && matches!(rule.window, Window::Sliding { .. } | Window::Lifetime) {
        return Err(format!("carry_over: a window {} has no next one to carry to", rule.window.name()));
    }
    zone(rule)?;
    if rule.alerts.len() > ALERTS_OF_BUDGET_MAX {
        return Err(format!("alerts are at most {ALERTS_OF_BUDGET_MAX}, not {}", rule.alerts.len()));
    }
    let in_range = rule.alerts.iter().all(|share| (1..=100).contains(share));
    if !in_range || !rule.alerts.is_sorted_by(|one, next| one < next) {
        return Err(format!("alerts {:?}: wanted are shares of 1 to 100 percent, ascending", rule.alerts));
    }
    Ok(())
}

fn zone(rule: &BudgetRule) -> Result<(), String> {
    let zone = &rule.zone;
    if zone.len() > ZONE_OFFSETS_MAX {
        return Err(format!("a zone has at most {ZONE_OFFSETS_MAX} offsets, not {}", zone.len()));
    }
    if !zone.is_sorted_by(|one, next| one.from < next.from) {
        return Err("the offsets of a zone ascend in time".to_owned());
    }
    match zone.iter().find(|offset| offset.seconds.unsigned_abs() > OFFSET_MAX_SECONDS.unsigned_abs()) {
        Some(offset) => Err(format!(
            "a zone is at most {OFFSET_MAX_SECONDS} seconds away from UTC, not {}",
            offset.seconds
        )),
        None => Ok(()),
    }
}
