//! The registry of safety properties: what must hold after every command, whatever came before.
//!
//! Unit, property and cluster tests all ask [`check`]; a new property is one function and one line in [`PROPERTIES`].

use crate::{Ledger, books, circuits, indices};

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
    /// Where the promise is made.
    pub from: &'static str,
    find: fn(&Ledger, &mut Vec<String>),
}

/// Every property, in the order in which they are checked.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "never overspent",
        says: "in every window, and every stretch of a sliding one up to now: spent + reserved <= highest limit at a grant + overdraft + excess",
        from: "DESIGN.md, the promise: a budget holds exactly",
        find: books::never_overspent,
    },
    Property {
        name: "excess explained",
        says: "no excess in a window where every grant was held back by its limit; only Count and Shadow have it",
        from: "DESIGN.md, the promise: a budget holds exactly",
        find: books::excess_explained,
    },
    Property {
        name: "estimate spent",
        says: "in every window: estimated <= spent",
        from: "issue 4: missing usage is marked as an estimate in the account",
        find: books::estimate_spent,
    },
    Property {
        name: "all or nothing",
        says: "reserved in a window is the sum of what open reservations hold there: all of it or none",
        from: "DESIGN.md, the ledger: granted on all or on none",
        find: books::all_or_nothing,
    },
    Property {
        name: "conserved",
        says: "reserved = held - freed; spent = charged - taken back - forgiven - dropped with old windows",
        from: "DESIGN.md, invariant 4: no amount is charged twice or dropped",
        find: books::conserved,
    },
    Property {
        name: "resolved once",
        says: "an id is open or resolved, not both; granted = open + settled + released + expired - corrected",
        from: "DESIGN.md, the ledger: every operation takes effect exactly once",
        find: indices::resolved_once,
    },
    Property {
        name: "indexed",
        says: "what is to expire, to be forgotten and to be looked at is found at its time, and nothing else",
        from: "DESIGN.md, the ledger: memory bounded by rate × retention",
        find: indices::indexed,
    },
    Property {
        name: "bounded",
        says: "every account is counted under its budget; nothing beyond what is kept of alerts, keys and changes",
        from: "issue 3: the number of accounts is bounded",
        find: indices::bounded,
    },
    Property {
        name: "referenced",
        says: "every window knows how many records refer to it, and is there as long as one does",
        from: "DESIGN.md, the ledger: a settlement after the rollover is charged to its window",
        find: indices::referenced,
    },
    Property {
        name: "time monotone",
        says: "nothing was made, and no window begins, after the ledger's time",
        from: "DESIGN.md, the ledger: max(at, last)",
        find: indices::time_monotone,
    },
    Property {
        name: "one probe",
        says: "a circuit is probed by one holder, after its rest and for a bounded time; one that rests has none",
        from: "DESIGN.md, the gateway: exactly one probe tests a recovering backend",
        find: circuits::one_probe,
    },
    Property {
        name: "circuits bounded",
        says: "circuits, their windows and reasons are bounded, every change has a revision, only backends are drained",
        from: "DESIGN.md, invariant 6: every queue is bounded",
        find: circuits::bounded,
    },
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
