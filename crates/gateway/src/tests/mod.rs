//! The whole pipeline over real sockets: a gateway, a provider that does what it is told, a ledger in memory.

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
mod loss;
mod manifests;
mod policies;
mod provider;
mod quotas;
mod recordings;
mod refusals;
mod routing;
mod streams;
mod tiers;
mod upstream;
mod waiting;
mod world;
