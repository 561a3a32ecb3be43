//! A deployment of real processes: nodes, gateways and simulated providers, each with an address of its own. With root they
//! have a network of their own (`network.rs`), else they share the loopback interface, and the network cannot be harmed.

mod config;
mod delay;
mod disks;
mod edge;
mod ends;
mod links;
mod network;
mod nodes;
mod process;
mod sweep;
pub mod tool;
mod tracers;
mod well;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use quorate_rpc::tls::Security;
use quorate_rpc::{Admin, Client, ClientConfig};

pub use config::{LOG_KEEP, SETTLES_BEHIND};
pub use disks::{Disk, TOOLS as DISK_TOOLS};
pub use links::{Direction, Place, between};
pub use network::{Network, missing as network_missing};
pub use nodes::{Ending, faketime};
pub use process::Process;

use edge::Gateway;
use ends::Ends;
use nodes::Node;

/// Backends of every gateway, in their order: name, and the models it serves. Each is a provider process of its own.
pub const BACKENDS: [(&str, &str); 3] =
    [("steady", "gpt-4o"), ("health-a", "gpt-4o-mini"), ("health-b", "gpt-4o-mini")];

const GRPC_PORT: u16 = 7701;
const HTTP_PORT: u16 = 7702;
const GATEWAY_PORT: u16 = 8080;
const GATEWAY_HTTP_PORT: u16 = 8081;
const GATEWAY_RATE_LIMIT_PORT: u16 = 8082;
const PROVIDER_PORT: u16 = 8090;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkChoice {
    /// A network of its own if that can be had here.
    Auto,
    Loopback,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// The `quorate` under test.
    pub binary: PathBuf,
    /// For data, configs and logs of all processes.
    pub folder: PathBuf,
    pub nodes: u64,
    pub gateways: usize,
    pub seed: u64,
    pub network: NetworkChoice,
    /// The `quorate` that nodes run until they are upgraded.
    pub previous: Option<PathBuf>,
    /// The nodes' clocks can be set: costs them something with each look at the clock.
    pub clocks: bool,
    /// Each node has a disk of its own, which can be filled.
    pub disks: bool,
}

impl Options {
    pub fn new(binary: PathBuf, folder: PathBuf) -> Self {
        Self {
            binary,
            folder,
            nodes: 3,
            gateways: 2,
            seed: 0,
            network: NetworkChoice::Auto,
            previous: None,
            clocks: false,
            disks: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    pub id: u64,
    /// `host:port` of gRPC.
    pub address: String,
    /// `host:port` of /metrics, /healthz, /readyz.
    pub http: String,
}

/// What is dropped first stands first: processes, then disks, then the network.
#[derive(Debug)]
pub struct Deployment {
    tracers: Mutex<Vec<(u64, Process)>>,
    nodes: Mutex<Vec<Node>>,
    gateways: Mutex<Vec<Gateway>>,
    providers: Mutex<Vec<(String, Option<Process>)>>,
    network: Option<Network>,
    next_node: AtomicU64,
    ends: Mutex<Ends>,
    options: Options,
}

impl Deployment {
    /// Starts everything; returns when the cluster is well and the gateways answer. Those are ready once there is a
    /// policy.
    ///
    /// # Errors
    /// A process does not start, or does not become ready; or there cannot be what the options ask for.
    pub async fn start(mut options: Options) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&options.folder)?;
        // Processes in namespaces of their own still have this working folder, but configs are read by others too.
        options.folder = options.folder.canonicalize()?;
        for what in sweep::leftovers() {
            tracing::info!(what, "removed what a dead run left");
        }
        let network = match options.network {
            NetworkChoice::Loopback => None,
            NetworkChoice::Auto => match network::missing() {
                None => Some(Network::new()?),
                Some(why) => {
                    tracing::warn!(why, "all share the loopback interface: no network faults");
                    None
                }
            },
        };
        let deployment = Arc::new(Self {
            tracers: Mutex::default(),
            nodes: Mutex::default(),
            gateways: Mutex::default(),
            providers: Mutex::default(),
            network,
            next_node: AtomicU64::new(1),
            ends: Mutex::default(),
            options,
        });
        deployment.start_all().await?;
        Ok(deployment)
    }

    async fn start_all(&self) -> Result<()> {
        if let Some(network) = &self.network {
            network.add(Place::Providers)?;
        }
        for place in 0..BACKENDS.len() {
            self.start_provider(place)?;
        }
        for _ in 0..self.options.nodes {
            self.add_node()?;
        }
        for id in self.node_ids() {
            self.start_node(id)?;
        }
        self.wait_for_leader(Duration::from_secs(30)).await?;
        for _ in 0..self.options.gateways {
            self.add_gateway()?;
        }
        // Ready they are when there is a policy.
        self.wait_for("/healthz", Duration::from_secs(30)).await.map(drop)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The network of its own, for faults in it.
    ///
    /// # Errors
    /// There is none; says why.
    pub fn network(&self) -> Result<&Network> {
        let why = || match self.options.network {
            NetworkChoice::Loopback => "the loopback interface was asked for".to_owned(),
            NetworkChoice::Auto => network::missing().unwrap_or_default(),
        };
        self.network.as_ref().with_context(|| format!("there is no network that could fail: {}", why()))
    }

    pub fn node_ids(&self) -> Vec<u64> {
        self.nodes.lock().iter().map(|node| node.place.id).collect()
    }

    pub fn node_places(&self) -> Vec<NodePlace> {
        self.nodes.lock().iter().map(|node| node.place.clone()).collect()
    }

    /// gRPC addresses of all nodes, whether they run or not.
    pub fn node_addresses(&self) -> Vec<String> {
        self.nodes.lock().iter().map(|node| node.place.address.clone()).collect()
    }

    /// `host:port` of each gateway's HTTP side.
    pub fn gateway_addresses(&self) -> Vec<String> {
        self.gateways.lock().iter().map(|gateway| gateway.place.address.clone()).collect()
    }

    /// `host:port` of each gateway's /metrics and /readyz, in the same order.
    pub fn gateway_http_addresses(&self) -> Vec<String> {
        self.gateways.lock().iter().map(|gateway| gateway.place.http.clone()).collect()
    }

    /// `host:port` of each gateway's rate limit service, in the same order.
    pub fn rate_limit_addresses(&self) -> Vec<String> {
        self.gateways.lock().iter().map(|gateway| gateway.place.rate_limit.clone()).collect()
    }

    /// `host:port` of the provider behind the backend of this name; see [`BACKENDS`].
    pub fn provider_address(&self, backend: &str) -> Option<String> {
        let place = BACKENDS.iter().position(|(name, _)| *name == backend)?;
        self.providers.lock().get(place).map(|(address, _)| address.clone())
    }

    /// A client that knows all nodes.
    pub fn client(&self) -> Client {
        let nodes = self.node_addresses();
        Client::connect(ClientConfig {
            name: "jepsen".to_owned(),
            nodes,
            operation_timeout_ms: 5_000,
            security: Security::Plain,
        })
    }

    pub fn admin(&self) -> Admin {
        self.client().admin().acting_as("jepsen")
    }

    /// Runs `quorate` with these arguments against the cluster; what it printed.
    ///
    /// # Errors
    /// It did not succeed, or not in time: with what it said.
    pub async fn quorate(&self, arguments: &[&str], within: Duration) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.options.binary);
        command.args(arguments).env("QUORATE_NODES", self.node_addresses().join(","));
        command.env("QUORATE_INSECURE", "true").kill_on_drop(true);
        let asked = || format!("quorate {}", arguments.join(" "));
        let ended = tokio::time::timeout(within, command.output());
        let output = ended.await.with_context(|| format!("{}: no end in time", asked()))??;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        anyhow::ensure!(output.status.success(), "{}: {said}", asked());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn namespace(&self, place: Place) -> Option<String> {
        self.network.as_ref().and_then(|network| network.namespace(place))
    }

    /// Where this place listens: on its own address, or on a free port of the loopback interface.
    fn listen(&self, place: Place, port: u16) -> Result<String> {
        match &self.network {
            Some(network) => Ok(format!("{}:{port}", network.address(place))),
            None => free_address(),
        }
    }

    fn next_node(&self) -> u64 {
        self.next_node.fetch_add(1, Ordering::Relaxed)
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// On Ctrl-C and SIGTERM kills what was started, removes namespaces and mounts, and ends this process.
pub fn end_on_signal() {
    tokio::spawn(async {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        let Ok(mut terminate) = terminate else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("stopped; removing what was made");
        process::kill_all();
        sweep::own();
        std::process::exit(130);
    });
}

#[cfg(test)]
mod tests;
