//! A budget node: tenant actors, the batching proposer and the gRPC services.
//!
//! The way of an operation: service → tenant actor (turnstile) → proposer (batch) → replica → outcome back.

mod access;
mod access_layer;
mod admin_changes;
mod admin_drains;
mod admin_members;
mod admin_policy_reads;
mod admin_reads;
mod admin_service;
mod alert_body;
mod alerts;
mod backups;
mod budget_service;
mod clock_metrics;
mod config;
mod decisions;
mod error;
mod explain;
mod explain_rest;
mod forward;
mod gateways;
mod group;
mod http;
mod key_set;
mod key_text;
mod metrics;
mod node;
pub mod offline;
mod policies;
mod policy_changes;
mod policy_events;
mod policy_metrics;
mod policy_reads;
mod policy_upload;
mod policy_words;
mod proposer;
mod rebuild;
mod secrets;
#[cfg(test)]
mod simulation;
mod tenant_actor;
mod tenants;
mod tls_metrics;
mod turnstile;
mod wait_queue;
mod waiting;
mod watch_service;
mod watchers;
mod webhook;

pub use config::{
    AlertsConfig, ClockConfig, Limits, NodeConfig, PeerConfig, RaftTimers, SecretKey, SecretsConfig,
};
pub use error::NodeError;
pub use node::{Node, NodeListeners};
pub use quorate_replica::{Role, Status, Timers};
pub use rebuild::set_data_folder_aside;
