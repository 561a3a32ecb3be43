//! The command line: one file per command.

mod adjust;
mod apply;
mod describe;
pub mod dev;
mod gateway;
mod get;
mod mock_provider;
mod node;
mod transfer_leader;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use quorate_rpc::{Admin, Client, ClientConfig};

use crate::logging::LogOptions;

/// Token budgets for LLM traffic that hold exactly, on any number of machines.
///
/// Try it: `quorate dev`, then `quorate get accounts`.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run three nodes, two gateways and a simulated provider on this machine
    Dev(dev::Dev),
    /// Run a budget node
    Node(node::RunNode),
    /// Run a gateway
    Gateway(gateway::RunGateway),
    /// Run a simulated provider that speaks the OpenAI API
    MockProvider(mock_provider::RunMockProvider),
    /// Apply a policy file to the whole fleet
    Apply(apply::Apply),
    /// List nodes, tenants, budgets, accounts, reservations, providers, or show the policy
    Get(get::Get),
    /// Show one tenant in full
    Describe(describe::Describe),
    /// Top up, reset or re-limit one account
    Adjust(adjust::Adjust),
    /// Hand the leadership to another node
    TransferLeader(transfer_leader::TransferLeader),
}

/// Which cluster to talk to.
#[derive(Debug, Clone, Args)]
pub struct ClusterOptions {
    /// gRPC addresses of the nodes; one is enough, all are better
    #[arg(
        long,
        env = "QUORATE_NODES",
        value_delimiter = ',',
        default_value = "127.0.0.1:7701,127.0.0.1:7702,127.0.0.1:7703",
        value_name = "HOST:PORT"
    )]
    pub nodes: Vec<String>,
}

impl ClusterOptions {
    pub fn client(&self) -> Client {
        Client::connect(ClientConfig {
            name: "cli".to_owned(),
            nodes: self.nodes.clone(),
            operation_timeout_ms: 5_000,
        })
    }

    pub fn admin(&self) -> Admin {
        self.client().admin()
    }
}

impl Cli {
    /// # Errors
    /// What the command says.
    pub async fn run(self) -> Result<()> {
        match self.command {
            Command::Dev(command) => command.run().await,
            Command::Node(command) => command.run().await,
            Command::Gateway(command) => command.run().await,
            Command::MockProvider(command) => command.run().await,
            Command::Apply(command) => command.run().await,
            Command::Get(command) => command.run().await,
            Command::Describe(command) => command.run().await,
            Command::Adjust(command) => command.run().await,
            Command::TransferLeader(command) => command.run().await,
        }
    }
}

/// Ctrl-C or SIGTERM.
///
/// # Errors
/// The signals cannot be listened to.
pub async fn told_to_stop() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
