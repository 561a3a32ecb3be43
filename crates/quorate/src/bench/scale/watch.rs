//! What the processes of a cluster and their folders look like from outside: memory, disk, counters of /metrics, and
//! which node leads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use quorate_rpc::admin::{ListNodesRequest, Node};

use crate::bench::cluster::Cluster;
use crate::bench::process::Process;
use crate::bench::scale::walk;

/// Until what the work itself needed is given back.
const REST: Duration = Duration::from_secs(2);
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const PAGE_WITHIN: Duration = Duration::from_secs(2);
const LEADER_WITHIN: Duration = Duration::from_secs(20);
const SECTOR_BYTES: u64 = 512;

/// Resident memory of processes that were left alone for a while: the least of a few looks.
///
/// # Errors
/// Memory cannot be read on this system, or a process is gone.
pub async fn resident_at_rest(processes: &[Process]) -> Result<Vec<u64>> {
    tokio::time::sleep(REST).await;
    let mut least = resident(processes)?;
    for _ in 1..LOOKS {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        for (least, now) in least.iter_mut().zip(resident(processes)?) {
            *least = now.min(*least);
        }
    }
    Ok(least)
}

/// # Errors
/// As for [`resident_at_rest`].
pub fn resident(processes: &[Process]) -> Result<Vec<u64>> {
    let known: Option<Vec<u64>> = processes.iter().map(|process| process.resident_bytes()).collect();
    known.context("the memory of a process cannot be read: it is gone, or this system has no /proc")
}

/// What a folder takes on the disk, with all in it. What goes away meanwhile does not count.
pub fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * SECTOR_BYTES,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// The nodes in the order of the cluster.
///
/// # Errors
/// No node leads, or one does not answer.
pub async fn nodes(cluster: &Cluster) -> Result<Vec<Node>> {
    let admin = walk::client(cluster, "bench").admin();
    let deadline = tokio::time::Instant::now() + LEADER_WITHIN;
    loop {
        let nodes = admin.list_nodes(ListNodesRequest {}).await?.nodes;
        let all_there = nodes.iter().all(|node| node.role == "leader" || node.role == "follower");
        if nodes.iter().any(|node| node.role == "leader") && all_there && nodes.len() == cluster.nodes.len() {
            return Ok(nodes);
        }
        if tokio::time::Instant::now() > deadline {
            anyhow::bail!("the benchmark's cluster is not whole: {nodes:?}");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Which of the cluster's nodes leads.
///
/// # Errors
/// None does.
pub async fn leader(cluster: &Cluster) -> Result<usize> {
    let nodes = nodes(cluster).await?;
    nodes.iter().position(|node| node.role == "leader").context("no node leads")
}

/// The counters and gauges of a node's /metrics that have no labels.
///
/// # Errors
/// The page cannot be had.
pub async fn figures(address: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let url = format!("http://{address}/metrics").parse()?;
    let page = async { anyhow::Ok(client.get(url).await?.into_body().collect().await?.to_bytes()) };
    let page = tokio::time::timeout(PAGE_WITHIN, page).await.context("/metrics takes too long")??;
    Ok(parse(&String::from_utf8_lossy(&page)))
}

fn parse(page: &str) -> BTreeMap<String, f64> {
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let plain = !name.starts_with('#') && !name.contains('{');
        plain.then_some((name.to_owned(), value.trim().parse().ok()?))
    };
    page.lines().filter_map(figure).collect()
}

/// Bytes that have gone over loopback since the machine started.
pub fn loopback_bytes() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_with_labels_are_left_out() {
        let page = "# HELP a A.\n# TYPE a gauge\na 7\nb_total{x=\"1\"} 3\nc_total 2.5\n# EOF\n";
        let found = parse(page);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), 7.0), ("c_total".to_owned(), 2.5)]
        );
    }

    #[test]
    fn folders_are_weighed_with_all_in_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), vec![1; 100_000]).unwrap();
        assert!(disk_bytes(folder.path()) >= 100_000);
        assert_eq!(disk_bytes(&folder.path().join("missing")), 0);
    }
}
