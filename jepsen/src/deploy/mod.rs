//! A deployment of real processes: nodes, gateways and simulated providers, each with an address of its own.

mod process;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use quorate_rpc::admin::ListNodesRequest;
use quorate_rpc::tls::Security;
use quorate_rpc::{Admin, Client, ClientConfig};

pub use process::Process;

/// Backends of every gateway, in their order: name, and the models it serves. Each is a provider process of its own.
pub const BACKENDS: [(&str, &str); 3] =
    [("steady", "gpt-4o"), ("health-a", "gpt-4o-mini"), ("health-b", "gpt-4o-mini")];

#[derive(Debug, Clone)]
pub struct Options {
    /// The `quorate` under test.
    pub binary: PathBuf,
    /// For data, configs and logs of all processes.
    pub folder: PathBuf,
    pub nodes: u64,
    pub gateways: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    pub id: u64,
    /// `host:port` of gRPC.
    pub address: String,
    /// `host:port` of /metrics, /healthz, /readyz.
    pub http: String,
}

#[derive(Debug)]
struct Node {
    place: NodePlace,
    process: Option<Process>,
}

#[derive(Debug)]
struct Gateway {
    address: String,
    http: String,
    process: Option<Process>,
}

#[derive(Debug)]
pub struct Deployment {
    options: Options,
    nodes: Mutex<Vec<Node>>,
    gateways: Mutex<Vec<Gateway>>,
    providers: Mutex<Vec<(String, Process)>>,
}

impl Deployment {
    /// Starts everything; returns when a leader is known and the gateways are ready.
    ///
    /// # Errors
    /// A process does not start, or does not become ready.
    pub async fn start(options: Options) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&options.folder)?;
        let places = (1..=options.nodes)
            .map(|id| Ok(NodePlace { id, address: free_address()?, http: free_address()? }))
            .collect::<Result<Vec<_>>>()?;
        let deployment = Arc::new(Self {
            nodes: Mutex::new(places.into_iter().map(|place| Node { place, process: None }).collect()),
            gateways: Mutex::default(),
            providers: Mutex::default(),
            options,
        });
        for (name, _) in BACKENDS {
            deployment.start_provider(name)?;
        }
        for id in deployment.node_ids() {
            deployment.start_node(id)?;
        }
        deployment.wait_for_leader(Duration::from_secs(30)).await?;
        for number in 0..deployment.options.gateways {
            deployment.add_gateway(number)?;
        }
        Ok(deployment)
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
        self.gateways.lock().iter().map(|gateway| gateway.address.clone()).collect()
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

    /// Who leads, if the cluster says so.
    pub async fn leader(&self) -> Option<u64> {
        let nodes = self.admin().list_nodes(ListNodesRequest {}).await.ok()?.nodes;
        nodes.into_iter().find(|node| node.role == "leader").map(|node| node.id)
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
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a node that does not run, with the data that it has.
    ///
    /// # Errors
    /// There is no such node, or its process cannot be started.
    pub fn start_node(&self, id: u64) -> Result<()> {
        let config = self.node_config(id)?;
        let path = self.options.folder.join(format!("node-{id}.yaml"));
        std::fs::write(&path, config)?;
        let arguments = ["node".into(), "--config".into(), path.into_os_string()];
        let process =
            Process::start(&self.options.binary, &self.options.folder, &format!("node-{id}"), &arguments)?;
        if let Some(node) = self.nodes.lock().iter_mut().find(|node| node.place.id == id) {
            node.process = Some(process);
        }
        Ok(())
    }

    /// kill -9; its data stays.
    pub fn kill_node(&self, id: u64) {
        if let Some(node) = self.nodes.lock().iter_mut().find(|node| node.place.id == id) {
            node.process = None;
        }
    }

    fn node_config(&self, id: u64) -> Result<String> {
        let places = self.node_places();
        let me =
            places.iter().find(|place| place.id == id).with_context(|| format!("there is no node {id}"))?;
        let peers: String = places
            .iter()
            .map(|place| format!("  - {{id: {}, address: \"{}\"}}\n", place.id, place.address))
            .collect();
        Ok(format!(
            "cluster: jepsen\nid: {id}\nlisten: {}\nhttp_listen: {}\ndata_dir: {}\npeers:\n{peers}",
            me.address,
            me.http,
            self.options.folder.join(format!("node-{id}")).display(),
        ))
    }

    fn start_provider(&self, name: &str) -> Result<()> {
        let address = free_address()?;
        let arguments = ["mock-provider".into(), "--listen".into(), address.clone().into()];
        let log = format!("provider-{name}");
        let process = Process::start(&self.options.binary, &self.options.folder, &log, &arguments)?;
        self.providers.lock().push((address, process));
        Ok(())
    }

    fn add_gateway(&self, number: usize) -> Result<()> {
        let (address, http) = (free_address()?, free_address()?);
        let nodes = self.node_addresses().join("\", \"");
        let name = format!("gateway-{}", number + 1);
        let mut config = format!(
            "name: {name}\nlisten: {address}\nhttp_listen: {http}\nnodes: [\"{nodes}\"]\nbackends:\n"
        );
        for (backend, model) in BACKENDS {
            let provider = self.provider_address(backend).unwrap_or_default();
            config += &format!(
                "  - {{name: {backend}, provider: OpenAI, base_url: \"http://{provider}/v1\", models: [{model}]}}\n"
            );
        }
        let path = self.options.folder.join(format!("{name}.yaml"));
        std::fs::write(&path, config)?;
        let arguments = ["gateway".into(), "--config".into(), path.into_os_string()];
        let process = Process::start(&self.options.binary, &self.options.folder, &name, &arguments)?;
        self.gateways.lock().push(Gateway { address, http, process: Some(process) });
        Ok(())
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
