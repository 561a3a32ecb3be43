//! One circuit: what the fleet believes of one model at one backend, or of a whole backend.
//!
//! Closed: used. Open: left alone until a moment. Then whoever has its claim granted is the one probe (half-open), and the
//! probe's verdict closes the circuit or opens it again for longer. Pure arithmetic: reports come in through `provider`.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::{
    ProbeRefusal, ProbeVerdict, ProviderCause, ProviderReport, ProviderSignal, ProviderState, ProviderView,
    TimestampMs,
};

/// So many failures in a row, over all gateways, open a circuit.
pub(crate) const FAILURES_IN_A_ROW: u32 = 3;
/// Or this share of the calls in the window, if there were enough of them.
const FAILING_PERCENT: u64 = 50;
const CALLS_MIN: u64 = 20;
/// The window: six slices of five seconds.
const SLICE_MS: u64 = 5_000;
pub(crate) const SLICES_MAX: usize = 6;
/// The back-off: a second, doubled with each opening up to a minute.
const BACKOFF_MIN_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;
/// A circuit that stayed closed for so long begins anew.
const CALM_MS: u64 = 60_000;
/// How long a circuit is kept whose rest is over, and that nobody claims.
const TROUBLE_KEPT_MS: u64 = 600_000;
/// No backend is left alone for longer on its own word.
pub(crate) const RETRY_AFTER_MAX_MS: u64 = 86_400_000;
/// A longer reason is cut.
pub(crate) const REASON_MAX_BYTES: usize = 512;
/// The average of the first byte is kept in sixteenths of a millisecond, and moves by an eighth with each call.
const FIRST_BYTE_PARTS: u64 = 16;
const FIRST_BYTE_SHARE: u64 = 8;
/// So many calls of one batch move it; more would make it the batch's own average anyway.
const FIRST_BYTE_STEPS_MAX: u32 = 32;
const FIRST_BYTE_MAX_MS: u64 = 3_600_000;
/// How exactly its date is kept: every change of it is told to all watchers.
const FIRST_BYTE_DATE_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum State {
    Closed,
    Open {
        until: TimestampMs,
    },
    HalfOpen {
        holder: String,
        probe: u64,
        /// The lease.
        until: TimestampMs,
        /// Until when the circuit rested before.
        rested: TimestampMs,
    },
}

/// What was counted in five seconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Slice {
    number: u64,
    successes: u64,
    failures: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Drain {
    at: TimestampMs,
    by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Circuit {
    pub state: State,
    pub since: TimestampMs,
    /// Openings in the present trouble: what the back-off grows with.
    pub openings: u32,
    cause: Option<ProviderCause>,
    pub reason: String,
    reporter: String,
    consecutive: u32,
    /// Oldest first; while closed.
    pub slices: Vec<Slice>,
    /// The average, and when it was last measured.
    first_byte: Option<(u64, TimestampMs)>,
    /// By the operator; of whole backends only.
    pub drained: Option<Drain>,
    pub last_report: TimestampMs,
    /// The ledger's count of changes when this one last changed.
    pub revision: u64,
}

impl Circuit {
    pub fn new(now: TimestampMs) -> Self {
        Self {
            state: State::Closed,
            since: now,
            openings: 0,
            cause: None,
            reason: String::new(),
            reporter: String::new(),
            consecutive: 0,
            slices: Vec::new(),
            first_byte: None,
            drained: None,
            last_report: now,
            revision: 0,
        }
    }

    /// Takes a report in: its probe's verdict first, then what it asks for, then what its counts say.
    pub fn take(&mut self, now: TimestampMs, report: &ProviderReport) {
        self.last_report = now;
        self.measure(now, report);
        if self.state == State::Closed {
            self.count(now, report);
        }
        let verdict = report.probe.and_then(|end| self.is_probe(&report.reporter, end.probe, end.verdict));
        let failed_probe = verdict == Some(ProbeVerdict::Failed);
        match verdict {
            Some(ProbeVerdict::Passed) => self.close(now),
            Some(ProbeVerdict::GivenUp) => self.give_up(now),
            Some(ProbeVerdict::Failed) | None => {}
        }
        match &report.signal {
            Some(ProviderSignal::Limited { retry_after_ms }) => {
                let said = (*retry_after_ms > 0).then_some((*retry_after_ms).min(RETRY_AFTER_MAX_MS));
                self.limit(now, said, failed_probe, report);
            }
            _ if failed_probe => self.open(now, None, ProviderCause::Failing, report),
            _ if self.state == State::Closed && report.failures > 0 && self.is_failing() => {
                self.open(now, None, ProviderCause::Failing, report);
            }
            _ => {}
        }
    }

    /// The verdict, if it is that of the probe that is out.
    fn is_probe(&self, reporter: &str, number: u64, verdict: ProbeVerdict) -> Option<ProbeVerdict> {
        match &self.state {
            State::HalfOpen { holder, probe, .. } if holder == reporter && *probe == number => Some(verdict),
            _ => None,
        }
    }

    /// Claims the probe. The same claim again gets the same answer.
    pub fn claim(
        &mut self,
        now: TimestampMs,
        holder: &str,
        number: u64,
        lease_ms: u64,
    ) -> Result<TimestampMs, ProbeRefusal> {
        let rested = match &self.state {
            State::Closed => return Err(ProbeRefusal::NotNeeded),
            State::Open { until } if *until > now => return Err(ProbeRefusal::Resting { until: *until }),
            State::Open { until } => *until,
            State::HalfOpen { holder: other, probe, until, .. } if other == holder && *probe == number => {
                return Ok(*until);
            }
            State::HalfOpen { holder, until, .. } if *until > now => {
                return Err(ProbeRefusal::Held { holder: holder.clone(), until: *until });
            }
            State::HalfOpen { rested, .. } => *rested,
        };
        let until = now.saturating_add(lease_ms);
        self.state = State::HalfOpen { holder: holder.to_owned(), probe: number, until, rested };
        self.since = now;
        Ok(until)
    }

    /// True if that changed anything.
    pub fn drain(&mut self, now: TimestampMs, drained: bool, by: &str) -> bool {
        let changed = self.drained.is_some() != drained;
        if changed {
            self.drained = drained.then(|| Drain { at: now, by: by.to_owned() });
        }
        changed
    }

    /// Nobody would miss it: it works, or it was in trouble and nobody has asked for it since.
    pub fn is_idle(&self, now: TimestampMs, idle_ms: u64) -> bool {
        let over = match &self.state {
            State::Closed => true,
            State::Open { until } | State::HalfOpen { until, .. } => now.since(*until) >= TROUBLE_KEPT_MS,
        };
        over && self.drained.is_none() && now.since(self.last_report) >= idle_ms
    }

    pub fn view(&self, backend: &str, model: &str) -> ProviderView {
        let (state, until, holder) = match &self.state {
            State::Closed => (ProviderState::Closed, None, ""),
            State::Open { until } => (ProviderState::Open, Some(*until), ""),
            State::HalfOpen { holder, until, .. } => (ProviderState::HalfOpen, Some(*until), holder.as_str()),
        };
        ProviderView {
            backend: backend.to_owned(),
            model: model.to_owned(),
            state,
            since: self.since,
            until,
            cause: self.cause,
            reason: self.reason.clone(),
            reporter: self.reporter.clone(),
            holder: holder.to_owned(),
            openings: self.openings,
            first_byte_ms: self
                .first_byte
                .map(|(parts, _)| (parts + FIRST_BYTE_PARTS / 2) / FIRST_BYTE_PARTS),
            first_byte_at: self.first_byte.map(|(_, at)| at),
            drained_since: self.drained.as_ref().map(|drain| drain.at),
            drained_by: self.drained.as_ref().map_or_else(String::new, |drain| drain.by.clone()),
            revision: self.revision,
        }
    }

    fn count(&mut self, now: TimestampMs, report: &ProviderReport) {
        let (successes, failures) = (report.successes, report.failures);
        self.consecutive = match successes {
            0 => self.consecutive.saturating_add(failures),
            _ => report.consecutive_failures,
        };
        if successes == 0 && failures == 0 {
            return;
        }
        let number = now.0 / SLICE_MS;
        let oldest = (number + 1).saturating_sub(SLICES_MAX as u64);
        self.slices.retain(|slice| slice.number >= oldest);
        if self.slices.last().is_none_or(|slice| slice.number != number) {
            self.slices.push(Slice { number, successes: 0, failures: 0 });
        }
        if let Some(slice) = self.slices.last_mut() {
            slice.successes = slice.successes.saturating_add(successes.into());
            slice.failures = slice.failures.saturating_add(failures.into());
        }
    }

    fn is_failing(&self) -> bool {
        let add = |(all, failed): (u64, u64), slice: &Slice| {
            let calls = slice.successes.saturating_add(slice.failures);
            (all.saturating_add(calls), failed.saturating_add(slice.failures))
        };
        let (all, failed) = self.slices.iter().fold((0, 0), add);
        let share = all >= CALLS_MIN && failed.saturating_mul(100) >= all.saturating_mul(FAILING_PERCENT);
        share || self.consecutive >= FAILURES_IN_A_ROW
    }

    /// An average that forgets: integers only, so that every replica has the same.
    fn measure(&mut self, now: TimestampMs, report: &ProviderReport) {
        let count = u64::from(report.first_byte_count);
        let Some(mean) = report.first_byte_ms_sum.checked_div(count) else { return };
        let sample = mean.min(FIRST_BYTE_MAX_MS) * FIRST_BYTE_PARTS;
        let mut average = self.first_byte.map_or(sample, |(average, _)| average);
        for _ in 0..report.first_byte_count.min(FIRST_BYTE_STEPS_MAX) {
            average = (average * (FIRST_BYTE_SHARE - 1) + sample) / FIRST_BYTE_SHARE;
        }
        self.first_byte = Some((average, TimestampMs(now.0 - now.0 % FIRST_BYTE_DATE_MS)));
    }

    fn limit(&mut self, now: TimestampMs, said: Option<u64>, failed_probe: bool, report: &ProviderReport) {
        match (&self.state, said) {
            (State::Closed, _) => self.open(now, said, ProviderCause::Limited, report),
            _ if failed_probe => self.open(now, said, ProviderCause::Limited, report),
            // Late answers to what was sent before: only a longer rest that the backend asks for counts.
            (_, None) => {}
            (State::Open { until }, Some(ms)) => {
                let asked = now.saturating_add(ms);
                if asked > *until {
                    self.state = State::Open { until: asked };
                    self.say(ProviderCause::Limited, report);
                }
            }
            (State::HalfOpen { .. }, Some(ms)) => {
                self.state = State::Open { until: now.saturating_add(ms) };
                self.since = now;
                self.say(ProviderCause::Limited, report);
            }
        }
    }

    /// `said`: how long the backend asked to be left alone. A probe that fails never shortens the back-off.
    fn open(&mut self, now: TimestampMs, said: Option<u64>, cause: ProviderCause, report: &ProviderReport) {
        let was_closed = self.state == State::Closed;
        if was_closed && now.since(self.since) >= CALM_MS {
            self.openings = 0;
        }
        // A backend that says how long is not in the kind of trouble that the back-off is for.
        self.openings = match (was_closed, said) {
            (true, Some(_)) => self.openings.max(1),
            _ => self.openings.saturating_add(1),
        };
        let backoff = backoff(&report.backend, &report.model, self.openings);
        let rest = match (was_closed, said) {
            (true, Some(ms)) => ms,
            (_, said) => said.unwrap_or(0).max(backoff),
        };
        self.state = State::Open { until: now.saturating_add(rest) };
        self.since = now;
        self.forget_calls();
        self.say(cause, report);
    }

    fn close(&mut self, now: TimestampMs) {
        self.state = State::Closed;
        self.since = now;
        self.cause = None;
        self.reason.clear();
        self.forget_calls();
    }

    /// Ready for the next claim at once.
    fn give_up(&mut self, now: TimestampMs) {
        if let State::HalfOpen { rested, .. } = self.state {
            self.state = State::Open { until: rested };
            self.since = now;
        }
    }

    fn forget_calls(&mut self) {
        self.consecutive = 0;
        self.slices = Vec::new();
    }

    fn say(&mut self, cause: ProviderCause, report: &ProviderReport) {
        self.cause = Some(cause);
        self.reason = cut(&report.reason);
        self.reporter.clone_from(&report.reporter);
    }
}

/// With up to a quarter less by a hash, so that circuits that opened together are not probed together.
fn backoff(backend: &str, model: &str, openings: u32) -> u64 {
    let doubled = BACKOFF_MIN_MS << openings.saturating_sub(1).min(16);
    let most = doubled.min(BACKOFF_MAX_MS);
    let print = Fingerprint::of_opening(backend, model, openings);
    let share = u64::try_from(print % u128::from(most / 4 + 1)).unwrap_or(0);
    most - share
}

fn cut(reason: &str) -> String {
    let plain = reason.chars().map(|one| if one.is_control() { ' ' } else { one });
    let mut cut = String::new();
    for one in plain {
        if cut.len() + one.len_utf8() > REASON_MAX_BYTES {
            break;
        }
        cut.push(one);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_has_the_date_of_its_last_measurement() {
        let mut circuit = Circuit::new(TimestampMs(0));
        let mut report = ProviderReport { successes: 1, ..ProviderReport::default() };
        circuit.take(TimestampMs(12_345), &report);
        assert_eq!(circuit.view("b", "m").first_byte_at, None, "nothing was measured");
        (report.first_byte_ms_sum, report.first_byte_count) = (30, 1);
        for (at, date) in [(12_345, 10_000), (19_999, 10_000), (20_000, 20_000)] {
            circuit.take(TimestampMs(at), &report);
            let view = circuit.view("b", "m");
            assert_eq!((view.first_byte_ms, view.first_byte_at), (Some(30), Some(TimestampMs(date))));
        }
        circuit.take(TimestampMs(90_000), &ProviderReport { successes: 1, ..ProviderReport::default() });
        assert_eq!(circuit.view("b", "m").first_byte_at, Some(TimestampMs(20_000)));
    }
}
