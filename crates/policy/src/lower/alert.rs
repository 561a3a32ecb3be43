//! Where the alerts of a budget go. The ledger says when; the node sends.

use crate::runtime::SecretRef;

/// A webhook of one budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRoute {
    /// The name of its rule.
    pub budget: String,
    pub url: String,
    /// The key that signs what is sent; `None`: unsigned.
    pub secret: Option<SecretRef>,
}
