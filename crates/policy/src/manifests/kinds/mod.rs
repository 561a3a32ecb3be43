//! The kinds that Quorate acts on, each as a type of its own: what its fields are and what one object alone can get
//! wrong. What objects mean together is the business of `lower`.

mod backend;
mod budget;
mod cost;
mod identity;
mod level;
mod mutation;
mod price;
mod quota;
mod rate_limit;
mod route;
mod security;
mod selector;
mod target;
mod tls;
mod traffic;

pub(crate) use backend::{AiBackend, AiServiceBackend, EndpointBackend};
pub(crate) use budget::{BudgetSpec, any_of};
pub(crate) use cost::{CostDefinition, GatewayConfig, RequestCosts, same_cost, token_cost};
pub(crate) use identity::IdentitySpec;
pub(crate) use level::Level;
pub(crate) use price::ModelPrices;
pub(crate) use quota::{Bucket, ModelQuota, QuotaPolicy};
pub(crate) use rate_limit::{DescriptorSpec, RateLimitConfig, RateLimitSpec};
pub(crate) use route::AiGatewayRoute;
pub(crate) use security::SecurityPolicy;
pub(crate) use selector::ClientSelector;
pub(crate) use target::{Reference, Targets, text_map};
pub(crate) use tls::TlsPolicy;
pub(crate) use traffic::{ResponseCost, TrafficPolicy, TrafficRule};
