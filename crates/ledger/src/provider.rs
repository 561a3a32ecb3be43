//! What the fleet believes of each backend, and of each model there: reports, claims of probes, and what operators drain.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::circuit::{Circuit, State};
use crate::cow_map::CowMap;
use crate::{
    AuditAction, CIRCUITS_MAX, Ledger, Outcome, PROBE_LEASE_MAX_MS, ProbeRefusal, ProviderReport,
    ProviderView, Refusal, TimestampMs, check,
};

/// From here on, circuits that were idle for so long make room.
const ROOMY: usize = CIRCUITS_MAX / 4 * 3;
const IDLE_MS: u64 = 600_000;
/// Forgotten by one command.
const FORGOTTEN_MAX: usize = 64;
const SEPARATOR: char = '\0';

/// Circuits by backend and model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Providers {
    /// The key: backend, a zero byte, model. Names have no control characters.
    pub circuits: CowMap<Arc<str>, Arc<Circuit>>,
    /// Counts the changes.
    pub revision: u64,
}

/// A ClaimProbe as asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub backend: &'a str,
    pub model: &'a str,
    pub holder: &'a str,
    pub probe: u64,
    pub lease_ms: u64,
}

fn key(backend: &str, model: &str) -> Arc<str> {
    format!("{backend}{SEPARATOR}{model}").into()
}

pub(crate) fn names(key: &str) -> (&str, &str) {
    key.split_once(SEPARATOR).unwrap_or((key, ""))
}

impl Providers {
    pub fn views(&self) -> impl Iterator<Item = ProviderView> + '_ {
        self.circuits.iter().map(|(key, circuit)| {
            let (backend, model) = names(key);
            circuit.view(backend, model)
        })
    }

    /// Changes one circuit; its revision tells whether anybody could see that.
    fn change<T>(
        &mut self,
        now: TimestampMs,
        (backend, model): (&str, &str),
        change: impl FnOnce(&mut Circuit) -> T,
    ) -> Result<(T, u64), String> {
        let key = key(backend, model);
        if !self.circuits.contains_key(&*key) {
            self.make_room(now)?;
            self.circuits.insert(key.clone(), Arc::new(Circuit::new(now)));
            self.revision += 1;
        }
        let Some((_, circuit)) = self.circuits.get_key_value_mut(&*key) else {
            unreachable!("the circuit was inserted above")
        };
        let circuit = Arc::make_mut(circuit);
        let before = circuit.view(backend, model);
        let done = change(circuit);
        if circuit.revision == 0 {
            circuit.revision = self.revision;
        } else if circuit.view(backend, model) != before {
            self.revision += 1;
            circuit.revision = self.revision;
        }
        Ok((done, circuit.revision))
    }

    /// Idle ones go when there are many; when there is no room at all, the one without trouble that was idle for longest.
    fn make_room(&mut self, now: TimestampMs) -> Result<(), String> {
        if self.circuits.len() < ROOMY {
            return Ok(());
        }
        let idle = self.circuits.iter().filter(|(_, circuit)| circuit.is_idle(now, IDLE_MS));
        let mut gone: Vec<Arc<str>> = idle.take(FORGOTTEN_MAX).map(|(key, _)| key.clone()).collect();
        if gone.is_empty() && self.circuits.len() >= CIRCUITS_MAX {
            let calm = self.circuits.iter().filter(|(_, circuit)| circuit.is_idle(now, 0));
            gone.extend(calm.min_by_key(|(_, circuit)| circuit.last_report).map(|(key, _)| key.clone()));
        }
        for key in &gone {
            self.circuits.remove(&**key);
            self.revision += 1;
        }
        if self.circuits.len() < CIRCUITS_MAX {
            Ok(())
        } else {
            Err(format!(
                "the ledger keeps at most {CIRCUITS_MAX} backends and models, and all of them are in trouble"
            ))
        }
    }
}

impl Ledger {
    pub(crate) fn report_provider(&mut self, now: TimestampMs, report: &ProviderReport) -> Outcome {
        let reported = acceptable(report).and_then(|()| {
            let names = (report.backend.as_str(), report.model.as_str());
            self.providers.change(now, names, |circuit| circuit.take(now, report))
        });
        match reported {
            Ok(((), revision)) => Outcome::ProviderReported { revision },
            Err(message) => Outcome::Refused(Refusal::Invalid(message)),
        }
    }

    pub(crate) fn claim_probe(&mut self, now: TimestampMs, claim: Claim<'_>) -> Outcome {
        if let Err(message) = claimable(claim) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        if let Some(refusal) = self.backend_refuses(now, claim) {
            return Outcome::ProbeRefused(refusal);
        }
        let Claim { backend, model, holder, probe, lease_ms } = claim;
        if !self.providers.circuits.contains_key(&*key(backend, model)) {
            return Outcome::ProbeRefused(ProbeRefusal::NotNeeded);
        }
        let claimed = self
            .providers
            .change(now, (backend, model), |circuit| circuit.claim(now, holder, probe, lease_ms));
        match claimed {
            Ok((Ok(until), revision)) => Outcome::ProbeGranted { until, revision },
            Ok((Err(refusal), _)) => Outcome::ProbeRefused(refusal),
            Err(message) => Outcome::Refused(Refusal::Invalid(message)),
        }
    }

    /// Nothing of a backend is probed while all of it is drained, rests, or is another one's to probe.
    fn backend_refuses(&self, now: TimestampMs, claim: Claim<'_>) -> Option<ProbeRefusal> {
        let whole = self.providers.circuits.get(&*key(claim.backend, ""))?;
        if whole.drained.is_some() {
            return Some(ProbeRefusal::Drained);
        }
        match &whole.state {
            _ if claim.model.is_empty() => None,
            State::Open { until } => Some(ProbeRefusal::Resting { until: *until }),
            State::HalfOpen { holder, until, .. } if holder != claim.holder && *until > now => {
                Some(ProbeRefusal::Held { holder: holder.clone(), until: *until })
            }
            State::HalfOpen { .. } | State::Closed => None,
        }
    }

    /// Again, it changes nothing.
    pub(crate) fn drain_provider(
        &mut self,
        now: TimestampMs,
        backend: &str,
        drained: bool,
        by: &str,
    ) -> Outcome {
        if let Err(message) = check::by(by).and_then(|()| check::name("backend", backend)) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let known = self.providers.knows(backend);
        if !known && !drained {
            return Outcome::ProviderDrained { changed: false, known };
        }
        match self.providers.change(now, (backend, ""), |circuit| circuit.drain(now, drained, by)) {
            Ok((changed, _)) => {
                if changed {
                    let action =
                        if drained { AuditAction::DrainBackend } else { AuditAction::UndrainBackend };
                    self.audit.record(now, by, action, format!("backend {backend}"), String::new());
                }
                Outcome::ProviderDrained { changed, known }
            }
            Err(message) => Outcome::Refused(Refusal::Invalid(message)),
        }
    }
}

impl Providers {
    /// Anything was ever heard of this backend, and is remembered.
    fn knows(&self, backend: &str) -> bool {
        let whole = key(backend, "");
        let after = self.circuits.iter_after(&*whole).next();
        self.circuits.contains_key(&*whole) || after.is_some_and(|(key, _)| names(key).0 == backend)
    }
}

fn acceptable(report: &ProviderReport) -> Result<(), String> {
    circuit_names(&report.backend, &report.model)?;
    if !report.reporter.is_empty() {
        check::name("reporter", &report.reporter)?;
    }
    if report.consecutive_failures > report.failures {
        return Err(format!(
            "consecutive_failures are part of the failures: {} of {}",
            report.consecutive_failures, report.failures
        ));
    }
    Ok(())
}

fn claimable(claim: Claim<'_>) -> Result<(), String> {
    circuit_names(claim.backend, claim.model)?;
    check::name("holder", claim.holder)?;
    if !(1..=PROBE_LEASE_MAX_MS).contains(&claim.lease_ms) {
        return Err(format!("lease_ms is 1 to {PROBE_LEASE_MAX_MS}, not {}", claim.lease_ms));
    }
    Ok(())
}

fn circuit_names(backend: &str, model: &str) -> Result<(), String> {
    check::name("backend", backend)?;
    if model.is_empty() { Ok(()) } else { check::name("model", model) }
}
