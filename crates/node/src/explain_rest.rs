//! Why a backend gets no requests just now, in words: by the ledger's circuits, as the gateways decide. Not by what only
//! one gateway has seen, and not told yet.

use quorate_ledger::{ProviderCause, ProviderState, ProviderView, TimestampMs};

/// `None`: it is used. `circuits`: all that the ledger has.
pub(crate) fn why(
    circuits: &[ProviderView],
    now: TimestampMs,
    (backend, model): (&str, &str),
) -> Option<String> {
    // Backends of a gateway's own config are known, and drained, by their bare name.
    let bare = backend.rsplit_once('/').map_or(backend, |(_, bare)| bare);
    let of =
        |name: &str, level: &str| circuits.iter().find(|view| view.backend == name && view.model == level);
    let drained = of(backend, "").into_iter().chain(of(bare, "")).find(|view| view.drained_since.is_some());
    if let Some(view) = drained {
        return Some(format!("drained by {}", view.drained_by));
    }
    [of(backend, ""), of(backend, model)].into_iter().flatten().find_map(|view| state(view, now))
}

fn state(view: &ProviderView, now: TimestampMs) -> Option<String> {
    let whole = if view.model.is_empty() { "all of it " } else { "" };
    let cause = match view.cause {
        Some(ProviderCause::Limited) => "limited",
        Some(ProviderCause::Failing) => "failing",
        None => "in trouble",
    };
    let left = view.until.map_or(0, |until| until.since(now)).div_ceil(1_000);
    let what = match view.state {
        ProviderState::Closed => return None,
        ProviderState::HalfOpen if left > 0 => "is being probed".to_owned(),
        ProviderState::Open if left > 0 => format!("rests for {left} s more"),
        ProviderState::Open | ProviderState::HalfOpen => "has rested, the next request probes it".to_owned(),
    };
    Some(format!("{whole}{what} ({cause}: {})", view.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(backend: &str, model: &str, state: ProviderState, until: u64) -> ProviderView {
        ProviderView {
            backend: backend.to_owned(),
            model: model.to_owned(),
            state,
            since: TimestampMs(0),
            until: Some(TimestampMs(until)),
            cause: Some(ProviderCause::Limited),
            reason: "status 429".to_owned(),
            reporter: String::new(),
            holder: String::new(),
            openings: 1,
            first_byte_ms: None,
            first_byte_at: None,
            drained_since: None,
            drained_by: String::new(),
            revision: 1,
        }
    }

    #[test]
    fn what_a_gateway_would_find() {
        let open = |model| view("ns/a", model, ProviderState::Open, 31_500);
        let drained = |name: &str| ProviderView {
            drained_since: Some(TimestampMs(1)),
            drained_by: "ops".to_owned(),
            ..view(name, "", ProviderState::Closed, 0)
        };
        for (circuits, wanted) in [
            (vec![], None),
            (vec![view("ns/a", "m", ProviderState::Closed, 0), open("other")], None),
            (vec![open("m")], Some("rests for 30 s more (limited: status 429)")),
            (vec![open("")], Some("all of it rests for 30 s more (limited: status 429)")),
            (
                vec![view("ns/a", "m", ProviderState::HalfOpen, 9_000)],
                Some("is being probed (limited: status 429)"),
            ),
            (
                vec![view("ns/a", "m", ProviderState::Open, 1_500)],
                Some("has rested, the next request probes it (limited: status 429)"),
            ),
            (vec![open("m"), drained("ns/a")], Some("drained by ops")),
            (vec![drained("a")], Some("drained by ops")),
            (vec![drained("b")], None),
        ] {
            let said = why(&circuits, TimestampMs(1_500), ("ns/a", "m"));
            assert_eq!(said.as_deref(), wanted, "{circuits:?}");
        }
    }
}
