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
mod key_set;
mod metrics;
mod node;
mod proposer;
mod tenant_actor;
mod tenants;
mod wait_queue;
mod waiting;
mod watch_service;
mod watchers;

pub use config::{Limits, NodeConfig, PeerConfig, RaftTimers};
pub use error::NodeError;
pub use node::{Node, NodeListeners};
pub use quorate_replica::{Role, Status, Timers};
