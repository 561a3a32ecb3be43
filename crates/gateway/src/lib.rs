//! The stateless gateway: identify, route, estimate, reserve, call upstream, settle.
//!
//! One file for each stage; [`Gateway`] starts and stops them together. What is deliberately absent: state that a
//! restart would lose, and decisions about budgets, which are the ledger's.

mod answered;
mod arriving;
mod ask;
mod attempt;
mod auth;
mod backend;
mod backend_config;
mod backends;
mod body;
mod budget;
mod byte_pairs;
mod call;
mod choosing;
mod config;
mod connector;
mod core;
mod cost;
mod counts;
mod error;
mod estimate;
mod foreign_pieces;
mod gateway;
mod headers;
mod health;
mod identify;
mod io;
mod jwt;
mod jwt_ring;
mod keys;
mod latency;
mod lease_metrics;
mod leased;
mod link;
mod long_pieces;
mod lower;
mod memory;
mod metrics;
mod models;
mod ops;
mod passing;
mod piece_counts;
mod pieces;
mod pipeline;
mod plan;
mod policy;
mod provider;
mod rate_limit;
mod ratelimit;
mod refusal;
mod repay;
mod request;
mod reserve;
mod route;
mod secret;
mod secrets;
mod server;
mod settle;
mod short;
mod spare;
mod streamed;
#[cfg(test)]
mod tests;
mod tier;
mod tls;
mod tokenizer;
mod upstream;
mod vocabulary;
mod vocabulary_format;

pub use config::{
    AwsConfig, BackendConfig, BackendLimits, BackendTimeouts, EntraConfig, GatewayConfig, Limits, Provider,
    Proxy, SecretsConfig, Timeouts,
};
pub use error::GatewayError;
pub use gateway::{Gateway, GatewayListeners};
pub use provider::splice::OutputField;
pub use rate_limit::{ConfigStream, RateLimitConfig};
pub use tokenizer::Tokenizer;
