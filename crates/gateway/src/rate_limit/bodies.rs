//! What the client reads that was refused: the error of an OpenAI API.

use bytes::Bytes;
use quorate_ledger::{Amount, TimestampMs};
use serde_json::json;

use super::group::Standing;

/// The request's own mistake.
pub(super) fn refused(why: &str) -> Bytes {
    let body = json!({"error": {
        "message": why,
        "type": "invalid_request_error",
        "param": null,
        "code": null,
    }});
    Bytes::from(body.to_string())
}

/// `budget`: which limit was short.
pub(super) fn over(budget: &str, asked: Amount, standing: &Standing, now: TimestampMs) -> Bytes {
    let Standing { limit, left, resets_at, .. } = standing;
    let mut message = format!("limit {budget} is exceeded: {left} of {limit} are left");
    if !asked.is_zero() {
        message.push_str(&format!(", and {asked} were asked for"));
    }
    if let Some(seconds) = resets_at.map(|at| at.since(now).div_ceil(1_000)) {
        message.push_str(&format!("; it resets in {seconds} s"));
    }
    let body = json!({"error": {
        "message": message,
        "type": "insufficient_quota",
        "param": null,
        "code": "insufficient_quota",
    }});
    Bytes::from(body.to_string())
}
