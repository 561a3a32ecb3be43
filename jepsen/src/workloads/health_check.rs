//! Checks the workload `health`. Three records are laid beside each other: the ledger's circuits as linearizable reads saw
//! them, the change of each circuit that each gateway had seen, and the requests that reached a backend.
//!
//! A circuit was *surely* in a state from the end of the first read that saw one revision of it to the beginning of the last.
//! A request *knew* of a revision if its gateway showed it before the request was made, and was still the same process when
//! the request reached the backend. Whoever did not know, a gateway cut off from the nodes for one, is not judged.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::health::NAME;
use super::provider_record::{COMPLETE, LOST, SERVED, Served};
use super::tally::Tally;
use crate::check::Verdict;
use crate::check::forward::{Reading, back};
pub use crate::check::words::{CHAT, SEEN};
use crate::history::{History, Operation, Outcome};

pub const CIRCUITS: &str = "circuits";

const OPEN: &str = "nobody asks an open backend";
const PROBE: &str = "one probe at a time";
const OPINION: &str = "one opinion of each circuit";
const MONOTONE: &str = "what a gateway has seen never goes back";

/// The provider's clock ticks in milliseconds.
const TICK_US: u64 = 1_000;
/// Shorter than any rest: a circuit that was open before cannot have closed, opened and rested again in between.
const GAP_MAX_US: u64 = 700_000;
/// `probe_ms` of the gateways: a holder that slept for longer may send what is no longer the probe.
const LEASE_US: u64 = 3_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub marker: String,
    /// Its number, from 0; `gateway-1` is 0.
    pub gateway: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    pub backend: String,
    pub model: String,
    pub state: State,
    pub revision: u64,
    pub until_ms: u64,
    pub holder: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuits {
    pub log_index: u64,
    pub circuits: Vec<Circuit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRevision {
    pub backend: String,
    pub model: String,
    pub revision: u64,
}

/// What a gateway showed; the same life is the same process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub life: u64,
    pub revisions: Vec<SeenRevision>,
}

type Name = (String, String);

/// A circuit in one revision.
#[derive(Debug, Clone)]
struct Sure {
    circuit: Circuit,
    from_us: u64,
    until_us: u64,
    event: u64,
}

#[derive(Debug)]
struct Look {
    event: u64,
    life: u64,
    completed_us: u64,
    revisions: HashMap<Name, u64>,
}

#[derive(Debug, Default)]
struct Gateway {
    /// By the time that they were completed.
    looks: Vec<Look>,
    /// When each life was asked last.
    last_us: HashMap<u64, u64>,
}

/// A request at a backend.
#[derive(Debug)]
struct Arrival<'a> {
    served: Served,
    event: u64,
    call: &'a Call,
    operation: &'a Operation,
}

pub fn check(history: &History) -> Verdict {
    let mut tally = Tally::new([OPEN, PROBE, OPINION, MONOTONE]);
    let events = || history.events.iter().filter(|event| event.workload == NAME);
    if events().any(|event| event.f == LOST) {
        tally.not_shown("a provider's record lost requests before they were seen");
    }
    if events().filter(|event| event.f == COMPLETE).count() < 2 {
        tally.not_shown("the records of both providers were not read to their end");
    }
    let operations = history.operations(NAME);
    let circuits = circuits(&mut tally, &operations);
    let gateways = gateways(&mut tally, &operations);
    let mut calls = HashMap::new();
    for operation in operations.iter().filter(|operation| operation.f == CHAT) {
        if let Some(call) = tally.read::<Call>(&operation.call, operation.index) {
            calls.insert(call.marker.clone(), (call, operation));
        }
    }
    let mut arrivals = Vec::new();
    for event in events().filter(|event| event.f == SERVED) {
        let Some(served) = tally.read::<Served>(&event.value, event.index) else { continue };
        match calls.get(&served.marker) {
            Some((call, operation)) => arrivals.push(Arrival { served, event: event.index, call, operation }),
            None => tally.not_shown(&format!("event {}: nobody sent {}", event.index, served.marker)),
        }
    }
    for ((backend, model), revisions) in &circuits {
        let name = (backend.clone(), model.clone());
        let bare = backend.rsplit('/').next().unwrap_or(backend);
        let here: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.served.backend == bare).collect();
        judge(&mut tally, &name, revisions, &here, &gateways);
        // How often somebody knew and could have gone there: without these, no arrival shows nothing.
        for (call, operation) in calls.values() {
            let sure = at(revisions, operation.invoked_us);
            if sure.is_some_and(|sure| {
                gateways.get(&call.gateway).is_some_and(|gateway| {
                    gateway.knew(&name, sure.circuit.revision, operation.invoked_us, operation.invoked_us)
                })
            }) {
                tally.checked(OPEN);
            }
        }
    }
    tally.verdict()
}

/// One circuit: its troubled revisions in their order, and all that reached its backend.
fn judge(
    tally: &mut Tally,
    name: &Name,
    revisions: &[Sure],
    arrivals: &[&Arrival<'_>],
    gateways: &HashMap<u64, Gateway>,
) {
    for arrival in arrivals {
        let arrived_us = arrival.served.at_us + TICK_US;
        let sure = at(revisions, arrival.served.at_us).filter(|sure| arrived_us <= sure.until_us);
        let Some(sure) = sure.filter(|sure| arrival.knew(name, sure.circuit.revision, gateways)) else {
            continue;
        };
        let property = if sure.circuit.state == State::Open { OPEN } else { PROBE };
        let detail = format!(
            "{} came to {} through gateway-{}, which had seen {:?} of revision {} (held by {:?})",
            arrival.served.marker,
            name.0,
            arrival.call.gateway + 1,
            sure.circuit.state,
            sure.circuit.revision,
            sure.circuit.holder
        );
        tally.violation(property, detail, vec![arrival.operation.index, arrival.event, sure.event]);
    }
    for (open, sure) in revisions.iter().filter_map(|sure| Some((before(revisions, sure)?, sure))) {
        // From the last moment at which nobody can have had the probe.
        let came = |arrival: &&&Arrival<'_>| {
            arrival.served.at_us >= open.until_us
                && arrival.served.at_us + TICK_US <= sure.until_us
                && arrival.served.at_us <= arrival.operation.invoked_us.saturating_add(LEASE_US)
                && arrival.knew(name, open.circuit.revision, gateways)
        };
        let probes: Vec<_> = arrivals.iter().filter(came).collect();
        if !probes.is_empty() {
            tally.checked(PROBE);
        }
        let of_holder =
            |probe: &&&Arrival<'_>| format!("gateway-{}", probe.call.gateway + 1) == sure.circuit.holder;
        if probes.len() > 1 || !probes.iter().all(of_holder) {
            let names = probes
                .iter()
                .map(|probe| format!("{} through gateway-{}", probe.served.marker, probe.call.gateway + 1));
            let detail = format!(
                "{} {}: {} holds the probe of revision {}, and there came {}",
                name.0,
                name.1,
                sure.circuit.holder,
                sure.circuit.revision,
                names.collect::<Vec<_>>().join(", ")
            );
            let events = probes.iter().flat_map(|probe| [probe.operation.index, probe.event]);
            tally.violation(PROBE, detail, events.chain([open.event, sure.event]).collect());
        }
    }
}

/// The state before a probe, if nothing can have been between.
fn before<'a>(revisions: &'a [Sure], sure: &Sure) -> Option<&'a Sure> {
    if sure.circuit.state != State::HalfOpen {
        return None;
    }
    let open = revisions.iter().rev().find(|other| other.circuit.revision < sure.circuit.revision)?;
    let near = sure.from_us.saturating_sub(open.until_us) < GAP_MAX_US;
    (near && open.circuit.state == State::Open).then_some(open)
}

/// The troubled revision that surely was at this moment.
fn at(revisions: &[Sure], us: u64) -> Option<&Sure> {
    let after = revisions.partition_point(|sure| sure.from_us <= us);
    let sure = revisions.get(after.checked_sub(1)?)?;
    (us <= sure.until_us && sure.circuit.state != State::Closed).then_some(sure)
}

fn circuits(tally: &mut Tally, operations: &[Operation]) -> BTreeMap<Name, Vec<Sure>> {
    let mut known: BTreeMap<Name, BTreeMap<u64, Sure>> = BTreeMap::new();
    let mut readings: BTreeMap<Name, Vec<Reading>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.f == CIRCUITS) {
        let Outcome::Ok(value) = &operation.outcome else { continue };
        let Some(read) = tally.read::<Circuits>(value, operation.index) else { continue };
        for circuit in read.circuits {
            tally.checked(OPINION);
            let name = (circuit.backend.clone(), circuit.model.clone());
            readings.entry(name.clone()).or_default().push(Reading {
                invoked_us: operation.invoked_us,
                completed_us: operation.completed_us,
                value: circuit.revision,
                event: operation.index,
            });
            let sure = known.entry(name).or_default().entry(circuit.revision).or_insert_with(|| Sure {
                circuit: circuit.clone(),
                from_us: operation.completed_us,
                until_us: operation.invoked_us,
                event: operation.index,
            });
            if sure.circuit != circuit {
                let detail = format!("one read saw {:?}, another {circuit:?}", sure.circuit);
                tally.violation(OPINION, detail, vec![sure.event, operation.index]);
            }
            sure.from_us = sure.from_us.min(operation.completed_us);
            sure.until_us = sure.until_us.max(operation.invoked_us);
        }
    }
    for (name, readings) in readings {
        for (before, after) in back(readings) {
            let detail = format!("{name:?} was in revision {}, then in {}", before.value, after.value);
            tally.violation(OPINION, detail, vec![before.event, after.event]);
        }
    }
    let in_order = |revisions: BTreeMap<u64, Sure>| {
        revisions.into_values().filter(|sure| sure.from_us <= sure.until_us).collect()
    };
    known.into_iter().map(|(name, revisions)| (name, in_order(revisions))).collect()
}

fn gateways(tally: &mut Tally, operations: &[Operation]) -> HashMap<u64, Gateway> {
    let mut gateways: HashMap<u64, Gateway> = HashMap::new();
    for operation in operations.iter().filter(|operation| operation.f == SEEN) {
        let (Outcome::Ok(value), Some(number)) = (&operation.outcome, operation.call.as_u64()) else {
            continue;
        };
        let Some(seen) = tally.read::<Seen>(value, operation.index) else { continue };
        let gateway = gateways.entry(number).or_default();
        let revisions: HashMap<Name, u64> =
            seen.revisions.into_iter().map(|seen| ((seen.backend, seen.model), seen.revision)).collect();
        if let Some(last) = gateway.looks.last().filter(|last| last.life == seen.life) {
            for (name, revision) in &revisions {
                let earlier = last.revisions.get(name).copied().unwrap_or(0);
                tally.checked(MONOTONE);
                if earlier > *revision {
                    let detail = format!("gateway-{}: {name:?} {earlier}, then {revision}", number + 1);
                    tally.violation(MONOTONE, detail, vec![last.event, operation.index]);
                }
            }
        }
        gateway.last_us.insert(seen.life, operation.invoked_us);
        gateway.looks.push(Look {
            event: operation.index,
            life: seen.life,
            completed_us: operation.completed_us,
            revisions,
        });
    }
    gateways
}

impl Arrival<'_> {
    fn knew(&self, name: &Name, revision: u64, gateways: &HashMap<u64, Gateway>) -> bool {
        let (made_us, arrived_us) = (self.operation.invoked_us, self.served.at_us + TICK_US);
        let gateway = gateways.get(&self.call.gateway);
        gateway.is_some_and(|gateway| gateway.knew(name, revision, made_us, arrived_us))
    }
}

impl Gateway {
    /// Had it seen this revision before a request was made, and was it the same process until the request arrived?
    fn knew(&self, name: &Name, revision: u64, made_us: u64, arrived_us: u64) -> bool {
        let after = self.looks.partition_point(|look| look.completed_us <= made_us);
        let Some(look) = after.checked_sub(1).and_then(|place| self.looks.get(place)) else { return false };
        look.revisions.get(name).is_some_and(|seen| *seen >= revision)
            && self.last_us.get(&look.life).is_some_and(|last_us| *last_us >= arrived_us)
    }
}

#[cfg(test)]
#[path = "health_check_tests.rs"]
mod tests;
