//! An alert as a webhook's receiver gets it, and its id.

use quorate_ledger::Alert;
use serde_json::json;

/// The same for every delivery of this alert, and no other alert's, also after a cluster was made anew.
pub(crate) fn id(cluster: &str, alert: &Alert) -> String {
    let cluster: String = cluster.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    format!("{cluster}-{}-{}", alert.seq, alert.at.0)
}

/// Amounts are in millionths of the unit.
pub(crate) fn json(cluster: &str, alert: &Alert) -> String {
    json!({
        "type": "budget.share_reached",
        "id": id(cluster, alert),
        "cluster": cluster,
        "sequence": alert.seq,
        "at_ms": alert.at.0,
        "tenant": alert.tenant,
        "budget": alert.budget,
        "subject": alert.subject,
        "unit": alert.unit.name(),
        "share_percent": alert.share,
        "spent_micros": alert.spent.micros(),
        "limit_micros": alert.limit.micros(),
        "window_start_ms": alert.window.start.0,
        "window_end_ms": alert.window.end.map(|end| end.0),
    })
    .to_string()
}
