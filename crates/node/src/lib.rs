//! A budget node: tenant actors, the batching proposer and the gRPC services.
//!
//! The way of an operation: service → tenant actor (turnstile) → proposer (batch) → replica → outcome back.

mod admin_reads;
mod admin_service;
mod budget_service;
mod config;
mod error;
mod forward;
mod http;
mod metrics;
mod node;
mod proposer;
mod tenant_actor;
mod tenants;
mod turnstile;
mod watch_service;

pub use config::{Limits, NodeConfig, PeerConfig, RaftTimers};
pub use error::NodeError;
pub use node::{Node, NodeListeners};
pub use quorate_replica::{Role, Status, Timers};
