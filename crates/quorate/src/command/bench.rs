//! `quorate bench`: measures, prints, and stops by itself.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::bench::{Deployment, Load, Place, Plan, Report, Row, Target};
use crate::command::bench_peer::PeerOptions;
use crate::command::bench_scale::Scale;
use crate::command::{TlsOptions, told_to_stop};
use crate::output::OutputOptions;

/// Measure throughput, latency and CPU per operation
///
/// Without a target: starts a cluster of its own (three nodes, a gateway, a simulated provider; processes on loopback, data
/// in a temporary folder) and compares everything. Takes about two minutes.
///
/// Examples:
///   quorate bench
///   quorate bench session --clients 512 --duration 10
///   quorate bench lease --duration 10
///   quorate bench gateway --rate 200 --gateway http://10.0.0.9:8080/v1
///   quorate bench tenants --tenants 10000
///   quorate bench rls --target 127.0.0.1:8091 --clients 256 --sessions 8
///   quorate bench redis --target 127.0.0.1:6379 --clients 50 --pipeline 16
///   quorate bench soak --minutes 30 --save findings
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    scale: Option<Scale>,
    /// What to measure; nothing: everything
    target: Option<What>,
    /// Clients that work at the same time [default: 512 for session, 8 for lease, 64 otherwise]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Option<u32>,
    /// Open loop: operations a second, due whatever the answers do; latency counts from when one was due
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    rate: Option<f64>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    duration: u32,
    /// End after so many operations, if that is earlier
    #[arg(long, value_name = "COUNT")]
    requests: Option<u64>,
    /// Tenants that the load is spread over; for `tenants`: how many to make
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tenants: Option<u32>,
    /// Session streams, or connections for unary calls
    #[arg(long, default_value_t = 4, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    sessions: u32,
    /// Streamed answers, for `gateway` and `provider`
    #[arg(long)]
    stream: bool,
    /// For `session` and `unary`: these nodes instead of a cluster of its own
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    nodes: Vec<String>,
    #[command(flatten)]
    tls: TlsOptions,
    /// With --nodes: a budget without subject, in their policy, that is charged
    #[arg(long, default_value = "bench", value_name = "NAME")]
    budget: String,
    /// For `gateway`: this one, as http://host:port/v1
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// For `provider`: this one, as http://host:port/v1
    #[arg(long, value_name = "URL")]
    provider: Option<String>,
    #[command(flatten)]
    peer: PeerOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Reserve and settle over session streams, as gateways do it
    Session,
    /// The same with one gRPC call each
    Unary,
    /// Chat requests through a gateway
    Gateway,
    /// The same chat requests straight to the provider
    Provider,
    /// Reservations of one account taken from slices, beside reservations of the cluster
    Lease,
    /// Memory of the nodes before and after many tenants were made
    Tenants,
    /// Calls of Envoy's rate limit service, whoever serves it
    Rls,
    /// Counters in a Redis: INCRBY and EXPIRE for each operation
    Redis,
}

fn one(row: Row) -> Report {
    Report { rows: vec![row], ..Report::default() }
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err("wanted: a number above 0, at most 10000000".to_owned()),
    }
}

impl Bench {
    pub async fn run(self) -> Result<()> {
        if let Some(scale) = self.scale {
            return scale.run().await;
        }
        let deployment = match self.theirs()? {
            Some(place) => Deployment::Theirs(place, self.peer.watched()),
            None => {
                eprintln!("starting three nodes, a gateway and a simulated provider");
                Deployment::own().await?
            }
        };
        let measured = tokio::select! {
            measured = self.measure(&deployment) => measured,
            told = told_to_stop() => told.and_then(|()| bail!("interrupted")),
        };
        deployment.stop().await;
        let report = measured?;
        self.output.print(&report, || report.table())?;
        for note in report.notes() {
            eprintln!("{note}");
        }
        Ok(())
    }

    async fn measure(&self, deployment: &Deployment) -> Result<Report> {
        let duration = Duration::from_secs(self.duration.into());
        let idle_tenants = u64::from(self.tenants.unwrap_or(10_000));
        let plan = self.plan()?;
        let target = match self.target {
            None => {
                let progress = |what: &str| eprintln!("{what}");
                return deployment.measure_all(duration, idle_tenants, progress).await;
            }
            Some(What::Tenants) => return deployment.weigh_tenants(idle_tenants).await,
            Some(What::Lease) => {
                return deployment.measure_leases(&plan, |what| eprintln!("{what}")).await;
            }
            Some(What::Rls) => {
                let rls = self.peer.rls(self.tls.security()?, plan.sessions)?;
                return Ok(one(deployment.measure_rls(rls, &plan).await?));
            }
            Some(What::Redis) => {
                return Ok(one(deployment.measure_redis(&self.peer.redis()?, &plan).await?));
            }
            Some(What::Session) => Target::Session,
            Some(What::Unary) => Target::Unary,
            Some(What::Gateway) => Target::Gateway,
            Some(What::Provider) => Target::Provider,
        };
        Ok(one(deployment.measure(target, &plan).await?))
    }

    fn plan(&self) -> Result<Plan> {
        let clients = self.clients.unwrap_or(match self.target {
            Some(What::Lease) => 8,
            Some(What::Session) => 512,
            _ => 64,
        });
        let load = Load {
            clients: usize::try_from(clients)?,
            rate: self.rate,
            duration: Duration::from_secs(self.duration.into()),
            warm_up: Duration::from_secs(1),
            operations_max: self.requests,
        };
        let tenants = usize::try_from(self.tenants.unwrap_or(64))?;
        Ok(Plan { load, sessions: usize::try_from(self.sessions)?, tenants, stream: self.stream })
    }

    /// The deployment that the options name, if they name one.
    fn theirs(&self) -> Result<Option<Place>> {
        let named = match self.target {
            Some(What::Session | What::Unary) => !self.nodes.is_empty(),
            Some(What::Gateway) => self.gateway.is_some(),
            Some(What::Provider) => self.provider.is_some(),
            Some(What::Rls | What::Redis) => true,
            Some(What::Tenants | What::Lease) | None => false,
        };
        let any = !self.nodes.is_empty() || self.gateway.is_some() || self.provider.is_some();
        if any && !named {
            bail!(
                "--nodes goes with `bench session` and `bench unary`, --gateway with `bench gateway`, --provider with `bench provider`"
            );
        }
        if !named && self.peer.is_watching() {
            bail!(
                "--watch goes with somebody else's deployment; the processes of the benchmark's own are watched anyway"
            );
        }
        if !named {
            return Ok(None);
        }
        Ok(Some(Place {
            nodes: self.nodes.clone(),
            security: self.tls.security()?,
            gateway: self.gateway.clone().unwrap_or_default(),
            provider: self.provider.clone().unwrap_or_default(),
            budget: self.budget.clone(),
        }))
    }
}
