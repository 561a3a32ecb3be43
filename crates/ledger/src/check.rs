//! Bounds of what comes in. A message names the field.

use crate::zone::OFFSET_MAX_SECONDS;
use crate::{
    BudgetRule, DOCUMENT_PART_MAX_BYTES, FUTURE_SKEW_MAX_MS, RETENTION_MS, Refusal, ReservationId,
    TTL_MAX_MS, TimestampMs, Window,
};

const NAME_MAX_BYTES: usize = 128;
const SUBJECT_MAX_BYTES: usize = 512;
const COMMENT_MAX_BYTES: usize = 512;
const KEY_ID_MAX_BYTES: usize = 64;
const MODELS_OF_KEY_MAX: usize = 64;
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

/// Who did it; may be empty.
pub(crate) fn by(by: &str) -> Result<(), String> {
    if by.is_empty() { Ok(()) } else { name("by", by) }
}

pub(crate) fn comment(comment: &str) -> Result<(), String> {
    if comment.len() > COMMENT_MAX_BYTES {
        return Err(format!("comment has at most {COMMENT_MAX_BYTES} bytes, not {}", comment.len()));
    }
    without_control("comment", comment)
}

/// The part of a policy document that one command brings.
pub(crate) fn part(document: &str) -> Result<(), String> {
    if document.len() > DOCUMENT_PART_MAX_BYTES {
        return Err(format!(
            "a command brings at most {DOCUMENT_PART_MAX_BYTES} bytes of a policy document, not {}; stage it in parts",
            document.len()
        ));
    }
    Ok(())
}

pub(crate) fn key_id(id: &str) -> Result<(), String> {
    let plain = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if id.is_empty() || id.len() > KEY_ID_MAX_BYTES || !plain {
        return Err(format!(
            "the id of a key has 1 to {KEY_ID_MAX_BYTES} characters a-z and 0-9, unlike {id:?}"
        ));
    }
    Ok(())
}

pub(crate) fn models(models: &[String]) -> Result<(), String> {
    if models.len() > MODELS_OF_KEY_MAX {
        return Err(format!("a key names at most {MODELS_OF_KEY_MAX} models, not {}", models.len()));
    }
    models.iter().try_for_each(|model| name("model", model))
}

pub(crate) fn rule(rule: &BudgetRule) -> Result<(), String> {
    name("budget", &rule.name)?;
    if let Some(tenant) = &rule.tenant {
        name("tenant", tenant)?;
    }
    enforceable(rule).map_err(|error| format!("budget {}: {error}", rule.name))
}

fn enforceable(rule: &BudgetRule) -> Result<(), String> {
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
