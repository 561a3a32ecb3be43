//! The command line: one file per command.

mod adjust;
mod apply;
mod backup;
mod bench;
mod bench_peer;
mod bench_scale;
mod cert_files;
mod certs;
mod check;
mod describe;
pub mod dev;
mod dev_backends;
mod drain;
mod explain;
mod gateway;
mod get;
mod history;
mod keys;
mod manifest_files;
mod mock_provider;
mod node;
mod nodes;
mod restore;
mod tables;
mod transfer_leader;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use quorate_rpc::tls::{Names, Security, TlsFiles};
use quorate_rpc::{Admin, Client, ClientConfig, ClientError};
use tonic::Code;

use crate::logging::{self, LogOptions};

/// One gateway to every LLM provider, with token and dollar budgets that hold exactly, on any number of machines.
///
/// Try it: `quorate dev`, then `quorate get accounts` and `quorate get providers`.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by the cluster (nothing was changed)";
/// As shells say it: 128 and the signal's number.
const INTERRUPTED: i32 = 130;
/// The cluster has understood and said no.
const REFUSED: u8 = 3;

/// What the process ends with after this error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Rejected { code, .. }) if !matches!(code, Code::Internal | Code::Unimplemented) => {
            ExitCode::from(REFUSED)
        }
        _ => ExitCode::FAILURE,
    }
}

/// What to look at next, where the error itself cannot say.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let unreachable = matches!(error.downcast_ref(), Some(ClientError::Unavailable { .. }));
    unreachable.then_some("does a cluster run there? `--nodes HOST:PORT,…` or QUORATE_NODES say where it is")
}

/// What each is for, and examples: at its own type.
#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Node(node::RunNode),
    Nodes(nodes::Nodes),
    Gateway(gateway::RunGateway),
    MockProvider(mock_provider::RunMockProvider),
    Apply(apply::Apply),
    Diff(apply::Diff),
    Delete(apply::Delete),
    Validate(validate::Validate),
    Explain(explain::Explain),
    Get(get::Get),
    Describe(describe::Describe),
    Adjust(adjust::Adjust),
    Keys(keys::Keys),
    History(history::History),
    Rollback(history::Rollback),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
    TransferLeader(transfer_leader::TransferLeader),
    Certs(certs::Certs),
    Backup(backup::RunBackup),
    Restore(restore::Restore),
    Check(check::Check),
    Bench(bench::Bench),
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
    /// Who makes a change, for the audit log [default: $USER, or else "unknown"]
    #[arg(long = "by", env = "QUORATE_BY", value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    tls: TlsOptions,
}

/// Where the nodes speak TLS: all three
#[derive(Debug, Clone, Args)]
pub struct TlsOptions {
    /// Certificates of the authorities that are believed, in PEM
    #[arg(long, env = "QUORATE_TLS_CA", value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// Your certificate, in PEM; it says who you are and what you may do
    #[arg(long, env = "QUORATE_TLS_CERT", value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, env = "QUORATE_TLS_KEY", value_name = "FILE", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

impl TlsOptions {
    /// # Errors
    /// The files cannot be used.
    pub fn security(&self) -> Result<Security> {
        let (Some(ca), Some(cert), Some(key)) = (&self.tls_ca, &self.tls_cert, &self.tls_key) else {
            return Ok(Security::Plain);
        };
        let files = TlsFiles { ca_file: ca.clone(), cert_file: cert.clone(), key_file: key.clone() };
        Ok(Security::mutual(files.named(Names::COMMAND_LINE))?)
    }
}

impl ClusterOptions {
    /// # Errors
    /// The TLS files cannot be used.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(ClientConfig {
            name: "cli".to_owned(),
            nodes: self.nodes.clone(),
            operation_timeout_ms: 5_000,
            security: self.tls.security()?,
        }))
    }

    /// # Errors
    /// The TLS files cannot be used.
    pub fn admin(&self) -> Result<Admin> {
        Ok(self.admin_of(&self.client()?))
    }

    /// The admin calls of a client that is there already.
    pub fn admin_of(&self, client: &Client) -> Admin {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        match self.by.clone().or_else(user) {
            Some(by) => client.admin().acting_as(&by),
            None => client.admin(),
        }
    }
}

impl Cli {
    /// # Errors
    /// What the command says.
    pub async fn run(self) -> Result<()> {
        if let Command::Dev(command) = self.command {
            // Decides itself where its log goes.
            return command.run(self.log).await;
        }
        logging::start(&self.log)?;
        match self.command {
            Command::Dev(_) => Ok(()),
            Command::Node(command) => command.run().await,
            Command::Nodes(command) => command.run().await,
            Command::Gateway(command) => command.run().await,
            Command::MockProvider(command) => command.run().await,
            Command::Apply(command) => command.run().await,
            Command::Diff(command) => command.run().await,
            Command::Delete(command) => command.run().await,
            Command::Validate(command) => command.run(),
            Command::Explain(command) => command.run().await,
            Command::Get(command) => command.run().await,
            Command::Describe(command) => command.run().await,
            Command::Adjust(command) => command.run().await,
            Command::Keys(command) => command.run().await,
            Command::History(command) => command.run().await,
            Command::Rollback(command) => command.run().await,
            Command::Drain(command) => command.run().await,
            Command::Undrain(command) => command.run().await,
            Command::TransferLeader(command) => command.run().await,
            Command::Certs(command) => command.run(),
            Command::Backup(command) => command.run().await,
            Command::Restore(command) => command.run().await,
            Command::Check(command) => command.run().await,
            Command::Bench(command) => command.run().await,
        }
    }
}

/// How a server is told to stop, beside Ctrl-C and SIGTERM.
#[derive(Debug, Clone, Args)]
pub struct StopOptions {
    /// Stop when standard input closes: for programs that start this one and must not leave it behind
    #[arg(long)]
    stop_at_eof: bool,
}

impl StopOptions {
    /// # Errors
    /// The signals cannot be listened to.
    pub async fn told_to_stop(&self) -> Result<()> {
        if !self.stop_at_eof {
            return told_to_stop().await;
        }
        let (sender, closed) = tokio::sync::oneshot::channel();
        // Not on the runtime: a read from a terminal cannot be cancelled, and would hold up the end.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = sender.send(());
        });
        tokio::select! {
            told = told_to_stop() => told,
            _ = closed => Ok(()),
        }
    }
}

/// Ctrl-C or SIGTERM. A second Ctrl-C, while things are being stopped, ends the process at once.
///
/// # Errors
/// The signals cannot be listened to.
pub async fn told_to_stop() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopped at once");
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}
