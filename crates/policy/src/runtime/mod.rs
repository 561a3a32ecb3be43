//! The policy at run time: compiled rules in, answers about one request out. Which route, which budgets and subjects,
//! what a request can cost at most and what it did cost.
//!
//! Everything here is immutable, `Send + Sync`, and pure. What is deliberately absent: YAML (the manifests half lowers
//! it to [`PolicyParts`]), HTTP types, counters, secrets (references only), clocks and randomness (the caller draws).

mod backend;
mod budget;
mod builtin_prices;
mod cel;
mod cel_arithmetic;
mod cel_samples;
mod cel_tree;
mod check;
mod cidr;
mod compiled;
mod condition;
mod corners;
mod cost;
mod descriptor;
mod descriptor_index;
mod error;
mod explain;
mod identity;
mod index;
mod output;
mod pattern;
mod price;
mod request;
mod route;
mod route_table;
mod routing;
mod subject;
mod tier;
mod wildcard;

pub use backend::{AuthSpec, BackendSpec, Endpoint, ProviderKind, SecretRef, TlsSpec};
pub use budget::{Budget, BudgetMatch, ClusterLoss, NO_ROUTE, WhenShort};
pub use cel::{CelCost, CelError, EXPRESSION_MAX_BYTES};
pub use cidr::{Cidr, CidrError};
pub use compiled::{CompiledPolicy, PolicyParts};
pub use condition::{Attribute, Condition, MethodMatch, PathMatch, Selector, TextMatch};
pub use cost::{Cost, CostContext, TokenKind, Usage};
pub use descriptor::{Descriptor, DescriptorLimit, Metadata, RateLimitDomain, Spending};
pub use descriptor_index::{DomainIndex, FoundLimit, Override, override_subject};
pub use error::{CompileError, CostError, MatchError};
pub use explain::{ExplainedBudget, Explanation, Verdict};
pub use identity::{Anonymous, IdentityField, IdentityRules, JwksSource, JwtRules};
pub use output::{OutputBounds, OutputTooLarge};
pub use pattern::{Pattern, PatternError};
pub use price::{ListedPrice, Price, Prices};
pub use request::{HeaderSource, Identity, MODEL_HEADER, RequestView};
pub use route::{
    BackendRef, BodyField, BodyMutation, HeaderMatch, HeaderMutation, Route, RouteMatch, RoutePosition,
    RouteRule,
};
pub use routing::{RankReason, Ranked, Routing, Signals, Sticky, Strategy};
pub use subject::{SUBJECT_MAX_BYTES, SubjectPart};
pub use tier::{Tier, TierAction, tier_at};
