//! The whole pipeline over real sockets: a gateway, a provider that does what it is told, a ledger in memory.

mod bounds;
mod charging;
mod keeper;
mod provider;
mod recordings;
mod refusals;
mod streams;
mod world;
