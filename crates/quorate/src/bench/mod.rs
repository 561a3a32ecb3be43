//! `quorate bench`: how fast the budget service and a gateway are, and what an operation costs.
//!
//! Loads on one side (`load`, `budget`, `http`), a cluster of its own on the other (`cluster`), a report at the end. What
//! takes longer and asks how cost grows: `scale`.
//! Deliberately absent: judgement. No figure here fails a test.

mod budget;
mod cluster;
mod http;
mod lease;
mod load;
mod process;
mod redis;
mod report;
mod rls;
pub mod scale;
mod tenants;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use quorate_rpc::tls::Security;

pub use self::load::{Load, Watched};
pub use self::process::Process;
pub use self::redis::RedisPlan;
pub use self::report::{Report, Row};
pub use self::rls::RlsPlan;

use self::budget::BudgetWork;
use self::cluster::Cluster;
use self::http::ChatWork;
use self::lease::{LeaseWork, SharedLeaseWork};
use self::load::Work;
use self::redis::RedisWork;
use self::rls::RlsWork;

/// Clients that reserve beside those that lease: as many as reservations gain from.
const LEASE_RESERVING: usize = 2_048;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Reserve and settle over session streams, as gateways do it.
    Session,
    /// The same, one gRPC call each.
    Unary,
    /// Chat requests through a gateway.
    Gateway,
    /// The same straight to the provider.
    Provider,
}

/// Where the load goes.
#[derive(Debug, Clone)]
pub struct Place {
    pub nodes: Vec<String>,
    pub security: Security,
    pub gateway: String,
    pub provider: String,
    pub budget: String,
}

/// How the load is made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub load: Load,
    pub sessions: usize,
    pub tenants: usize,
    pub stream: bool,
}

/// Where to measure: somebody's deployment, or one of the benchmark's own.
#[derive(Debug)]
pub enum Deployment {
    Own(Box<Cluster>),
    /// And those of its processes whose CPU time is told.
    Theirs(Place, Watched),
}

impl Deployment {
    /// # Errors
    /// A process of it cannot be started.
    pub async fn own() -> Result<Self> {
        Ok(Self::Own(Box::new(Cluster::start().await?)))
    }

    pub async fn stop(self) {
        if let Self::Own(cluster) = self {
            cluster.stop().await;
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Theirs(place, _) => place.clone(),
            Self::Own(cluster) => cluster.place(),
        }
    }

    fn watched(&self) -> Watched {
        match self {
            Self::Theirs(_, watched) => watched.clone(),
            Self::Own(cluster) => cluster.watched(),
        }
    }

    /// One measurement.
    ///
    /// # Errors
    /// Nothing at all succeeded; the message says what went wrong first.
    pub async fn measure(&self, target: Target, plan: &Plan) -> Result<Row> {
        let place = self.place();
        match target {
            Target::Session => {
                let work = BudgetWork::sessions(&place, plan.sessions, plan.tenants)?;
                self.row("budget service, session", work, plan).await
            }
            Target::Unary => {
                let work = BudgetWork::unary(&place, plan.sessions, plan.tenants).await?;
                self.row("budget service, unary", work, plan).await
            }
            Target::Gateway => {
                let work = ChatWork::new(&place.gateway, plan.stream, plan.tenants)?;
                self.row(if plan.stream { "gateway, streams" } else { "gateway" }, work, plan).await
            }
            Target::Provider => {
                let work = ChatWork::new(&place.provider, plan.stream, plan.tenants)?;
                self.row(if plan.stream { "provider, streams" } else { "provider" }, work, plan).await
            }
        }
    }

    /// Calls of a rate limit service, whoever's it is.
    ///
    /// # Errors
    /// As for [`Deployment::measure`].
    pub async fn measure_rls(&self, rls: RlsPlan, plan: &Plan) -> Result<Row> {
        self.row("rate limit service", RlsWork::new(rls)?, plan).await
    }

    /// Counters in a Redis, several operations in a pipeline.
    ///
    /// # Errors
    /// As for [`Deployment::measure`].
    pub async fn measure_redis(&self, redis: &RedisPlan, plan: &Plan) -> Result<Row> {
        let row = self.row("redis, INCRBY and EXPIRE", RedisWork::new(redis), plan).await?;
        Ok(row.of_several(redis.pipeline))
    }

    async fn row<W: Work>(&self, name: &str, work: W, plan: &Plan) -> Result<Row> {
        let measured = load::run(Arc::new(work), plan.load, &self.watched()).await?;
        let row = Row::new(name, measured);
        match &row.first_error {
            Some(error) if row.operations == 0 => bail!("{name}: no operation succeeded; the first: {error}"),
            _ => Ok(row),
        }
    }

    /// # Errors
    /// The deployment is not the benchmark's own: nobody wants tens of thousands of tenants left in theirs.
    pub async fn weigh_tenants(&self, tenants: u64) -> Result<Report> {
        let Self::Own(cluster) = self else {
            bail!("`bench tenants` makes tenants that stay; it runs on a cluster of its own only");
        };
        let idle_tenants = Some(tenants::weigh(cluster, tenants).await?);
        Ok(Report { idle_tenants, ..Report::default() })
    }

    /// Reservations of many tenants, reservations of one account, and the same account through leases.
    ///
    /// # Errors
    /// As for the single measurements; or the ledger does not show what was settled.
    pub async fn measure_leases(&self, plan: &Plan, progress: impl Fn(&str)) -> Result<Report> {
        let Self::Own(cluster) = self else {
            bail!("`bench lease` charges a budget of its own; it runs on a cluster of its own only");
        };
        let mut report = Report::default();
        let reservations = |tenants| {
            let load = Load { clients: LEASE_RESERVING, ..plan.load };
            Plan { load, tenants, ..plan.clone() }
        };
        for (name, tenants) in
            [("budget service, session", plan.tenants), ("budget service, session, one account", 1)]
        {
            progress(name);
            let plan = reservations(tenants);
            let work = BudgetWork::sessions(&cluster.place(), plan.sessions, plan.tenants)?;
            report.rows.push(self.row(name, work, &plan).await?);
        }
        progress("leases, one account");
        let work = LeaseWork::new(&cluster.place())?;
        let row = self.row("leases, one account", SharedLeaseWork(Arc::clone(&work)), plan).await?;
        report.rows.push(row);
        let check = work.finish().await?;
        if !check.is_exact() {
            bail!("the ledger does not show what was settled: {check:?}");
        }
        report.leases = Some(check);
        Ok(report)
    }

    /// Every comparison, one after the other.
    ///
    /// # Errors
    /// As for the single measurements.
    pub async fn measure_all(
        &self,
        duration: Duration,
        tenants: u64,
        progress: impl Fn(&str),
    ) -> Result<Report> {
        let mut report = Report::default();
        for (target, plan) in suite(duration) {
            progress(&plan.describe(target));
            report.rows.push(self.measure(target, &plan).await?);
        }
        let median = |target: &str| {
            let alone = report.rows.iter().find(|row| row.target == target && row.clients == 1);
            alone.and_then(|row| i64::try_from(row.p50_micros).ok())
        };
        report.gateway_adds_micros =
            median("gateway").zip(median("provider")).map(|(with, without)| with - without);
        progress(&format!("{tenants} idle tenants"));
        report.idle_tenants = self.weigh_tenants(tenants).await?.idle_tenants;
        Ok(report)
    }
}

impl Plan {
    fn describe(&self, target: Target) -> String {
        let Load { clients, rate, duration, .. } = self.load;
        let how = rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop, {rate}/s"));
        let stream = if self.stream { ", streams" } else { "" };
        format!("{target:?}{stream}: {how}, {clients} clients, {} s", duration.as_secs_f64())
    }
}

/// From one client alone to as many as there is anything to gain from; then a rate that the target surely carries, for
/// latencies that say something.
fn suite(duration: Duration) -> Vec<(Target, Plan)> {
    let plan = |clients, rate, stream| Plan {
        load: Load { clients, rate, duration, warm_up: Duration::from_secs(1), operations_max: None },
        sessions: 4,
        tenants: 64,
        stream,
    };
    vec![
        (Target::Session, plan(1, None, false)),
        (Target::Session, plan(512, None, false)),
        (Target::Session, plan(2_048, None, false)),
        (Target::Session, plan(2_048, Some(20_000.0), false)),
        (Target::Unary, plan(64, None, false)),
        (Target::Provider, plan(1, None, false)),
        (Target::Gateway, plan(1, None, false)),
        (Target::Provider, plan(1, None, true)),
        (Target::Gateway, plan(1, None, true)),
        (Target::Provider, plan(64, None, false)),
        (Target::Gateway, plan(64, None, false)),
        (Target::Provider, plan(256, Some(500.0), false)),
        (Target::Gateway, plan(256, Some(500.0), false)),
    ]
}
