//! A cluster of the benchmark's own: nodes, gateways and a simulated provider, each a process on loopback, with data in a
//! temporary folder. Nothing is left of it afterwards, not even when the benchmark itself is killed: the
//! children stop when their standard input closes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_rpc::admin::ApplyPolicyRequest;
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig};
use tokio::process::{Child, Command};

use crate::bench::Place;
use crate::bench::load::Watched;
use crate::bench::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// One account for each tenant, too large to be exhausted.
const POLICY: &str = "apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: bench}
spec:
  limit: {tokens: 900000000000}
  window: Year
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: bench-lease}
spec:
  tenant: bench-hot
  limit: {tokens: 900000000000}
  window: Year
  enforcement: Lease
";
/// The budget of that policy.
pub const BUDGET: &str = "bench";

/// What is started.
#[derive(Debug, Clone)]
pub struct Shape {
    pub nodes: usize,
    pub gateways: usize,
    pub policy: String,
    /// Lines of YAML that every node's configuration has at its end.
    pub node_settings: String,
}

#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<String>,
    /// `host:port` of /metrics.
    pub nodes_http: Vec<SocketAddr>,
    /// Each `http://host:port/v1`
    pub gateways: Vec<String>,
    /// `http://host:port/v1`
    pub provider: String,
    node_processes: Vec<Child>,
    gateway_processes: Vec<Child>,
    provider_process: Child,
    folder: Folder,
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Default for Shape {
    fn default() -> Self {
        Self { nodes: 3, gateways: 1, policy: POLICY.to_owned(), node_settings: String::new() }
    }
}

impl Cluster {
    /// Starts everything and waits until a request can be admitted.
    ///
    /// # Errors
    /// A process cannot be started, or ends early, or the cluster is not ready in time.
    pub async fn start() -> Result<Self> {
        Self::start_as(&Shape::default()).await
    }

    /// # Errors
    /// As for [`Cluster::start`].
    pub async fn start_as(shape: &Shape) -> Result<Self> {
        let folder = Folder::make()?;
        let addresses = free_addresses(2 * shape.nodes + 2 * shape.gateways + 1)?;
        let (nodes, rest) = addresses.split_at(shape.nodes);
        let (nodes_http, rest) = rest.split_at(shape.nodes);
        let (gateways, rest) = rest.split_at(shape.gateways);
        let (gateways_http, rest) = rest.split_at(shape.gateways);
        let [provider] = rest else { bail!("one address is left over") };
        let provider_process =
            spawn(&folder.0, "provider", &["mock-provider", "--listen", &provider.to_string()])?;
        let mut node_processes = Vec::new();
        for (index, http) in nodes_http.iter().enumerate() {
            let config = node_config(index, nodes, *http, &folder.0) + &shape.node_settings;
            node_processes.push(spawn_with(&folder.0, "node", &node_name(index), &config)?);
        }
        let mut gateway_processes = Vec::new();
        for (index, (listen, http)) in gateways.iter().zip(gateways_http).enumerate() {
            let config = gateway_config(nodes, *listen, *http, *provider);
            gateway_processes.push(spawn_with(
                &folder.0,
                "gateway",
                &format!("gateway-{}", index + 1),
                &config,
            )?);
        }
        let mut cluster = Self {
            nodes: nodes.iter().map(ToString::to_string).collect(),
            nodes_http: nodes_http.to_vec(),
            gateways: gateways.iter().map(|gateway| format!("http://{gateway}/v1")).collect(),
            provider: format!("http://{provider}/v1"),
            node_processes,
            gateway_processes,
            provider_process,
            folder,
        };
        cluster.wait_until_ready(gateways_http, *provider, &shape.policy).await?;
        Ok(cluster)
    }

    /// Ends a node as a power cut would.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub async fn kill_node(&mut self, index: usize) -> Result<()> {
        self.node_processes[index].kill().await.context("cannot end a node")
    }

    /// Starts a node that was killed, on its data.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_node(&mut self, index: usize) -> Result<()> {
        let path = self.folder.0.join(format!("{}.yaml", node_name(index)));
        self.node_processes[index] =
            spawn(&self.folder.0, "node", &["node", "--config", &path.to_string_lossy()])?;
        Ok(())
    }

    pub fn data_folder(&self, index: usize) -> PathBuf {
        self.folder.0.join(node_name(index))
    }

    /// For what the benchmark itself writes; goes with the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn watched(&self) -> Watched {
        let of = |child: &Child| child.id().map(|id| Process { id });
        Watched {
            nodes: self.node_processes.iter().filter_map(of).collect(),
            gateways: self.gateway_processes.iter().filter_map(of).collect(),
            provider: of(&self.provider_process).into_iter().collect(),
        }
    }

    /// Ends the processes and removes their data.
    pub async fn stop(mut self) {
        let children = self
            .gateway_processes
            .iter_mut()
            .chain([&mut self.provider_process])
            .chain(&mut self.node_processes);
        for child in children {
            // Their end is the word to stop.
            drop(child.stdin.take());
            if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    pub fn place(&self) -> Place {
        Place {
            nodes: self.nodes.clone(),
            security: Security::Plain,
            gateway: self.gateways.first().cloned().unwrap_or_default(),
            provider: self.provider.clone(),
            budget: BUDGET.to_owned(),
        }
    }

    async fn wait_until_ready(
        &mut self,
        gateways_http: &[SocketAddr],
        provider: SocketAddr,
        policy: &str,
    ) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let client = ClientConfig {
            name: "bench".to_owned(),
            nodes: self.nodes.clone(),
            operation_timeout_ms: 5_000,
            security: Security::Plain,
        };
        let admin = Client::connect(client).admin();
        loop {
            self.check_running()?;
            let request = ApplyPolicyRequest { document: policy.to_owned(), ..Default::default() };
            let ready = match admin.apply_policy(request).await {
                Ok(_) => accepts(provider) && all_ready(gateways_http).await,
                Err(_) => false,
            };
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the benchmark's cluster was not ready within {} s", READY_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn check_running(&mut self) -> Result<()> {
        let children = self
            .gateway_processes
            .iter_mut()
            .chain([&mut self.provider_process])
            .chain(&mut self.node_processes);
        for child in children {
            if let Some(status) = child.try_wait()? {
                bail!("a process of the benchmark ended early ({status}); what it said stands above");
            }
        }
        Ok(())
    }
}

impl Folder {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("quorate-bench-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the benchmark's data is left behind");
        }
    }
}

/// Bound together, so that they differ, and let go again: somebody else may take one before its process does, which then
/// says so.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").context("no free port on loopback");
    let listeners: Vec<TcpListener> = (0..count).map(bind).collect::<Result<_>>()?;
    listeners.iter().map(|listener| listener.local_addr().context("address of a listener")).collect()
}

fn spawn_with(folder: &Path, command: &str, name: &str, config: &str) -> Result<Child> {
    let path = folder.join(format!("{name}.yaml"));
    std::fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
    spawn(folder, name, &[command, "--config", &path.to_string_lossy()])
}

/// This very binary again.
fn spawn(folder: &Path, name: &str, arguments: &[&str]) -> Result<Child> {
    let binary = std::env::current_exe().context("where this program is")?;
    Command::new(binary)
        .args(["--log", "error"])
        .args(arguments)
        .arg("--stop-at-eof")
        .current_dir(folder)
        // Settings of the operator's own deployment are not meant for this one.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {name}"))
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn node_config(index: usize, nodes: &[SocketAddr], http: SocketAddr, folder: &Path) -> String {
    let peers =
        nodes.iter().zip(1..).map(|(address, id)| format!("  - {{id: {id}, address: '{address}'}}\n"));
    format!(
        "cluster: bench\nid: {}\nlisten: '{}'\nhttp_listen: '{http}'\ndata_dir: '{}'\npeers:\n{}",
        index + 1,
        nodes[index],
        folder.join(node_name(index)).display(),
        peers.collect::<String>(),
    )
}

fn gateway_config(
    nodes: &[SocketAddr],
    listen: SocketAddr,
    http: SocketAddr,
    provider: SocketAddr,
) -> String {
    let nodes = nodes.iter().map(|node| format!("'{node}'")).collect::<Vec<_>>().join(", ");
    format!(
        "name: bench\nlisten: '{listen}'\nhttp_listen: '{http}'\nnodes: [{nodes}]\n\
         backends: [{{name: mock, provider: OpenAI, base_url: 'http://{provider}/v1'}}]\n"
    )
}

fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

async fn all_ready(addresses: &[SocketAddr]) -> bool {
    for address in addresses {
        if !is_ready(*address).await {
            return false;
        }
    }
    true
}

/// `GET /readyz` says 200.
async fn is_ready(address: SocketAddr) -> bool {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let Ok(url) = format!("http://{address}/readyz").parse() else { return false };
    let answer = tokio::time::timeout(Duration::from_secs(1), client.get(url)).await;
    matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
}
