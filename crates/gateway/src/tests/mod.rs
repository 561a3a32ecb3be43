//! The whole pipeline over real sockets: a gateway, a provider that does what it is told, a ledger in memory.

mod bounds;
mod charging;
mod costs;
mod fallback;
mod health;
mod identity;
mod keeper;
mod loss;
mod manifests;
mod policies;
mod provider;
mod recordings;
mod refusals;
mod streams;
mod tiers;
mod waiting;
mod world;
