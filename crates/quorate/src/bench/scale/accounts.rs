//! `quorate bench accounts`: three nodes full of accounts. What filling takes, what memory, what a snapshot takes and does
//! to those who work meanwhile, and how long a node, and the whole cluster, needs to be there again after a kill.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use comfy_table::Table;
use hdrhistogram::Histogram;
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{Consistency, ListAccountsRequest, ListNodesRequest};
use quorate_rpc::tls::Security;
use serde::Serialize;

use crate::bench::cluster::{Cluster, Shape};
use crate::bench::load::{self, Lap, Load, Watched};
use crate::bench::report::Machine;
use crate::bench::scale::snapshots::{Lookout, Written};
use crate::bench::scale::walk::{Walk, policy};
use crate::bench::scale::{Findings, mib, watch};
use crate::output;

const BUDGET: &str = "bench";
const SESSIONS: usize = 4;
const AT_ONCE: u64 = 512;
/// Of the steady load: operations a second, far below what the cluster can do.
const RATE: f64 = 4_000.0;
const CLIENTS: usize = 512;
const LAP: Duration = Duration::from_millis(200);
const BACK_WITHIN: Duration = Duration::from_secs(180);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub struct Accounts {
    pub accounts: u64,
    pub tenants: u64,
    /// Log entries between snapshots.
    pub snapshot_every: u64,
    /// Of the steady load.
    pub steady: Duration,
}

#[derive(Debug, Serialize)]
pub struct AccountsFound {
    pub machine: Machine,
    pub accounts: u64,
    pub tenants: u64,
    pub fill_seconds: f64,
    pub fill_operations_per_second: f64,
    /// Of each node: empty; filled, the reservations of the last minute still remembered; those forgotten.
    pub resident_empty_bytes: Vec<u64>,
    pub resident_filled_bytes: Vec<u64>,
    pub resident_at_rest_bytes: Vec<u64>,
    pub bytes_per_account: Vec<f64>,
    pub data_folder_bytes: Vec<u64>,
    pub snapshots: Vec<Written>,
    pub without_snapshot: Latency,
    pub during_snapshot: Latency,
    pub backup_seconds: f64,
    pub backup_bytes: u64,
    /// From the start of a follower that was killed until it has applied everything and answers.
    pub node_start_seconds: f64,
    pub node_started_resident_bytes: u64,
    /// From the start of three nodes that were killed until a reservation is granted.
    pub cluster_start_seconds: f64,
    pub seconds: f64,
}

/// Of a steady load.
#[derive(Debug, Default, Serialize)]
pub struct Latency {
    pub operations: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub p999_micros: u64,
    pub max_micros: u64,
}

impl Accounts {
    /// # Errors
    /// The cluster does not start, or not again, or an operation fails.
    pub async fn run(self, progress: impl Fn(&str)) -> Result<AccountsFound> {
        let started = Instant::now();
        let policy = policy([BUDGET], "window: Year, accountsMax: 1000000");
        let node_settings = format!("limits: {{snapshot_every_entries: {}}}\n", self.snapshot_every);
        let shape = Shape { gateways: 0, policy, node_settings, ..Shape::default() };
        let mut cluster = Cluster::start_as(&shape).await?;
        let nodes = cluster.watched().nodes;
        let folders: Vec<PathBuf> = (0..shape.nodes).map(|index| cluster.data_folder(index)).collect();
        let resident_empty_bytes = watch::resident_at_rest(&nodes).await?;
        let work = Walk::new(&cluster, SESSIONS, vec![BUDGET.to_owned()]);
        let subjects = self.accounts.div_ceil(self.tenants);
        let work = Arc::new(work.over(self.tenants, subjects));
        let accounts = self.tenants * subjects;

        progress(&format!("{accounts} accounts of {} tenants", self.tenants));
        let lookout = Lookout::start(&folders);
        let filling = Instant::now();
        work.touch_all(0..accounts, AT_ONCE).await?;
        let fill_seconds = filling.elapsed().as_secs_f64();
        let resident_filled_bytes = watch::resident_at_rest(&nodes).await?;

        progress(&format!(
            "{RATE} operations a second for {} s, on all of them in turn",
            self.steady.as_secs()
        ));
        let laps = steady(&work, self.steady).await?;
        let snapshots = lookout.stop();
        let (during_snapshot, without_snapshot) = split(&laps, &snapshots)?;
        progress("until all reservations are forgotten");
        work.wait_until_forgotten(accounts + (RATE * self.steady.as_secs_f64()) as u64).await?;
        let resident_at_rest_bytes = watch::resident_at_rest(&nodes).await?;
        let each = |(rest, empty): (&u64, &u64)| rest.saturating_sub(*empty) as f64 / accounts as f64;
        let bytes_per_account = resident_at_rest_bytes.iter().zip(&resident_empty_bytes).map(each).collect();
        let data_folder_bytes = folders.iter().map(|folder| watch::disk_bytes(folder)).collect();

        progress("a backup");
        let (backup_seconds, backup_bytes) = back_up(&cluster).await?;
        progress("a follower, killed and started again");
        let follower = (watch::leader(&cluster).await? + 1) % shape.nodes;
        let node_start_seconds = restart_node(&mut cluster, follower).await?;
        let node_started = [cluster.watched().nodes[follower]];
        let node_started_resident_bytes = watch::resident_at_rest(&node_started).await?[0];
        progress("all nodes, killed and started again");
        let cluster_start_seconds = restart_all(&mut cluster, shape.nodes).await?;
        cluster.stop().await;
        Ok(AccountsFound {
            machine: Machine::default(),
            accounts,
            tenants: self.tenants,
            fill_seconds,
            fill_operations_per_second: 2.0 * accounts as f64 / fill_seconds,
            resident_empty_bytes,
            resident_filled_bytes,
            resident_at_rest_bytes,
            bytes_per_account,
            data_folder_bytes,
            snapshots,
            without_snapshot,
            during_snapshot,
            backup_seconds,
            backup_bytes,
            node_start_seconds,
            node_started_resident_bytes,
            cluster_start_seconds,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Each lap with its beginning and end.
async fn steady(work: &Arc<Walk>, duration: Duration) -> Result<Vec<(Instant, Instant, Lap)>> {
    let mut laps = Vec::new();
    let warm_up = Duration::from_secs(1);
    let load = Load { clients: CLIENTS, rate: Some(RATE), duration, warm_up, operations_max: None };
    let mut from = Instant::now() + warm_up;
    let nobody = Watched::default();
    let measured = load::run_in_laps(work.clone(), load, &nobody, LAP, |lap| {
        let to = Instant::now();
        laps.push((std::mem::replace(&mut from, to), to, lap));
    });
    let measured = measured.await?;
    if let Some(error) = measured.first_error {
        bail!("{} operations failed under a steady load, the first: {error}", measured.errors);
    }
    Ok(laps)
}

/// Laps in which a snapshot was being written, and the one after it: who was held up is answered there. And the others.
fn split(laps: &[(Instant, Instant, Lap)], snapshots: &[Written]) -> Result<(Latency, Latency)> {
    let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).context("histogram");
    let (mut during, mut without) = (histogram()?, histogram()?);
    for (from, to, lap) in laps {
        let from = from.checked_sub(LAP).unwrap_or(*from);
        let hit = snapshots.iter().any(|snapshot| snapshot.from < *to && snapshot.to > from);
        let side = if hit { &mut during } else { &mut without };
        side.add(&lap.latency).context("histogram")?;
    }
    Ok((Latency::of(&during), Latency::of(&without)))
}

impl Latency {
    fn of(latency: &Histogram<u64>) -> Self {
        Self {
            operations: latency.len(),
            p50_micros: latency.value_at_quantile(0.5),
            p99_micros: latency.value_at_quantile(0.99),
            p999_micros: latency.value_at_quantile(0.999),
            max_micros: latency.max(),
        }
    }

    fn text(&self) -> String {
        let ms = |micros: u64| micros as f64 / 1e3;
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.1} ms, longest {:.1} ms ({} operations)",
            ms(self.p50_micros),
            ms(self.p99_micros),
            ms(self.p999_micros),
            ms(self.max_micros),
            self.operations
        )
    }
}

/// As an operator makes one.
async fn back_up(cluster: &Cluster) -> Result<(f64, u64)> {
    let file = cluster.folder().join("bench.quorate");
    let started = Instant::now();
    let backup = tokio::process::Command::new(std::env::current_exe().context("where this program is")?)
        .env_clear()
        .args(["--log", "error", "backup"])
        .arg(&file)
        .args(["--nodes", &cluster.nodes.join(",")])
        .kill_on_drop(true)
        .output()
        .await?;
    if !backup.status.success() {
        bail!("the backup failed: {}", String::from_utf8_lossy(&backup.stderr));
    }
    Ok((started.elapsed().as_secs_f64(), std::fs::metadata(&file)?.len()))
}

async fn restart_node(cluster: &mut Cluster, index: usize) -> Result<f64> {
    let applied = watch::nodes(cluster).await?.iter().map(|node| node.applied_index).max().unwrap_or(0);
    cluster.kill_node(index).await?;
    let started = Instant::now();
    cluster.start_node(index)?;
    let channel = quorate_rpc::channel(&cluster.nodes[index], &Security::Plain)?;
    let mut seen = 0;
    while started.elapsed() < BACK_WITHIN {
        tokio::time::sleep(ASK_AGAIN).await;
        let mut admin = AdminClient::new(channel.clone());
        let Ok(Ok(nodes)) = tokio::time::timeout(ASK_TIMEOUT, admin.list_nodes(ListNodesRequest {})).await
        else {
            continue;
        };
        let nodes = nodes.into_inner().nodes;
        seen = nodes.get(index).map_or(0, |node| node.applied_index);
        if seen < applied {
            continue;
        }
        // What it has itself.
        let request = ListAccountsRequest {
            tenant: "tenant-0".to_owned(),
            consistency: Consistency::Stale.into(),
            page_size: 1,
            ..ListAccountsRequest::default()
        };
        if admin.list_accounts(request).await.is_ok() {
            return Ok(started.elapsed().as_secs_f64());
        }
    }
    bail!(
        "a node that was started again has applied {seen} of {applied} entries after {} s",
        BACK_WITHIN.as_secs()
    )
}

async fn restart_all(cluster: &mut Cluster, nodes: usize) -> Result<f64> {
    for index in 0..nodes {
        cluster.kill_node(index).await?;
    }
    let started = Instant::now();
    for index in 0..nodes {
        cluster.start_node(index)?;
    }
    let work = Walk::new(cluster, 1, vec![BUDGET.to_owned()]);
    while let Err(error) = work.touch(0).await {
        if started.elapsed() > BACK_WITHIN {
            bail!("the cluster is not back within {} s: {error}", BACK_WITHIN.as_secs());
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

impl Findings for AccountsFound {
    const NAME: &'static str = "accounts";

    fn table(&self) -> Table {
        let mut table = output::table(&["WHAT", "FOUND"]);
        let mut row = |what: &str, found: String| {
            table.add_row([what.to_owned(), found]);
        };
        let each = |values: &[u64]| {
            values.iter().map(|bytes| format!("{:.0}", mib(*bytes as f64))).collect::<Vec<_>>().join(", ")
                + " MiB"
        };
        row("accounts", format!("{} of {} tenants", self.accounts, self.tenants));
        row(
            "made in",
            format!("{:.1} s, {:.0} operations/s", self.fill_seconds, self.fill_operations_per_second),
        );
        row("memory of the nodes, empty", each(&self.resident_empty_bytes));
        row("filled, all reservations remembered", each(&self.resident_filled_bytes));
        row("filled, at rest", each(&self.resident_at_rest_bytes));
        let per_account: Vec<String> =
            self.bytes_per_account.iter().map(|bytes| format!("{bytes:.0}")).collect();
        row("bytes per account", per_account.join(", "));
        row("data folders", each(&self.data_folder_bytes));
        for one in &self.snapshots {
            row(
                "a snapshot",
                format!("node {}: {:.2} s, {:.1} MiB", one.node, one.seconds, mib(one.bytes as f64)),
            );
        }
        row(&format!("{RATE} operations/s, no snapshot"), self.without_snapshot.text());
        row("during a snapshot", self.during_snapshot.text());
        row("backup", format!("{:.2} s, {:.1} MiB", self.backup_seconds, mib(self.backup_bytes as f64)));
        row("start of a killed node", format!("{:.2} s", self.node_start_seconds));
        row("its memory then", each(&[self.node_started_resident_bytes]));
        row(
            "start of all three",
            format!("{:.2} s until a reservation is granted", self.cluster_start_seconds),
        );
        table
    }

    fn notes(&self) -> Vec<String> {
        vec![format!("{} CPUs, {}; took {:.0} s", self.machine.cpus, self.machine.model, self.seconds)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_are_told_apart_by_the_snapshots_they_met() {
        let start = Instant::now() + Duration::from_secs(10);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let lap = |number: u64| {
            let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
            latency.record(100 + number).unwrap();
            let lap = Lap { end: 0.0, latency, errors: 0 };
            (at(200 * number), at(200 * number + 200), lap)
        };
        let laps: Vec<_> = (0..6).map(lap).collect();
        let snapshot = Written { node: 1, seconds: 0.2, bytes: 1, from: at(450), to: at(550) };
        let (during, without) = split(&laps, &[snapshot]).unwrap();
        assert_eq!((during.operations, without.operations), (2, 4));
        assert_eq!((during.p50_micros, during.max_micros), (102, 103));
    }
}
