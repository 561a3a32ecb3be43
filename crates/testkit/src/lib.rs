//! Test tools: an in-process cluster. Never shipped.

mod certificates;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use certificates::Certificates;

use quorate_node::{
    AlertsConfig, ClockConfig, Limits, Node, NodeConfig, NodeListeners, PeerConfig, RaftTimers, SecretsConfig,
};
use quorate_rpc::admin::{ApplyPolicyRequest, ApplyPolicyResponse, CreateKeyRequest};
use quorate_rpc::budget::ApiKey;
use quorate_rpc::tls::{Role, Security};
use quorate_rpc::{Client, ClientConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Nodes of one cluster in this process, each with its own folder and sockets.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    /// Bound and no more: they keep the addresses of nodes that are down from everybody else.
    _reserved: Vec<tokio::net::TcpSocket>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    configure: Configure,
    security: Security,
}

/// What a test changes of every node's configuration.
struct Configure(Box<dyn Fn(&mut NodeConfig) + Send + Sync>);

impl std::fmt::Debug for Configure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Configure")
    }
}

impl Cluster {
    /// # Panics
    /// A node does not start.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, |_| {}).await
    }

    /// `configure` is called for every node, also when it starts again.
    ///
    /// # Panics
    /// A node does not start.
    pub async fn start_with(
        size: usize,
        configure: impl Fn(&mut NodeConfig) + Send + Sync + 'static,
    ) -> Self {
        Self::start_and_speak(size, configure, Security::Plain).await
    }

    /// Over mutual TLS: node 1 is `node-1`, and so on; the clients are `root`, an administrator.
    ///
    /// # Panics
    /// A node does not start.
    pub async fn start_secured(size: usize, certificates: Arc<Certificates>) -> Self {
        let security = certificates.security("root", Role::Admin);
        let configure = move |config: &mut NodeConfig| {
            config.tls = Some(certificates.files(&format!("node-{}", config.id), Role::Node));
        };
        Self::start_and_speak(size, configure, security).await
    }

    async fn start_and_speak(
        size: usize,
        configure: impl Fn(&mut NodeConfig) + Send + Sync + 'static,
        security: Security,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reserved: Vec<_> = (0..size).map(|_| reserve_address()).collect();
        let address = |socket: &tokio::net::TcpSocket| socket.local_addr().expect("an address").to_string();
        let addresses: Vec<String> = reserved.iter().map(address).collect();
        // Nodes speak to each other from the start: they listen before the first one runs.
        let listeners: Vec<NodeListeners> =
            addresses.iter().map(|grpc| NodeListeners { grpc: bind(grpc), http: bind(ANY) }).collect();
        let mut cluster = Self {
            folder,
            _reserved: reserved,
            addresses,
            nodes: Vec::new(),
            configure: Configure(Box::new(configure)),
            security,
        };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let node = Node::start(cluster.config(index), listeners).await.expect("a node that starts");
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    fn config(&self, index: usize) -> NodeConfig {
        let peers =
            self.addresses.iter().zip(1..).map(|(address, id)| PeerConfig { id, address: address.clone() });
        let mut config = NodeConfig {
            cluster: "testkit".to_owned(),
            id: index as u64 + 1,
            listen: self.addresses[index].clone(),
            advertise: None,
            http_listen: "127.0.0.1:0".to_owned(),
            data_dir: self.data_dir(index),
            peers: peers.collect(),
            tls: None,
            http_tls: None,
            insecure: false,
            limits: Limits::default(),
            secrets: SecretsConfig::default(),
            alerts: AlertsConfig::default(),
            raft: RaftTimers { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 800 },
            clock: ClockConfig::default(),
        };
        (self.configure.0)(&mut config);
        config
    }

    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}", index + 1))
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Of all nodes.
    pub fn client(&self) -> Client {
        self.client_of(self.addresses.clone(), self.security.clone())
    }

    /// Of one node only.
    pub fn client_at(&self, index: usize) -> Client {
        self.client_at_as(index, self.security.clone())
    }

    /// Of one node, with a certificate of its own.
    pub fn client_at_as(&self, index: usize, security: Security) -> Client {
        self.client_of(vec![self.addresses[index].clone()], security)
    }

    /// Of all nodes, with a certificate of its own.
    pub fn client_as(&self, security: Security) -> Client {
        self.client_of(self.addresses.clone(), security)
    }

    fn client_of(&self, nodes: Vec<String>, security: Security) -> Client {
        Client::connect(ClientConfig {
            name: "testkit".to_owned(),
            nodes,
            operation_timeout_ms: 5_000,
            security,
        })
    }

    /// Applies manifests beside those that are in force.
    ///
    /// # Panics
    /// They are wrong.
    pub async fn apply(&self, manifests: &str) -> ApplyPolicyResponse {
        let request = ApplyPolicyRequest { document: manifests.to_owned(), ..Default::default() };
        self.client().admin().acting_as("testkit").apply_policy(request).await.expect("right manifests")
    }

    /// Makes an API key: its record, and its text.
    ///
    /// # Panics
    /// It is refused.
    pub async fn create_key(&self, tenant: &str, user: &str) -> (ApiKey, String) {
        let request =
            CreateKeyRequest { tenant: tenant.to_owned(), user: user.to_owned(), ..Default::default() };
        let made = self.client().admin().acting_as("testkit").create_key(request).await.expect("a key");
        (made.key.expect("a record"), made.text)
    }

    /// Which node leads, as soon as one of those that run knows.
    ///
    /// # Panics
    /// No node runs.
    pub async fn leader(&self) -> usize {
        let node = self.nodes.iter().flatten().next().expect("a node that runs");
        let mut status = node.status();
        let known = status.wait_for(|status| status.leader.is_some()).await.expect("a node that runs");
        known.leader.as_ref().map_or(0, |leader| usize::try_from(leader.id).unwrap_or(1) - 1)
    }

    /// A figure of /metrics, the sum over all nodes that run.
    ///
    /// # Panics
    /// A node does not answer, or has no such figure.
    pub async fn metric(&self, name: &str) -> u64 {
        let mut sum = 0;
        for node in self.nodes.iter().flatten() {
            let mut stream = tokio::net::TcpStream::connect(node.http_address()).await.expect("a node");
            let request = "GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("a node that listens");
            let mut page = String::new();
            stream.read_to_string(&mut page).await.expect("a page");
            let figure = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            sum += figure.and_then(|figure| figure.parse::<u64>().ok()).expect("a figure");
        }
        sum
    }

    /// Waits until the sum is as wanted.
    ///
    /// # Panics
    /// It does not become so.
    pub async fn until_metric(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + WANTED_WITHIN;
        loop {
            let found = self.metric(name).await;
            if wanted(found) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} stays at {found}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// In good order: hands the leadership over first.
    pub async fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    /// As if its storage had failed.
    ///
    /// # Panics
    /// There is no such node.
    pub async fn give_up(&mut self, index: usize) {
        self.nodes[index].take().expect("a node that runs").give_up().await;
    }

    /// # Panics
    /// The node does not start again.
    pub async fn restart(&mut self, index: usize) {
        self.stop(index).await;
        let listeners = NodeListeners { grpc: bind(&self.addresses[index]), http: bind(ANY) };
        let node = Node::start(self.config(index), listeners).await.expect("a node that starts");
        self.nodes[index] = Some(node);
    }
}

const ANY: &str = "127.0.0.1:0";
const WANTED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn bind(address: &str) -> std::net::TcpListener {
    std::net::TcpListener::bind(address).expect("a free port")
}

/// A free address that nobody else is given, and at which a node of ours can listen.
fn reserve_address() -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option that sockets have");
    socket.bind(ANY.parse().expect("an address")).expect("a free port");
    socket
}
