//! One binary: node, gateway, dev cluster, operator commands, benchmark and simulated provider.

pub mod bench;
pub mod command;
pub mod config;
pub mod logging;
pub mod mock_provider;
pub mod output;
