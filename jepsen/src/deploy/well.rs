//! What each node says of itself, and bringing everything back to where all is well.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::join_all;
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{ListNodesRequest, ListTenantsRequest, Node as View};
use quorate_rpc::{FORWARDED_HEADER, endpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::{Deployment, NodePlace};

const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ASK_WITHIN: Duration = Duration::from_secs(1);

impl Deployment {
    /// What every node that answers says of itself; nobody is asked about others.
    pub async fn views(&self) -> Vec<View> {
        let places = self.node_places();
        join_all(places.iter().map(view)).await.into_iter().flatten().collect()
    }

    /// Who leads, if one says so; the newest, if several do.
    pub async fn leader(&self) -> Option<u64> {
        newest_leader(&self.views().await).map(|view| view.id)
    }

    /// # Errors
    /// The node does not say anything in time.
    pub async fn wait_for_answer(&self, id: u64, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while !self.views().await.iter().any(|view| view.id == id) {
            if Instant::now() > deadline {
                bail!("node {id} does not answer after {} s", within.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The ledger's time as the leader has it.
    ///
    /// # Errors
    /// It does not answer a linearizable read.
    pub async fn ledger_time_ms(&self) -> Result<u64> {
        let views = self.views().await;
        ledger_time_ms(&newest_leader(&views).context("no node leads")?.address).await
    }

    /// Whom the leader counts as voters.
    ///
    /// # Errors
    /// It does not say.
    pub async fn voters(&self) -> Result<Vec<u64>> {
        let views = self.views().await;
        let leader = newest_leader(&views).context("no node leads")?;
        let channel = endpoint(&leader.address)?.connect_timeout(ASK_WITHIN).connect_lazy();
        let mut client = AdminClient::new(channel);
        let asked = tokio::time::timeout(2 * ASK_WITHIN, client.list_nodes(ListNodesRequest {})).await;
        let asked = asked.context("the leader does not say who the members are")?;
        let nodes = asked.map_err(|status| anyhow::anyhow!("{status}"))?.into_inner().nodes;
        Ok(nodes.into_iter().filter(|node| node.voter).map(|node| node.id).collect())
    }

    /// # Errors
    /// Nobody leads in time.
    pub async fn wait_for_leader(&self, within: Duration) -> Result<u64> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                bail!("no node leads after {} s; logs: {}", within.as_secs(), self.options.folder.display());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A leader, all members voting and caught up with where it was when this began, a read that a quorum confirms, and
    /// gateways that are ready. How long it took.
    ///
    /// # Errors
    /// Not in time; says what is missing.
    pub async fn wait_until_well(&self, within: Duration) -> Result<Duration> {
        self.wait_for("/readyz", within).await
    }

    /// `gateways`: what a gateway must say yes to.
    pub(super) async fn wait_for(&self, gateways: &str, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        let mut target = None;
        loop {
            match self.what_is_missing(gateways, &mut target).await {
                None => return Ok(began.elapsed()),
                Some(missing) if began.elapsed() > within => {
                    let folder = self.options.folder.display();
                    bail!("not well after {} s: {missing}; logs: {folder}", within.as_secs());
                }
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// `target`: the index that all must have applied, once it is known.
    async fn what_is_missing(&self, path: &str, target: &mut Option<u64>) -> Option<String> {
        self.note_ends();
        let views = self.views().await;
        let Some(leader) = newest_leader(&views) else { return Some("no node leads".to_owned()) };
        let target = *target.get_or_insert(leader.last_log_index);
        for id in self.node_ids() {
            let Some(view) = views.iter().find(|view| view.id == id) else {
                let why = if self.runs(id) { "does not answer" } else { "does not run" };
                return Some(format!("node {id} {why}"));
            };
            if !view.voter || !matches!(view.role.as_str(), "leader" | "follower") {
                return Some(format!("node {id} is a {} (voter: {})", view.role, view.voter));
            }
            if view.term != leader.term {
                return Some(format!("node {id} is in term {}, the leader in {}", view.term, leader.term));
            }
            if view.applied_index < target {
                return Some(format!("node {id} has applied {} of {target}", view.applied_index));
            }
        }
        if let Err(error) = ledger_time_ms(&leader.address).await {
            return Some(format!("the leader does not answer a read: {error:#}"));
        }
        let gateways: Vec<String> =
            self.gateways.lock().iter().map(|gateway| gateway.place.http.clone()).collect();
        for (number, http) in gateways.iter().enumerate() {
            if let Err(error) = says_yes(http, path).await {
                return Some(format!("gateway {} is not ready: {error}", number + 1));
            }
        }
        None
    }

    /// Whatever was done: afterwards everybody reaches everybody, and everything runs. Not yet that all is well.
    ///
    /// # Errors
    /// Something cannot be undone, or a process not be started.
    pub async fn heal_all(&self) -> Result<()> {
        self.restore_all_calls().await;
        if let Some(network) = &self.network {
            network.mend_all()?;
        }
        for id in self.paused_nodes() {
            // One that has ended meanwhile is started below.
            let _ = self.resume_node(id);
        }
        for id in self.node_ids() {
            self.set_clock(id, "+0")?;
            let _ = self.on_disk(id, |disk| {
                disk.free();
                Ok(())
            });
            self.start_node(id)?;
            self.node_must_run(id);
        }
        for place in 0..super::BACKENDS.len() {
            self.start_provider(place)?;
        }
        (0..self.gateway_count()).try_for_each(|number| self.start_gateway(number))
    }
}

fn newest_leader(views: &[View]) -> Option<&View> {
    views.iter().filter(|view| view.role == "leader").max_by_key(|view| view.term)
}

/// What a node says of itself.
async fn view(place: &NodePlace) -> Option<View> {
    let asked = async {
        let channel = endpoint(&place.address).ok()?.connect_timeout(ASK_WITHIN).connect_lazy();
        let mut request = Request::new(ListNodesRequest {});
        // A forwarded question is answered by the node that gets it, for itself.
        request.metadata_mut().insert(FORWARDED_HEADER, MetadataValue::from_static("1"));
        request.set_timeout(ASK_WITHIN);
        let response = AdminClient::new(channel).list_nodes(request).await.ok()?.into_inner();
        response.nodes.into_iter().find(|node| node.id == place.id)
    };
    tokio::time::timeout(ASK_WITHIN, asked).await.ok().flatten()
}

/// A read that a quorum must confirm: the ledger's time.
async fn ledger_time_ms(address: &str) -> Result<u64> {
    let channel = endpoint(address)?.connect_timeout(ASK_WITHIN).connect_lazy();
    let mut request = Request::new(ListTenantsRequest { page_size: 1, ..ListTenantsRequest::default() });
    request.set_timeout(ASK_WITHIN);
    let mut client = AdminClient::new(channel);
    let answered = tokio::time::timeout(ASK_WITHIN, client.list_tenants(request));
    let answer = answered.await.context("no answer")?.map_err(|status| anyhow::anyhow!("{status}"))?;
    Ok(answer.into_inner().read_point.map_or(0, |point| point.ledger_time_ms))
}

/// Whether `/readyz` or `/healthz` of this address does.
async fn says_yes(http: &str, path: &str) -> Result<()> {
    let asked = async {
        let mut stream = TcpStream::connect(http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{}", answer.lines().last().unwrap_or_default());
        Ok(())
    };
    tokio::time::timeout(ASK_WITHIN, asked).await.context("no answer")?
}
