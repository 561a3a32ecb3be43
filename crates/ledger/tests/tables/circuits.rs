//! The words of the tables about circuits.

use quorate_ledger::{
    Command, ProbeEnd, ProbeRefusal, ProbeVerdict, ProviderReport, ProviderSignal, ProviderState,
    ProviderView, TimestampMs,
};

use crate::words::{option, show_time, span_ms};

/// `openai/gpt-4o`; `openai`: all of it.
fn names(circuit: &str) -> (String, String) {
    let (backend, model) = circuit.split_once('/').unwrap_or((circuit, ""));
    (backend.into(), model.into())
}

pub fn report(circuit: &str, reporter: &str, words: &[&str]) -> ProviderReport {
    let (backend, model) = names(circuit);
    let number = |name: &str| option(words, name).map_or(0, |text| text.parse().unwrap());
    let first_byte = option(words, "ms=").unwrap_or_else(|| "0/0".into());
    let (sum, count) = first_byte.split_once('/').expect("sum/count");
    let limited = option(words, "limited=");
    let signal = match limited {
        Some(span) => Some(ProviderSignal::Limited { retry_after_ms: span_ms(&span) }),
        None => (number("fail=") > 0).then_some(ProviderSignal::Failing),
    };
    let tail = option(words, "tail=").map_or_else(|| number("fail="), |text| text.parse().unwrap());
    ProviderReport {
        backend,
        model,
        reporter: reporter.into(),
        successes: number("ok="),
        failures: number("fail="),
        consecutive_failures: tail,
        first_byte_ms_sum: sum.parse().unwrap(),
        first_byte_count: count.parse().unwrap(),
        signal,
        probe: option(words, "probe=").map(|text| end(&text)),
        reason: option(words, "why=").unwrap_or_default(),
    }
}

/// `7:passed`
fn end(text: &str) -> ProbeEnd {
    let (probe, verdict) = text.split_once(':').expect("number:verdict");
    let verdict = match verdict {
        "passed" => ProbeVerdict::Passed,
        "failed" => ProbeVerdict::Failed,
        "given-up" => ProbeVerdict::GivenUp,
        _ => panic!("{text}"),
    };
    ProbeEnd { probe: probe.parse().unwrap(), verdict }
}

pub fn claim(circuit: &str, holder: &str, probe: &str, lease: &str) -> Command {
    let (backend, model) = names(circuit);
    let lease_ms = span_ms(lease.trim_start_matches("lease="));
    Command::ClaimProbe { backend, model, holder: holder.into(), probe: probe.parse().unwrap(), lease_ms }
}

pub fn show_ms(at: TimestampMs) -> String {
    format!("{}.{:03}", show_time(at), at.0 % 1_000)
}

pub fn show_refusal(refusal: &ProbeRefusal) -> String {
    match refusal {
        ProbeRefusal::NotNeeded => "closed".into(),
        ProbeRefusal::Resting { until } => format!("rests until {}", show_ms(*until)),
        ProbeRefusal::Held { holder, until } => format!("{holder} until {}", show_ms(*until)),
        ProbeRefusal::Drained => "drained".into(),
    }
}

/// `openai/gpt-4o open since … until … 2nd Limited by g1 (429) 120ms`
pub fn show(view: &ProviderView) -> String {
    let state = match view.state {
        ProviderState::Closed => "closed",
        ProviderState::Open => "open",
        ProviderState::HalfOpen => "half-open",
    };
    let mut text = format!("{}/{} {state} since {}", view.backend, view.model, show_ms(view.since));
    if let Some(until) = view.until {
        text += &format!(" until {}", show_ms(until));
    }
    if !view.holder.is_empty() {
        text += &format!(" probed by {}", view.holder);
    }
    if let Some(cause) = view.cause {
        text += &format!(" {cause:?} by {} ({}) opening {}", view.reporter, view.reason, view.openings);
    }
    if let Some(ms) = view.first_byte_ms {
        text += &format!(" {ms}ms");
    }
    if let Some(at) = view.drained_since {
        text += &format!(" drained {} by {}", show_ms(at), view.drained_by);
    }
    text
}
