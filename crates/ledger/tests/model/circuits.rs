//! Circuits as lists of facts, judged from scratch after every command: slow, and written another way than the ledger's.
//! How long a back-off is within its bounds is the ledger's own; everything else is foretold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_ledger::{
    Command, Ledger, Outcome, ProbeEnd, ProbeRefusal, ProbeVerdict, ProviderReport, ProviderSignal,
    ProviderState, ProviderView, TimestampMs,
};

/// Few of each, so that they meet.
#[derive(Debug, Clone)]
pub enum CircuitOperation {
    Report {
        circuit: (u8, u8),
        reporter: u8,
        ok: u32,
        failed: u32,
        tail: u32,
        limited: Option<u64>,
        probe: Option<(u8, u8)>,
    },
    Claim {
        circuit: (u8, u8),
        holder: u8,
        probe: u8,
        lease_ms: u64,
    },
    /// By whoever holds it.
    End {
        circuit: (u8, u8),
        verdict: u8,
        limited: Option<u64>,
    },
    Drain {
        backend: u8,
        drained: bool,
    },
}

pub fn circuit_operation() -> impl Strategy<Value = CircuitOperation> {
    let circuit = || (0..2_u8, 0..3_u8);
    let limited = || proptest::option::weighted(0.15, prop_oneof![Just(0_u64), 1..9_000_u64]);
    let ended = || proptest::option::weighted(0.2, (0..4_u8, 0..3_u8));
    prop_oneof![
        8 => (circuit(), 0..3_u8, 0..4_u32, 0..4_u32, 0..4_u32, limited(), ended()).prop_map(
            |(circuit, reporter, ok, failed, tail, limited, probe)| CircuitOperation::Report {
                circuit, reporter, ok, failed, tail: tail.min(failed), limited, probe
            }
        ),
        6 => (circuit(), 0..3_u8, 0..4_u8, 1..8_000_u64).prop_map(|(circuit, holder, probe, lease_ms)| {
            CircuitOperation::Claim { circuit, holder, probe, lease_ms }
        }),
        5 => (circuit(), 0..3_u8, limited())
            .prop_map(|(circuit, verdict, limited)| CircuitOperation::End { circuit, verdict, limited }),
        1 => (0..2_u8, proptest::bool::weighted(0.4))
            .prop_map(|(backend, drained)| CircuitOperation::Drain { backend, drained }),
    ]
}

fn names((backend, model): (u8, u8)) -> (String, String) {
    let model = if model == 0 { String::new() } else { format!("model-{model}") };
    (format!("backend-{backend}"), model)
}

fn verdict(number: u8) -> ProbeVerdict {
    [ProbeVerdict::Passed, ProbeVerdict::Failed, ProbeVerdict::GivenUp][usize::from(number)]
}

#[derive(Debug, Clone)]
enum Fact {
    Counted {
        at: u64,
        ok: u64,
        failed: u64,
        tail: u64,
    },
    /// `said`: by the backend.
    Opened {
        at: u64,
        until: u64,
        said: bool,
    },
    Claimed {
        at: u64,
        holder: String,
        probe: u64,
        until: u64,
    },
    Closed {
        at: u64,
    },
    GivenUp,
}

#[derive(Debug, Default)]
pub struct Circuits {
    facts: BTreeMap<(String, String), Vec<Fact>>,
    drained: BTreeMap<String, bool>,
}

/// What the last facts say.
enum Now {
    Closed,
    Rests(u64),
    Probed { holder: String, probe: u64, until: u64 },
}

fn now_of(facts: &[Fact]) -> Now {
    let rested = || {
        facts.iter().rev().find_map(|fact| match fact {
            Fact::Opened { until, .. } => Some(*until),
            _ => None,
        })
    };
    match facts.iter().rev().find(|fact| !matches!(fact, Fact::Counted { .. })) {
        None | Some(Fact::Closed { .. } | Fact::Counted { .. }) => Now::Closed,
        Some(Fact::Opened { .. } | Fact::GivenUp) => Now::Rests(rested().unwrap()),
        Some(Fact::Claimed { holder, probe, until, .. }) => {
            Now::Probed { holder: holder.clone(), probe: *probe, until: *until }
        }
    }
}

/// Since the circuit was last something else than closed.
fn counted(facts: &[Fact]) -> impl Iterator<Item = (u64, u64, u64, u64)> {
    let from = facts.iter().rposition(|fact| !matches!(fact, Fact::Counted { .. })).map_or(0, |at| at + 1);
    facts[from..].iter().map(|fact| match fact {
        Fact::Counted { at, ok, failed, tail } => (*at, *ok, *failed, *tail),
        _ => unreachable!(),
    })
}

fn is_failing(facts: &[Fact], now: u64) -> bool {
    let (mut in_a_row, mut all, mut failed_all) = (0, 0, 0);
    for (at, ok, failed, tail) in counted(facts) {
        in_a_row = if ok == 0 { in_a_row + failed } else { tail };
        if at / 5_000 + 6 > now / 5_000 {
            all += ok + failed;
            failed_all += failed;
        }
    }
    in_a_row >= 3 || (all >= 20 && failed_all * 2 >= all)
}

/// Openings so far in the present trouble, and with the one that comes now.
fn openings(facts: &[Fact], now: u64, said: bool) -> u32 {
    let mut openings = 0_u32;
    let (mut closed, mut open) = (None, false);
    let opened = Fact::Opened { at: now, until: 0, said };
    for fact in facts.iter().chain([&opened]) {
        match fact {
            Fact::Opened { at, said, .. } if !open => {
                if closed.is_some_and(|closed| at - closed >= 60_000) {
                    openings = 0;
                }
                openings = if *said { openings.max(1) } else { openings + 1 };
                open = true;
            }
            // Longer, or opened again while a probe was out: one of the same.
            Fact::Opened { .. } => {}
            Fact::Closed { at } => (closed, open) = (Some(*at), false),
            Fact::Counted { .. } | Fact::Claimed { .. } | Fact::GivenUp => {}
        }
    }
    openings
}

impl Circuits {
    pub fn command(&self, operation: &CircuitOperation) -> Option<Command> {
        Some(match operation {
            CircuitOperation::Report { circuit, reporter, ok, failed, tail, limited, probe } => {
                let (backend, model) = names(*circuit);
                let probe = probe.map(|(probe, how)| ProbeEnd { probe: probe.into(), verdict: verdict(how) });
                Command::ReportProvider(ProviderReport {
                    backend,
                    model,
                    reporter: format!("g{reporter}"),
                    successes: *ok,
                    failures: *failed,
                    consecutive_failures: *tail,
                    signal: limited.map(|retry_after_ms| ProviderSignal::Limited { retry_after_ms }),
                    probe,
                    ..ProviderReport::default()
                })
            }
            CircuitOperation::Claim { circuit, holder, probe, lease_ms } => {
                let (backend, model) = names(*circuit);
                let (holder, probe) = (format!("g{holder}"), u64::from(*probe));
                Command::ClaimProbe { backend, model, holder, probe, lease_ms: *lease_ms }
            }
            CircuitOperation::End { circuit, verdict: how, limited } => {
                let (backend, model) = names(*circuit);
                let facts = self.facts.get(&(backend.clone(), model.clone()))?;
                let Now::Probed { holder, probe, .. } = now_of(facts) else { return None };
                Command::ReportProvider(ProviderReport {
                    backend,
                    model,
                    reporter: holder,
                    signal: limited.map(|retry_after_ms| ProviderSignal::Limited { retry_after_ms }),
                    probe: Some(ProbeEnd { probe, verdict: verdict(*how) }),
                    ..ProviderReport::default()
                })
            }
            CircuitOperation::Drain { backend, drained } => {
                let (backend, _) = names((*backend, 0));
                Command::DrainProvider { backend, drained: *drained, by: String::new() }
            }
        })
    }

    /// False: no command about circuits. What it was is in the name.
    pub fn check(
        &mut self,
        now: u64,
        command: &Command,
        outcome: &Outcome,
        ledger: &Ledger,
    ) -> Option<&'static str> {
        let seen = match command {
            Command::ReportProvider(report) => {
                assert!(matches!(outcome, Outcome::ProviderReported { .. }), "{outcome:?}");
                let key = (report.backend.clone(), report.model.clone());
                let shown = view(ledger, &key).until.map(|until| until.0);
                self.report(now, report, shown)
            }
            Command::ClaimProbe { backend, model, holder, probe, lease_ms } => {
                let expected = self.claim(now, (backend, model), holder, *probe, *lease_ms);
                match (outcome, expected) {
                    (Outcome::ProbeGranted { until, .. }, Ok(expected)) => assert_eq!(until.0, expected),
                    (Outcome::ProbeRefused(refusal), Err(expected)) => assert_eq!(*refusal, expected),
                    (outcome, expected) => panic!("{command:?}: {outcome:?}, not {expected:?}"),
                }
                if matches!(outcome, Outcome::ProbeGranted { .. }) {
                    "probe granted"
                } else {
                    "probe refused"
                }
            }
            Command::DrainProvider { backend, drained, .. } => {
                let known =
                    self.drained.contains_key(backend) || self.facts.keys().any(|(of, _)| of == backend);
                let before = self.drained.get(backend).copied().unwrap_or(false);
                let changed = before != *drained;
                assert_eq!(*outcome, Outcome::ProviderDrained { changed, known });
                if known || *drained {
                    self.drained.insert(backend.clone(), *drained);
                }
                "drained"
            }
            _ => return None,
        };
        self.compare(ledger);
        Some(seen)
    }

    fn report(&mut self, now: u64, report: &ProviderReport, shown: Option<u64>) -> &'static str {
        let facts = self.facts.entry((report.backend.clone(), report.model.clone())).or_default();
        let closed = matches!(now_of(facts), Now::Closed);
        if closed && report.successes + report.failures + report.consecutive_failures > 0 {
            let (ok, failed) = (report.successes.into(), report.failures.into());
            facts.push(Fact::Counted { at: now, ok, failed, tail: report.consecutive_failures.into() });
        }
        let said = match report.signal {
            Some(ProviderSignal::Limited { retry_after_ms }) => Some(retry_after_ms),
            _ => None,
        };
        let holds = |end: &ProbeEnd| matches!(now_of(facts), Now::Probed { holder, probe, .. } if holder == report.reporter && probe == end.probe);
        let ended = report.probe.filter(holds).map(|end| end.verdict);
        match ended {
            Some(ProbeVerdict::Passed) => facts.push(Fact::Closed { at: now }),
            Some(ProbeVerdict::GivenUp) => facts.push(Fact::GivenUp),
            Some(ProbeVerdict::Failed) => {
                // The trouble goes on: an opening of its own.
                let count = openings_after_probe(facts, now);
                facts.push(Fact::Closed { at: now });
                let most = most(count);
                let shown = shown.expect("it rests");
                let least = (most - most / 4).max(said.unwrap_or(0));
                assert!(
                    (now + least..=now + most.max(said.unwrap_or(0))).contains(&shown),
                    "{count}: {shown} at {now}"
                );
                facts.push(Fact::Opened { at: now, until: shown, said: false });
                return "probe failed";
            }
            None => {}
        }
        match (now_of(facts), said) {
            (Now::Closed, Some(0)) => self.opens(now, report, None, shown),
            (Now::Closed, Some(ms)) => self.opens(now, report, Some(ms), shown),
            (Now::Closed, None) if report.failures > 0 && is_failing(facts, now) => {
                self.opens(now, report, None, shown)
            }
            (Now::Rests(until), Some(ms)) if ms > 0 && now + ms > until => {
                facts.push(Fact::Opened { at: now, until: now + ms, said: true });
                "rests longer"
            }
            (Now::Probed { .. }, Some(ms)) if ms > 0 => {
                facts.push(Fact::Opened { at: now, until: now + ms, said: true });
                "opened under a probe"
            }
            _ if ended == Some(ProbeVerdict::Passed) => "probe passed",
            _ if ended == Some(ProbeVerdict::GivenUp) => "probe given up",
            _ => "counted",
        }
    }

    fn opens(
        &mut self,
        now: u64,
        report: &ProviderReport,
        said: Option<u64>,
        shown: Option<u64>,
    ) -> &'static str {
        let facts = self.facts.entry((report.backend.clone(), report.model.clone())).or_default();
        let shown = shown.expect("it rests");
        match said {
            Some(ms) => assert_eq!(shown, now + ms),
            None => {
                let most = most(openings(facts, now, false));
                assert!((now + most - most / 4..=now + most).contains(&shown), "{shown} at {now}: {facts:?}");
            }
        }
        facts.push(Fact::Opened { at: now, until: shown, said: said.is_some() });
        if said.is_some() { "limited" } else { "failing" }
    }

    fn claim(
        &mut self,
        now: u64,
        (backend, model): (&str, &str),
        who: &str,
        number: u64,
        lease_ms: u64,
    ) -> Result<u64, ProbeRefusal> {
        if self.drained.get(backend).copied().unwrap_or(false) {
            return Err(ProbeRefusal::Drained);
        }
        let whole = self.facts.get(&(backend.to_owned(), String::new()));
        if !model.is_empty() {
            match whole.map(|facts| now_of(facts)) {
                Some(Now::Rests(until)) => return Err(ProbeRefusal::Resting { until: TimestampMs(until) }),
                Some(Now::Probed { holder, until, .. }) if holder != who && until > now => {
                    return Err(ProbeRefusal::Held { holder, until: TimestampMs(until) });
                }
                _ => {}
            }
        }
        let Some(facts) = self.facts.get_mut(&(backend.to_owned(), model.to_owned())) else {
            return Err(ProbeRefusal::NotNeeded);
        };
        match now_of(facts) {
            Now::Closed => return Err(ProbeRefusal::NotNeeded),
            Now::Rests(until) if until > now => {
                return Err(ProbeRefusal::Resting { until: TimestampMs(until) });
            }
            Now::Probed { holder, probe, until } if holder == who && probe == number => return Ok(until),
            Now::Probed { holder, until, .. } if until > now => {
                return Err(ProbeRefusal::Held { holder, until: TimestampMs(until) });
            }
            Now::Rests(_) | Now::Probed { .. } => {}
        }
        let until = now + lease_ms;
        facts.push(Fact::Claimed { at: now, holder: who.to_owned(), probe: number, until });
        Ok(until)
    }

    fn compare(&self, ledger: &Ledger) {
        for (key, facts) in &self.facts {
            let view = view(ledger, key);
            let shown = (view.state, view.until.map(|until| until.0), view.holder.as_str());
            match now_of(facts) {
                Now::Closed => assert_eq!(shown, (ProviderState::Closed, None, ""), "{key:?}"),
                Now::Rests(until) => assert_eq!(shown, (ProviderState::Open, Some(until), ""), "{key:?}"),
                Now::Probed { holder, until, .. } => {
                    assert_eq!(shown, (ProviderState::HalfOpen, Some(until), holder.as_str()), "{key:?}");
                    // Never before its rest was over, and never two at a time: claims of others met a refusal above.
                    let rested = facts.iter().rev().find_map(|fact| match fact {
                        Fact::Opened { until, .. } => Some(*until),
                        _ => None,
                    });
                    let claimed = facts.iter().rev().find_map(|fact| match fact {
                        Fact::Claimed { at, .. } => Some(*at),
                        _ => None,
                    });
                    assert!(claimed >= rested, "{key:?}: {facts:?}");
                }
            }
            if view.model.is_empty() {
                let drained = self.drained.get(&view.backend).copied().unwrap_or(false);
                assert_eq!(view.drained_since.is_some(), drained, "{key:?}");
            }
        }
    }
}

/// The bounds of a back-off.
fn most(openings: u32) -> u64 {
    (1_000_u64 << (openings - 1).min(10)).min(60_000)
}

fn openings_after_probe(facts: &[Fact], now: u64) -> u32 {
    let closed: Vec<Fact> = facts.iter().cloned().chain([Fact::Closed { at: now }]).collect();
    openings(&closed, now, false)
}

fn view(ledger: &Ledger, (backend, model): &(String, String)) -> ProviderView {
    let found = ledger.providers().find(|view| view.backend == *backend && view.model == *model);
    found.unwrap_or_else(|| panic!("{backend} {model} is not there"))
}
