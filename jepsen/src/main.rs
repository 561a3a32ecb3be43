//! `jepsen/run`: real Quorate processes under faults. What is promised: `jepsen/SEMANTICS.md`.

mod check;
mod deploy;
mod faults;
mod history;
mod workloads;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Faults by themselves
    Faults(faults::command::Faults),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match CommandLine::parse().command {
        Command::Faults(faults) => faults.run().await,
    }
}
