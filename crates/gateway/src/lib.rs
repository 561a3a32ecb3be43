//! The stateless gateway: identify, route, estimate, reserve, call upstream, settle.
//!
//! One file for each stage; [`Gateway`] starts and stops them together. What is deliberately absent: state that a
//! restart would lose, and decisions about budgets, which are the ledger's.

mod answered;
mod backend;
mod body;
mod budget;
mod call;
mod config;
mod core;
mod error;
mod estimate;
mod gateway;
mod headers;
mod health;
mod identify;
mod io;
mod memory;
mod metrics;
mod models;
mod ops;
mod pipeline;
mod policy;
mod provider;
mod ratelimit;
mod refusal;
mod reserve;
mod route;
mod secret;
mod server;
mod settle;
mod streamed;
#[cfg(test)]
mod tests;
mod tokenizer;
mod upstream;

pub use config::{BackendConfig, GatewayConfig, Limits, Provider, Timeouts};
pub use error::GatewayError;
pub use gateway::{Gateway, GatewayListeners};
pub use provider::splice::OutputField;
pub use tokenizer::Tokenizer;
