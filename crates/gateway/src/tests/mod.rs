//! The whole pipeline over real sockets: a gateway, a provider that does what it is told, a ledger in memory.

mod additions;
mod bounds;
mod broken;
mod charging;
mod costs;
mod credentials;
mod crossing;
mod dialects;
mod endpoints;
mod fallback;
mod health;
mod identity;
mod keeper;
mod kinds;
mod leases;
mod loss;
mod manifests;
mod policies;
mod provider;
mod quotas;
mod rate_limit;
mod rate_limit_bounds;
mod rate_limit_ends;
mod rate_limit_holds;
mod rate_limit_whole;
mod recordings;
mod refusals;
mod routing;
#[path = "../../../../tests/support/shared.rs"]
mod shared;
mod streams;
mod tiers;
mod tls;
mod upstream;
mod waiting;
mod world;
