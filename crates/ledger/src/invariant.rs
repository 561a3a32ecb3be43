//! The registry of safety properties.

use crate::Ledger;

/// One broken property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the property in the registry.
    pub property: &'static str,
    pub detail: String,
}

/// Every property of the registry, on the whole ledger. Empty: all hold.
pub fn check(ledger: &Ledger) -> Vec<Violation> {
    let _ = ledger;
    todo!()
}
