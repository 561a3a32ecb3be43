//! `quorate bench growth`: one thing is doubled again and again, the rest stays: gateways, tenants, nodes, budgets of a
//! request. A closed loop each, so the rate is the most that the machine gives; CPU time by role says what would remain on
//! machines of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use comfy_table::Table;
use serde::Serialize;

use crate::bench::cluster::{Cluster, Shape};
use crate::bench::http::{Caller, ChatWork};
use crate::bench::load::{self, Load, Watched, Work};
use crate::bench::process::{self, Process};
use crate::bench::report::Machine;
use crate::bench::scale::plot::{Plot, Series};
use crate::bench::scale::walk::{Walk, policy};
use crate::bench::scale::{Findings, watch};
use crate::output;

const SESSIONS: usize = 4;
const CLIENTS: usize = 1_024;
const CHAT_CLIENTS: usize = 64;
const TENANTS: u64 = 64;
const BUDGETS_MAX: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const AT_ONCE: u64 = 256;

#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Of each measurement.
    pub duration: Duration,
    /// Up to so many tenants.
    pub tenants_max: u64,
}

#[derive(Debug, Serialize)]
pub struct GrowthFound {
    pub machine: Machine,
    pub points: Vec<Point>,
    pub seconds: f64,
}

/// One measurement. CPU time, bytes and flushes are for each operation; an operation is a Reserve, a Settle, or, of a
/// gateway, a chat request with both.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub sweep: &'static str,
    pub value: u64,
    pub operations_per_second: f64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub errors: u64,
    pub leader_cpu_micros: Option<f64>,
    /// Of one follower.
    pub follower_cpu_micros: Option<f64>,
    /// All gateways together.
    pub gateway_cpu_micros: Option<f64>,
    /// The leader's.
    pub flushes: Option<f64>,
    /// What the leader sent to its disk.
    pub disk_bytes: Option<f64>,
    /// Over loopback, all hops together.
    pub wire_bytes: Option<f64>,
}

/// What is read before and after a measurement.
#[derive(Debug)]
struct Meters {
    leader: Option<Duration>,
    followers: Option<Duration>,
    gateways: Option<Duration>,
    flushes: Option<f64>,
    disk_bytes: Option<u64>,
    wire_bytes: Option<u64>,
}

/// Chat requests over several gateways.
#[derive(Debug)]
struct Fleet(Vec<ChatWork>);

impl Work for Fleet {
    type Client = (usize, Caller);

    fn client(&self, number: usize) -> Self::Client {
        let gateway = number % self.0.len();
        (gateway, self.0[gateway].client(number))
    }

    async fn step(&self, (gateway, caller): &mut Self::Client) -> Result<(), String> {
        self.0[*gateway].step(caller).await
    }
}

impl Growth {
    /// # Errors
    /// A cluster does not start, or nothing succeeds.
    pub async fn run(self, progress: impl Fn(&str)) -> Result<GrowthFound> {
        let started = Instant::now();
        let mut points = Vec::new();
        let names: Vec<String> = (1..=BUDGETS_MAX).map(|number| format!("bench-{number}")).collect();
        let cluster = start(3, 0, &names).await?;
        for sessions in [1, 2, 4, 8, 16, 32, 64] {
            progress(&format!("sessions: {sessions}"));
            let work = Walk::new(&cluster, sessions, names[..1].to_vec()).over(TENANTS, 1);
            points.push(self.measure(&cluster, "sessions", sessions as u64, Arc::new(work), CLIENTS).await?);
        }
        for budgets in [1, 2, 4, 8, 16, 32] {
            progress(&format!("budgets on a request: {budgets}"));
            let work = Walk::new(&cluster, SESSIONS, names[..budgets].to_vec()).over(TENANTS, 1);
            points.push(self.measure(&cluster, "budgets", budgets as u64, Arc::new(work), CLIENTS).await?);
        }
        for tenants in (0..=5).map(|power| 10_u64.pow(power)).filter(|tenants| *tenants <= self.tenants_max) {
            progress(&format!("tenants: {tenants}"));
            let work = Arc::new(Walk::new(&cluster, SESSIONS, names[..1].to_vec()).over(tenants, 1));
            work.touch_all(0..tenants, AT_ONCE).await?;
            points.push(self.measure(&cluster, "tenants", tenants, work, CLIENTS).await?);
        }
        cluster.stop().await;
        for nodes in [3, 5, 7] {
            progress(&format!("nodes: {nodes}"));
            let cluster = start(nodes, 0, &names[..1]).await?;
            let work = Walk::new(&cluster, SESSIONS, names[..1].to_vec()).over(TENANTS, 1);
            points.push(self.measure(&cluster, "nodes", nodes as u64, Arc::new(work), CLIENTS).await?);
            cluster.stop().await;
        }
        let cluster = start(3, 8, &names[..1]).await?;
        for gateways in [1, 2, 4, 8] {
            progress(&format!("gateway processes: {gateways}"));
            let works = cluster.gateways[..gateways].iter();
            let works = works.map(|gateway| ChatWork::new(gateway, false, 64)).collect::<Result<_>>()?;
            let work = Arc::new(Fleet(works));
            points.push(self.measure(&cluster, "gateways", gateways as u64, work, CHAT_CLIENTS).await?);
        }
        cluster.stop().await;
        Ok(GrowthFound { machine: Machine::default(), points, seconds: started.elapsed().as_secs_f64() })
    }

    async fn measure<W: Work>(
        self,
        cluster: &Cluster,
        sweep: &'static str,
        value: u64,
        work: Arc<W>,
        clients: usize,
    ) -> Result<Point> {
        let load =
            |duration| Load { clients, rate: None, duration, warm_up: Duration::ZERO, operations_max: None };
        load::run(work.clone(), load(WARM_UP), &Watched::default()).await?;
        let leader = watch::leader(cluster).await?;
        let before = Meters::read(cluster, leader).await;
        let measured = load::run(work, load(self.duration), &Watched::default()).await?;
        let after = Meters::read(cluster, leader).await;
        let operations = measured.latency.len();
        if let (0, Some(error)) = (operations, &measured.first_error) {
            anyhow::bail!("{sweep} {value}: no operation succeeded; the first: {error}");
        }
        // Those that ended after the measurement have cost too: they are few.
        let each = |value: Option<f64>| Some(value? / operations.max(1) as f64);
        let micros = |from: Option<Duration>, to: Option<Duration>| {
            Some(to?.saturating_sub(from?).as_secs_f64() * 1e6)
        };
        let bytes = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?) as f64);
        let followers = cluster.nodes.len().saturating_sub(1).max(1) as f64;
        Ok(Point {
            sweep,
            value,
            operations_per_second: operations as f64 / measured.seconds.max(f64::EPSILON),
            p50_micros: measured.latency.value_at_quantile(0.5),
            p99_micros: measured.latency.value_at_quantile(0.99),
            errors: measured.errors,
            leader_cpu_micros: each(micros(before.leader, after.leader)),
            follower_cpu_micros: each(micros(before.followers, after.followers)).map(|all| all / followers),
            gateway_cpu_micros: each(micros(before.gateways, after.gateways)),
            flushes: each(before.flushes.zip(after.flushes).map(|(before, after)| after - before)),
            disk_bytes: each(bytes(before.disk_bytes, after.disk_bytes)),
            wire_bytes: each(bytes(before.wire_bytes, after.wire_bytes)),
        })
    }
}

async fn start(nodes: usize, gateways: usize, budgets: &[String]) -> Result<Cluster> {
    let policy = policy(budgets.iter().map(String::as_str), "window: Year");
    let shape = Shape { nodes, gateways, policy, ..Shape::default() };
    Cluster::start_as(&shape).await.with_context(|| format!("{nodes} nodes and {gateways} gateways"))
}

impl Meters {
    async fn read(cluster: &Cluster, leader: usize) -> Self {
        let Watched { mut nodes, gateways, .. } = cluster.watched();
        let of = |processes: &[Process]| if processes.is_empty() { None } else { process::cpu(processes) };
        let flushes = watch::figures(cluster.nodes_http[leader]).await.ok();
        let leader = nodes.remove(leader);
        Self {
            leader: leader.cpu(),
            followers: of(&nodes),
            gateways: of(&gateways),
            flushes: flushes.and_then(|figures| figures.get("quorate_node_log_flushes_total").copied()),
            disk_bytes: leader.written_bytes(),
            wire_bytes: watch::loopback_bytes(),
        }
    }
}

impl GrowthFound {
    fn sweeps(&self) -> Vec<&'static str> {
        let mut sweeps: Vec<_> = self.points.iter().map(|point| point.sweep).collect();
        sweeps.dedup();
        sweeps
    }

    fn line(&self, sweep: &str, name: &str, part: impl Fn(&Point) -> Option<f64>) -> Series {
        let of_sweep = self.points.iter().filter(|point| point.sweep == sweep);
        let points = of_sweep.filter_map(|point| Some((point.value as f64, part(point)?))).collect();
        Series { name: name.to_owned(), points }
    }
}

impl Findings for GrowthFound {
    const NAME: &'static str = "growth";

    fn table(&self) -> Table {
        let mut table = output::table(&[
            "SWEEP",
            "VALUE",
            "OPS/S",
            "P50",
            "P99",
            "ERRORS",
            "CPU µs/OP: LEADER",
            "A FOLLOWER",
            "GATEWAYS",
            "FLUSHES/OP",
            "DISK B/OP",
            "WIRE B/OP",
        ]);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for point in &self.points {
            table.add_row([
                point.sweep.to_owned(),
                point.value.to_string(),
                format!("{:.0}", point.operations_per_second),
                format!("{:.2} ms", point.p50_micros as f64 / 1e3),
                format!("{:.2} ms", point.p99_micros as f64 / 1e3),
                point.errors.to_string(),
                number(point.leader_cpu_micros, 1),
                number(point.follower_cpu_micros, 1),
                number(point.gateway_cpu_micros, 1),
                number(point.flushes, 4),
                number(point.disk_bytes, 0),
                number(point.wire_bytes, 0),
            ]);
        }
        table
    }

    fn notes(&self) -> Vec<String> {
        vec![
            format!("{} CPUs, {}; took {:.0} s", self.machine.cpus, self.machine.model, self.seconds),
            "sessions are session streams as gateways hold them, all from this process; gateways are processes, with chat requests".to_owned(),
        ]
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let plot = |sweep: &str, what: &str, y_label: &str, series| {
            let text = |text: &str| text.to_owned();
            let plot = Plot {
                title: format!("{what}, by {sweep}"),
                x_label: text(sweep),
                y_label: text(y_label),
                x_log: true,
                series,
            };
            (format!("{sweep}-{}", y_label.split(' ').next().unwrap_or("y")), plot)
        };
        let mut plots = Vec::new();
        for sweep in self.sweeps() {
            let rate = self.line(sweep, "operations a second", |point| Some(point.operations_per_second));
            plots.push(plot(sweep, "Throughput", "rate a second", vec![rate]));
            let p50 = self.line(sweep, "p50", |point| Some(point.p50_micros as f64 / 1e3));
            let p99 = self.line(sweep, "p99", |point| Some(point.p99_micros as f64 / 1e3));
            plots.push(plot(sweep, "Latency", "latency ms", vec![p50, p99]));
            let leader = self.line(sweep, "leader", |point| point.leader_cpu_micros);
            let follower = self.line(sweep, "a follower", |point| point.follower_cpu_micros);
            plots.push(plot(sweep, "CPU time of an operation", "cpu µs", vec![leader, follower]));
        }
        plots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sweep_has_its_plots() {
        let point = |sweep, value| Point {
            sweep,
            value,
            operations_per_second: 1_000.0,
            p50_micros: 1_000,
            p99_micros: 9_000,
            errors: 0,
            leader_cpu_micros: Some(5.0),
            follower_cpu_micros: None,
            gateway_cpu_micros: None,
            flushes: None,
            disk_bytes: None,
            wire_bytes: None,
        };
        let points = vec![point("nodes", 3), point("nodes", 5), point("tenants", 1)];
        let found = GrowthFound { machine: Machine::default(), points, seconds: 1.0 };
        let names: Vec<String> = found.plots().into_iter().map(|(name, _)| name).collect();
        let wanted =
            ["nodes-rate", "nodes-latency", "nodes-cpu", "tenants-rate", "tenants-latency", "tenants-cpu"];
        assert_eq!(names, wanted);
        let (_, latency) = &found.plots()[1];
        assert_eq!(latency.series[1].points, [(3.0, 9.0), (5.0, 9.0)]);
    }
}
