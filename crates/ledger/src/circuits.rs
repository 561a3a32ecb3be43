//! Safety properties of the circuits. Registered in `invariant`.

use crate::circuit::{REASON_MAX_BYTES, SLICES_MAX, State};
use crate::provider::names;
use crate::{CIRCUITS_MAX, Ledger, PROBE_LEASE_MAX_MS};

/// A state has room for one holder; what is checked is that it came to be rightly.
pub(crate) fn one_probe(ledger: &Ledger, found: &mut Vec<String>) {
    for (key, circuit) in ledger.providers.circuits.iter() {
        let wrong = match &circuit.state {
            State::Closed => !circuit.reason.is_empty(),
            State::Open { .. } => circuit.openings == 0 || !circuit.slices.is_empty(),
            State::HalfOpen { holder, until, rested, .. } => {
                holder.is_empty()
                    || circuit.since < *rested
                    || *until <= circuit.since
                    || until.since(circuit.since) > PROBE_LEASE_MAX_MS
            }
        };
        if wrong {
            found.push(format!("{:?}: {circuit:?}", names(key)));
        }
    }
}

pub(crate) fn bounded(ledger: &Ledger, found: &mut Vec<String>) {
    let circuits = &ledger.providers.circuits;
    if circuits.len() > CIRCUITS_MAX {
        found.push(format!("{} circuits", circuits.len()));
    }
    for (key, circuit) in circuits.iter() {
        let (_, model) = names(key);
        let late = circuit.since > ledger.time || circuit.last_report > ledger.time;
        let long = circuit.slices.len() > SLICES_MAX || circuit.reason.len() > REASON_MAX_BYTES;
        let unseen = circuit.revision == 0 || circuit.revision > ledger.providers.revision;
        if late || long || unseen || (circuit.drained.is_some() && !model.is_empty()) {
            found.push(format!("{:?} at {:?}: {circuit:?}", names(key), ledger.time));
        }
    }
}
