//! `quorate bench idle`, `memory`, `soak`, `accounts`, `growth`: how cost grows, and whether it stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::bench::scale::{self, Findings};
use crate::command::told_to_stop;
use crate::output::OutputOptions;

/// Each on clusters of its own, on loopback, with data in a temporary folder
#[derive(Debug, Subcommand)]
pub enum Scale {
    Idle(Idle),
    Memory(Memory),
    Soak(Soak),
    Accounts(Accounts),
    Growth(Growth),
}

/// Memory of processes that do nothing, freshly started and after work. Takes two minutes
#[derive(Debug, Args)]
pub struct Idle {
    /// Seconds of chat requests
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    duration: u32,
    /// Reservations to make, and to wait for until they are forgotten; 0: none, and no wait
    #[arg(long, default_value_t = 200_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(0..=2_000_000))]
    reservations: u64,
    #[command(flatten)]
    to: To,
}

/// Bytes of an open reservation, an idle tenant, an account, an open stream. Takes under three minutes
#[derive(Debug, Args)]
pub struct Memory {
    /// Reservations to make; tenants and accounts are twice as many
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    items: u64,
    /// Streams to hold open at a gateway, as far as `ulimit -n` allows
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(4..=4_000))]
    streams: u32,
    #[command(flatten)]
    to: To,
}

/// Half load for a long time, with windows that roll over and snapshots: does anything grow?
#[derive(Debug, Args)]
pub struct Soak {
    #[arg(long, default_value_t = 30.0, value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,
    /// Operations of sessions a second [default: a quarter of the most, found in a short run]
    #[arg(long, value_name = "PER_SECOND", value_parser = crate::command::bench::positive)]
    rate: Option<f64>,
    /// Chat requests a second [default: a quarter of the most, found in a short run]
    #[arg(long, value_name = "PER_SECOND", value_parser = crate::command::bench::positive)]
    chat_rate: Option<f64>,
    #[command(flatten)]
    to: To,
}

/// Three nodes full of accounts: memory, snapshots and those who work meanwhile, start-up
#[derive(Debug, Args)]
pub struct Accounts {
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    accounts: u64,
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tenants: u64,
    /// Log entries between snapshots, on every node
    #[arg(long, default_value_t = 20_000, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    snapshot_every: u64,
    /// Seconds of a steady load, with snapshots meanwhile
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    steady: u32,
    #[command(flatten)]
    to: To,
}

/// Throughput, latency and CPU time with more gateways, tenants, nodes, and budgets of a request. Takes four minutes
#[derive(Debug, Args)]
pub struct Growth {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    duration: u32,
    /// Tenants of the largest step
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tenants: u64,
    #[command(flatten)]
    to: To,
}

/// Where the findings go.
#[derive(Debug, Args)]
struct To {
    /// Also write them here: JSON, and a plot in SVG for each curve
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.02..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("wanted: minutes, 0.02 to 10000".to_owned()),
    }
}

impl Scale {
    /// # Errors
    /// What the program says; or it was interrupted.
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Idle(idle) => {
                let duration = Duration::from_secs(idle.duration.into());
                let program = scale::Idle { duration, reservations: idle.reservations };
                idle.to.show(program.run(progress)).await
            }
            Self::Memory(memory) => {
                let streams = usize::try_from(memory.streams)?;
                let program = scale::Memory { items: memory.items, streams };
                memory.to.show(program.run(progress)).await
            }
            Self::Soak(soak) => {
                let program = scale::Soak {
                    duration: Duration::from_secs_f64(soak.minutes * 60.0),
                    rate: soak.rate,
                    chat_rate: soak.chat_rate,
                    lines: soak.to.save.as_deref().map(|folder: &Path| folder.join("soak.jsonl")),
                };
                soak.to.show(program.run(progress)).await
            }
            Self::Accounts(accounts) => {
                let program = scale::Accounts {
                    accounts: accounts.accounts,
                    tenants: accounts.tenants.min(accounts.accounts),
                    snapshot_every: accounts.snapshot_every,
                    steady: Duration::from_secs(accounts.steady.into()),
                };
                accounts.to.show(program.run(progress)).await
            }
            Self::Growth(growth) => {
                let duration = Duration::from_secs(growth.duration.into());
                let program = scale::Growth { duration, tenants_max: growth.tenants };
                growth.to.show(program.run(progress)).await
            }
        }
    }
}

fn progress(what: &str) {
    eprintln!("{what}");
}

impl To {
    async fn show<F: Findings>(&self, program: impl Future<Output = Result<F>>) -> Result<()> {
        let found = tokio::select! {
            found = program => found?,
            told = told_to_stop() => return told.and_then(|()| bail!("interrupted")),
        };
        if let Some(folder) = &self.save {
            scale::save(&found, folder)?;
        }
        self.output.print(&found, || found.table())?;
        found.notes().iter().for_each(|note| eprintln!("{note}"));
        Ok(())
    }
}
