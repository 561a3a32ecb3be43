//! The registry of safety properties: what must hold after every command, whatever came before.
//!
//! Unit, property and cluster tests all ask [`check`]; a new property is one function and one line in [`PROPERTIES`].

use std::collections::BTreeMap;

use crate::Ledger;
use crate::account::Period;
use crate::tenant::Tenant;

/// One broken property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the property in the registry.
    pub property: &'static str,
    pub detail: String,
}

/// A safety property of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    pub name: &'static str,
    pub says: &'static str,
    find: fn(&Ledger, &mut Vec<String>),
}

/// Every property, in the order in which they are checked.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "never overspent",
        says: "in every window: spent + reserved <= highest limit at a grant + overdraft",
        find: never_overspent,
    },
    Property {
        name: "conserved",
        says: "reserved in a window is the sum of what open reservations hold there, all of it or none",
        find: conserved,
    },
    Property {
        name: "resolved once",
        says: "an id is open or resolved, not both; granted = open + settled + released + expired - corrected",
        find: resolved_once,
    },
    Property {
        name: "indexed",
        says: "the indices of deadlines and of what to forget agree with the records",
        find: indexed,
    },
    Property { name: "time monotone", says: "nothing was made after the ledger's time", find: time_monotone },
];

/// Every property of the registry, on the whole ledger. Empty: all hold.
pub fn check(ledger: &Ledger) -> Vec<Violation> {
    let mut violations = Vec::new();
    for property in PROPERTIES {
        let mut details = Vec::new();
        (property.find)(ledger, &mut details);
        violations.extend(details.into_iter().map(|detail| Violation { property: property.name, detail }));
    }
    violations
}

fn never_overspent(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        for (key, account) in state.accounts.iter() {
            for period in account.periods() {
                if used(period) > allowed(period) {
                    found.push(format!("tenant {tenant}, {key:?}: {period:?}"));
                }
            }
        }
    }
}

fn used(period: &Period) -> u128 {
    u128::from(period.spent.micros()) + u128::from(period.reserved.micros())
}

fn allowed(period: &Period) -> u128 {
    u128::from(period.ceiling.micros()) + u128::from(period.overdraft.micros())
}

fn conserved(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        let mut held = BTreeMap::new();
        for line in state.open.iter().flat_map(|(_, open)| open.lines.iter()) {
            *held.entry((line.account.clone(), line.span)).or_insert(0_u128) +=
                u128::from(line.held.micros());
        }
        for (key, account) in state.accounts.iter() {
            for period in account.periods() {
                let held = held.remove(&(key.clone().into(), period.span)).unwrap_or(0);
                if held != u128::from(period.reserved.micros()) {
                    found.push(format!(
                        "tenant {tenant}, {key:?}: open reservations hold {held} micros, {period:?}"
                    ));
                }
            }
        }
        found.extend(held.keys().map(|key| format!("tenant {tenant}: {key:?} is held on no account")));
    }
}

fn resolved_once(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        for (id, _) in state.open.iter().filter(|(id, _)| state.resolved.contains_key(id)) {
            found.push(format!("tenant {tenant}: reservation {id} is open and resolved"));
        }
        let totals = &state.totals;
        let ended = totals.settled + totals.released + totals.expired;
        if totals.granted + totals.corrected != state.open.len() as u64 + ended {
            found.push(format!("tenant {tenant}: {} open, {totals:?}", state.open.len()));
        }
    }
}

fn indexed(ledger: &Ledger, found: &mut Vec<String>) {
    let mut remembered = 0;
    for (tenant, state) in ledger.tenants.iter() {
        remembered += state.resolved.len();
        if !deadlines_agree(state) {
            found.push(format!("tenant {tenant}: the index of deadlines differs from the open reservations"));
        }
        for (id, resolved) in state.resolved.iter() {
            if !ledger.forgetting.contains_key(&(resolved.forget_at, tenant.clone(), *id)) {
                found.push(format!("tenant {tenant}: {id} would never be forgotten"));
            }
        }
    }
    if remembered != ledger.forgetting.len() {
        found.push(format!(
            "{remembered} records are remembered, {} are to be forgotten",
            ledger.forgetting.len()
        ));
    }
}

fn deadlines_agree(state: &Tenant) -> bool {
    state.open.len() == state.deadlines.len()
        && state.open.iter().all(|(id, open)| state.deadlines.contains_key(&(open.deadline, *id)))
}

fn time_monotone(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        for (id, open) in state.open.iter().filter(|(_, open)| open.made_at > ledger.time) {
            found.push(format!(
                "tenant {tenant}: {id} was made at {:?}, after {:?}",
                open.made_at, ledger.time
            ));
        }
        for (key, account) in
            state.accounts.iter().filter(|(_, account)| account.present.span.start > ledger.time)
        {
            found.push(format!(
                "tenant {tenant}: {key:?} is in {:?}, after {:?}",
                account.present.span, ledger.time
            ));
        }
    }
}
