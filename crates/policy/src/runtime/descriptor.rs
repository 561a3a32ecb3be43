//! Descriptors of Envoy's rate limit service: the limits of a domain, as `lower` makes them out of its configuration.

use std::collections::BTreeMap;

use quorate_ledger::Window;

/// A domain and its descriptors, in the order of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitDomain {
    pub name: String,
    pub descriptors: Vec<Descriptor>,
    /// For limits that a request brings itself: the budget of each window.
    pub overrides: Vec<(Window, String)>,
}

/// One entry, and what may follow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    pub key: String,
    /// Empty: any. `*` stands for any part of a value.
    pub value: String,
    /// All values that match have one account, in place of one each.
    pub share: bool,
    /// The value stands in the name of the metric.
    pub value_to_metric: bool,
    pub limit: Option<DescriptorLimit>,
    pub descriptors: Vec<Descriptor>,
}

/// What a request meets whose descriptor ends here.
#[derive(Debug, Clone, PartialEq)]
pub struct DescriptorLimit {
    /// The name of its budget in the policy; `None`: unlimited.
    pub budget: Option<String>,
    /// As other limits name it in `replaces`, and as answers show it; may be empty.
    pub name: String,
    /// Limits of other descriptors of the same request that do not count beside this one.
    pub replaces: Vec<String>,
    /// Hits in each window.
    pub requests_per_unit: u32,
    pub window: Window,
    pub spending: Spending,
    /// Counted, never over the limit.
    pub shadow: bool,
    /// Over the limit only together with all other limits of this sort.
    pub quota: bool,
    /// All values stand in the name of the metric.
    pub detailed_metric: bool,
    /// For the answer's dynamic metadata, where the hits were within the limit.
    pub metadata: Option<Metadata>,
}

/// How hits are charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spending {
    /// All of them, whether there was room or not: who asks may have used them already.
    #[default]
    Count,
    /// All of them or, where there is too little room, none.
    Whole,
    /// As `Whole`, and only held, until whoever asked says what was used.
    Held,
    /// As `Whole`, out of what this process has taken in advance.
    Lease,
}

/// Any value of JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Metadata {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Metadata>),
    Map(BTreeMap<String, Metadata>),
}
