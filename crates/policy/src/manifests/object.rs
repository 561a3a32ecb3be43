//! One object of a set: what it is called, what it says, and its canonical text.

use std::collections::BTreeMap;
use std::fmt;

use quorate_ledger::Window;

use crate::manifests::kind::Kind;
use crate::manifests::kinds::{
    AiBackend, AiGatewayRoute, AiServiceBackend, BudgetSpec, EndpointBackend, GatewayConfig, IdentitySpec,
    ModelPrices, QuotaPolicy, RateLimitConfig, RequestCosts, SecurityPolicy, TlsPolicy, TrafficPolicy,
};

/// Where objects without a namespace are.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// What tells one object from another. Kinds stand in the order in which a policy is read: who, prices and costs,
/// routes, backends, limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// Kind, namespace and name in words: `Budget acme/user-hourly`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

impl ObjectKey {
    /// `namespace/name`
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub key: ObjectKey,
    pub api_version: String,
    pub labels: BTreeMap<String, String>,
    pub spec: Spec,
    /// Canonical: two objects with the same text mean the same. Of a Secret, no value is in it.
    pub yaml: String,
    pub origin: Origin,
}

/// Where an object was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub file: String,
    pub line: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Spec {
    Identity(Box<IdentitySpec>),
    ModelPrice(ModelPrices),
    RequestCosts(RequestCosts),
    GatewayConfig(GatewayConfig),
    Route(AiGatewayRoute),
    AiBackend(AiBackend),
    AiServiceBackend(Box<AiServiceBackend>),
    Backend(EndpointBackend),
    Tls(TlsPolicy),
    Security(SecurityPolicy),
    /// Names of its keys only.
    Secret(Vec<String>),
    Traffic(TrafficPolicy),
    Quota(QuotaPolicy),
    Budget(Box<BudgetSpec>),
    RateLimits(RateLimitConfig),
}

impl Spec {
    /// The gist in a few words, for tables.
    pub fn summary(&self) -> String {
        match self {
            Self::Identity(identity) => {
                let rules = &identity.rules;
                let header = rules.tenant.header.as_deref().unwrap_or("none");
                let sources = [(rules.keys, ", API keys"), (rules.jwt.is_some(), ", JWT")];
                let extra: String = sources.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect();
                format!("tenant from header {header}{extra}")
            }
            Self::ModelPrice(price) => format!(
                "{}: ${} in, ${} out per million",
                price.models.join(", "),
                price.price.input,
                price.price.output
            ),
            Self::RequestCosts(costs) => keys_of(&costs.costs),
            Self::GatewayConfig(config) => keys_of(&config.costs),
            Self::Route(route) => {
                let backends: usize = route.rules.iter().map(|rule| rule.backends.len()).sum();
                format!("{}, {}", count(route.rules.len(), "rule"), count(backends, "backend"))
            }
            Self::AiBackend(backend) => backend.schema.provider.name().to_owned(),
            Self::AiServiceBackend(backend) => {
                format!("{} at {}", backend.schema.provider.name(), backend.backend.name)
            }
            Self::Backend(backend) => format!("{}:{}", backend.host, backend.port),
            Self::Tls(tls) => format!("TLS to {}", tls.hostname),
            Self::Security(security) => {
                format!("credentials of {}", count(security.targets.references.len(), "backend"))
            }
            Self::Secret(keys) => count(keys.len(), "key"),
            Self::Traffic(policy) => count(policy.rules.len(), "rule"),
            Self::RateLimits(config) => count(config.limits(), "limit"),
            Self::Quota(quota) => count(quota.models.len(), "model"),
            Self::Budget(budget) => {
                let level = |level: &crate::manifests::kinds::Level| {
                    let window = match level.window {
                        Window::Sliding { ms } => format!("in any {} s", ms.div_ceil(1_000)),
                        window => format!("per {}", window.name()),
                    };
                    format!("{} {} {window}", level.limit.limit, level.limit.unit.name())
                };
                budget.levels.iter().map(level).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

fn keys_of(costs: &[crate::manifests::kinds::CostDefinition]) -> String {
    costs.iter().map(|cost| cost.key.as_str()).collect::<Vec<_>>().join(", ")
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
