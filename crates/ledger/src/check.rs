//! Bounds of what comes in. A message names the field.

use crate::{FUTURE_SKEW_MAX_MS, RETENTION_MS, Refusal, ReservationId, TTL_MAX_MS, TimestampMs};

const NAME_MAX_BYTES: usize = 128;
const SUBJECT_MAX_BYTES: usize = 512;

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
