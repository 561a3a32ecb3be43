//! What this gateway knows of a circuit by itself: calls that it has not reported yet, how long its own last signal keeps
//! it away, and whether one of its requests is claiming a probe or is one. Pure: the moment comes in.

use std::collections::HashMap;
use std::time::Duration;

use quorate_ledger::{
    CIRCUITS_MAX, ProbeEnd, ProbeVerdict, ProviderCause, ProviderReport, ProviderSignal, TimestampMs,
};
use tokio::time::Instant;

use super::reporter::REPORT_WITHIN;

/// Successes wait so long for others; at most one report in this time.
const SUCCESSES_APART: Duration = Duration::from_secs(1);
/// Failures that are no signal.
const FAILURES_APART: Duration = Duration::from_millis(250);
/// Between tries to deliver a report.
const TRIES_APART: Duration = Duration::from_secs(1);
/// As in the ledger: so many in a row open a circuit.
const FAILURES_IN_A_ROW: u32 = 3;
/// Until the ledger says how long: its shortest back-off.
const REST_DEFAULT_MS: u64 = 1_000;
/// The answer of the ledger is known, and the watch has not told of it: it is broken or slow.
const UNSEEN_MAX: Duration = Duration::from_secs(5);

/// By backend, then by model.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    circuits: HashMap<String, HashMap<String, LocalCircuit>>,
    count: usize,
}

#[derive(Debug, Default)]
pub(crate) struct LocalCircuit {
    pending: ProviderReport,
    /// Since when something is pending.
    since: Option<Instant>,
    /// What is pending cannot wait.
    urgent: bool,
    /// The reporter was told that something is pending, and whether it is a failure.
    reckoned: Option<bool>,
    /// Own failures since the last success, reported or not.
    in_a_row: u32,
    /// A report is on its way.
    sending: bool,
    sent_at: Option<Instant>,
    not_before: Option<Instant>,
    rest: Option<Rest>,
    /// A request of this gateway claims the probe, or is it, or its verdict is on its way.
    claim: Option<u64>,
    no_claim_before: Option<Instant>,
}

/// Kept away by an own signal.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    pub(crate) cause: ProviderCause,
    pub(crate) reason: String,
    pub(crate) until: TimestampMs,
    hold: Hold,
}

#[derive(Debug, Clone, Copy)]
enum Hold {
    /// The ledger has not answered. By then it has, or the report was lost.
    Undecided(Instant),
    /// It has: until a view of this revision is here.
    Answered { revision: u64, give_up: Instant },
    /// The report was lost: what was seen here counts alone.
    Alone,
}

impl Locals {
    pub(crate) fn get(&self, backend: &str, model: &str) -> Option<&LocalCircuit> {
        self.of(backend)?.get(model)
    }

    /// By model.
    pub(crate) fn of(&self, backend: &str) -> Option<&HashMap<String, LocalCircuit>> {
        self.circuits.get(backend)
    }

    pub(crate) fn get_mut(&mut self, backend: &str, model: &str) -> Option<&mut LocalCircuit> {
        self.circuits.get_mut(backend)?.get_mut(model)
    }

    /// `None`: there are as many as the ledger keeps, and all are in use.
    pub(crate) fn get_or_make(&mut self, backend: &str, model: &str) -> Option<&mut LocalCircuit> {
        if self.get(backend, model).is_none() {
            if self.count >= CIRCUITS_MAX {
                self.drop_quiet();
            }
            if self.count >= CIRCUITS_MAX {
                return None;
            }
            self.circuits.entry(backend.to_owned()).or_default().entry(model.to_owned()).or_default();
            self.count += 1;
        }
        self.get_mut(backend, model)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &str, &mut LocalCircuit)> {
        self.circuits.iter_mut().flat_map(|(backend, models)| {
            models.iter_mut().map(move |(model, local)| (backend.as_str(), model.as_str(), local))
        })
    }

    fn drop_quiet(&mut self) {
        for models in self.circuits.values_mut() {
            models.retain(|_, local| !local.is_quiet());
        }
        self.circuits.retain(|_, models| !models.is_empty());
        self.count = self.circuits.values().map(HashMap::len).sum();
    }
}

impl LocalCircuit {
    pub(crate) fn success(&mut self, first_byte_ms: Option<u64>) {
        self.in_a_row = 0;
        self.pending.successes = self.pending.successes.saturating_add(1);
        self.pending.consecutive_failures = 0;
        if let Some(ms) = first_byte_ms {
            self.measured(ms);
        }
        self.is_pending();
    }

    pub(crate) fn measured(&mut self, first_byte_ms: u64) {
        self.pending.first_byte_ms_sum = self.pending.first_byte_ms_sum.saturating_add(first_byte_ms);
        self.pending.first_byte_count = self.pending.first_byte_count.saturating_add(1);
        self.is_pending();
    }

    pub(crate) fn failure(&mut self, reason: &str, now: TimestampMs) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.pending.failures = self.pending.failures.saturating_add(1);
        self.pending.consecutive_failures = self.pending.consecutive_failures.saturating_add(1);
        self.pending.reason = reason.to_owned();
        if self.pending.signal.is_none() {
            self.pending.signal = Some(ProviderSignal::Failing);
        }
        if self.in_a_row == FAILURES_IN_A_ROW {
            self.urgent = true;
            self.rest(ProviderCause::Failing, reason, now.saturating_add(REST_DEFAULT_MS));
        }
        self.is_pending();
    }

    pub(crate) fn limited(&mut self, reason: &str, rest_ms: u64, now: TimestampMs) {
        self.pending.signal = Some(ProviderSignal::Limited { retry_after_ms: rest_ms });
        self.pending.reason = reason.to_owned();
        self.urgent = true;
        let rest_ms = if rest_ms == 0 { REST_DEFAULT_MS } else { rest_ms };
        self.rest(ProviderCause::Limited, reason, now.saturating_add(rest_ms));
        self.is_pending();
    }

    /// The claim ends when the ledger has heard of it.
    pub(crate) fn end_probe(&mut self, probe: u64, verdict: ProbeVerdict) {
        self.pending.probe = Some(ProbeEnd { probe, verdict });
        self.urgent = true;
        self.is_pending();
    }

    /// False if another request of this gateway was faster.
    pub(crate) fn begin_claim(&mut self, probe: u64) -> bool {
        let free = !self.is_claimed();
        if free {
            self.claim = Some(probe);
        }
        free
    }

    /// Without anything to report. No other claim for `pause`.
    pub(crate) fn drop_claim(&mut self, pause: Duration) {
        self.claim = None;
        self.no_claim_before = Some(Instant::now() + pause);
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.claim.is_some() || self.no_claim_before.is_some_and(|at| at > Instant::now())
    }

    /// What keeps this gateway away, given what the watch has told so far.
    pub(crate) fn rests(&self, revision: u64, now: impl Fn() -> TimestampMs) -> Option<&Rest> {
        self.rest.as_ref().filter(|rest| match rest.hold {
            Hold::Undecided(until) => Instant::now() < until || now() < rest.until,
            Hold::Answered { revision: wanted, give_up } => revision < wanted && Instant::now() < give_up,
            Hold::Alone => now() < rest.until,
        })
    }

    /// When to report; `None`: nothing is pending, or on its way already.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let since = self.since.filter(|_| !self.sending)?;
        let after_last = |pause: Duration| self.sent_at.map_or(since, |sent| since.max(sent + pause));
        let due = match (self.urgent, self.pending.failures > 0) {
            (true, _) => now,
            (false, true) => after_last(FAILURES_APART),
            (false, false) => since + SUCCESSES_APART,
        };
        Some(due.max(self.not_before.unwrap_or(due)))
    }

    /// Whether what was just added may be due earlier than anybody has reckoned with. Asked once each time.
    pub(crate) fn wakes(&mut self) -> bool {
        let failing = self.pending.failures > 0 || self.urgent;
        let known = self.reckoned.replace(failing);
        !self.sending && (failing || known != Some(failing))
    }

    pub(crate) fn take(&mut self, now: Instant) -> ProviderReport {
        (self.sending, self.urgent, self.since, self.sent_at) = (true, false, None, Some(now));
        self.reckoned = None;
        std::mem::take(&mut self.pending)
    }

    /// The ledger has taken a report in.
    pub(crate) fn delivered(&mut self, report: &ProviderReport, revision: u64) {
        (self.sending, self.not_before) = (false, None);
        if report.probe.is_some() {
            self.claim = None;
        }
        // A newer signal waits for an answer of its own.
        let newer = self.pending.signal.is_some();
        if let (Some(rest), Some(_), false) = (&mut self.rest, &report.signal, newer) {
            rest.hold = Hold::Answered { revision, give_up: Instant::now() + UNSEEN_MAX };
        }
    }

    /// The report was lost, or nobody knows: it goes along with the next one. Limits are told again only as far as they
    /// still last.
    pub(crate) fn lost(&mut self, report: ProviderReport, now: TimestampMs) {
        let newer = std::mem::take(&mut self.pending);
        let consecutive = match newer.successes {
            0 => report.consecutive_failures.saturating_add(newer.failures),
            _ => newer.consecutive_failures,
        };
        let left = self.rest.as_ref().map_or(0, |rest| rest.until.since(now));
        let still = match report.signal {
            Some(ProviderSignal::Limited { .. }) if left == 0 => None,
            Some(ProviderSignal::Limited { .. }) => Some(ProviderSignal::Limited { retry_after_ms: left }),
            other => other,
        };
        self.pending = ProviderReport {
            successes: report.successes.saturating_add(newer.successes),
            failures: report.failures.saturating_add(newer.failures),
            consecutive_failures: consecutive,
            first_byte_ms_sum: report.first_byte_ms_sum.saturating_add(newer.first_byte_ms_sum),
            first_byte_count: report.first_byte_count.saturating_add(newer.first_byte_count),
            signal: match newer.signal {
                Some(ProviderSignal::Limited { .. }) => newer.signal,
                other => still.or(other),
            },
            probe: newer.probe.or(report.probe),
            reason: if newer.reason.is_empty() { report.reason } else { newer.reason },
            ..report
        };
        (self.sending, self.urgent) = (false, true);
        self.since = self.since.or_else(|| Some(Instant::now()));
        self.not_before = Some(Instant::now() + TRIES_APART);
        if let Some(rest) = &mut self.rest {
            rest.hold = Hold::Alone;
        }
    }

    /// The ledger does not want it: nothing will come of sending it again.
    pub(crate) fn refused(&mut self, report: &ProviderReport) {
        (self.sending, self.not_before) = (false, None);
        if report.probe.is_some() {
            self.claim = None;
        }
        if let Some(rest) = &mut self.rest {
            rest.hold = Hold::Alone;
        }
    }

    fn rest(&mut self, cause: ProviderCause, reason: &str, until: TimestampMs) {
        let until = self.rest.as_ref().map_or(until, |rest| rest.until.max(until));
        let hold = Hold::Undecided(Instant::now() + REPORT_WITHIN);
        self.rest = Some(Rest { cause, reason: reason.to_owned(), until, hold });
    }

    fn is_pending(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn is_quiet(&self) -> bool {
        let undecided = |rest: &Rest| matches!(rest.hold, Hold::Undecided(until) if Instant::now() < until);
        let held = self.rest.as_ref().is_some_and(undecided);
        self.since.is_none() && !self.sending && self.claim.is_none() && !held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs(1_790_000_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn successes_wait_for_others_failures_less_and_signals_not_at_all() {
        let (mut local, began) = (LocalCircuit::default(), Instant::now());
        assert_eq!(local.due(began), None);
        local.success(Some(20));
        assert_eq!(local.due(began), Some(began + SUCCESSES_APART));
        local.failure("timeout", NOW);
        assert_eq!(local.due(began), Some(began), "the first failure is told at once");
        let report = local.take(began);
        assert_eq!((report.successes, report.failures, report.consecutive_failures), (1, 1, 1));
        assert_eq!((report.first_byte_ms_sum, report.first_byte_count), (20, 1));
        local.failure("timeout", NOW);
        assert_eq!(local.due(began), None, "one at a time");
        local.delivered(&report, 1);
        assert_eq!(local.due(began), Some(began + FAILURES_APART));
        local.failure("timeout", NOW);
        assert_eq!(local.due(began), Some(began), "three in a row, told or not, are a signal");
        assert!(local.rests(0, || NOW).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_signal_holds_until_the_watch_has_seen_what_the_ledger_said() {
        let mut local = LocalCircuit::default();
        local.limited("status 429", 50, NOW);
        let report = local.take(Instant::now());
        let later = || NOW.saturating_add(60_000);
        assert!(local.rests(7, later).is_some(), "its time is over, but nobody has answered");
        local.delivered(&report, 8);
        assert!(local.rests(7, later).is_some(), "answered, and not seen yet");
        assert!(local.rests(8, later).is_none(), "from here on the watch says what is");
        local.limited("status 429", 50, NOW);
        let report = local.take(Instant::now());
        local.lost(report, NOW);
        assert!(local.rests(8, || NOW).is_some() && local.rests(8, later).is_none(), "its own word counts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_goes_along_with_the_next_report() {
        let (mut local, began) = (LocalCircuit::default(), Instant::now());
        local.success(None);
        local.limited("status 429", 5_000, NOW);
        assert!(local.begin_claim(7));
        local.end_probe(7, ProbeVerdict::Failed);
        let report = local.take(began);
        local.failure("died", NOW);
        local.lost(report, NOW.saturating_add(2_000));
        assert_eq!(local.due(began), Some(began + TRIES_APART));
        tokio::time::advance(ms(1_000)).await;
        let again = local.take(Instant::now());
        assert_eq!((again.successes, again.failures, again.consecutive_failures), (1, 1, 1));
        assert_eq!(again.probe, Some(ProbeEnd { probe: 7, verdict: ProbeVerdict::Failed }));
        let left = ProviderSignal::Limited { retry_after_ms: 3_000 };
        assert_eq!(again.signal, Some(left), "what is left of it, whatever failed since");
        assert!(local.is_claimed() && !local.begin_claim(8), "its verdict has not arrived");
        local.delivered(&again, 1);
        assert!(!local.is_claimed() && local.begin_claim(8));
    }

    #[tokio::test(start_paused = true)]
    async fn no_claim_follows_a_refused_one_at_once() {
        let mut local = LocalCircuit::default();
        assert!(local.begin_claim(1));
        local.drop_claim(ms(100));
        assert!(!local.begin_claim(2));
        tokio::time::advance(ms(101)).await;
        assert!(local.begin_claim(2));
    }

    #[test]
    fn there_are_no_more_than_the_ledger_keeps() {
        let mut locals = Locals::default();
        for number in 0..CIRCUITS_MAX {
            locals.get_or_make("b", &format!("m{number}")).unwrap().limited("429", 1, NOW);
        }
        assert!(locals.get_or_make("b", "new").is_none(), "all of them have something to report");
        let (report, local) = match locals.get_mut("b", "m7") {
            Some(local) => (local.take(Instant::now()), local),
            None => panic!("it was made"),
        };
        local.delivered(&report, 1);
        assert!(locals.get_or_make("b", "new").is_some() && locals.get("b", "m7").is_none());
    }
}
