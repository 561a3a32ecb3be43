//! Test tools: an in-process cluster. Never shipped.

use std::path::PathBuf;

use quorate_node::{Limits, Node, NodeConfig, NodeListeners, PeerConfig, RaftTimers};
use quorate_rpc::{Client, ClientConfig};

/// Nodes of one cluster in this process, each with its own folder and sockets.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// # Panics
    /// A node does not start.
    pub async fn start(size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listeners: Vec<NodeListeners> =
            (0..size).map(|_| NodeListeners { grpc: bind(), http: bind() }).collect();
        let addresses = listeners
            .iter()
            .map(|listeners| listeners.grpc.local_addr().expect("an address").to_string())
            .collect();
        let mut cluster = Self { folder, addresses, nodes: Vec::new() };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let node = Node::start(cluster.config(index), listeners).await.expect("a node that starts");
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    fn config(&self, index: usize) -> NodeConfig {
        let peers =
            self.addresses.iter().zip(1..).map(|(address, id)| PeerConfig { id, address: address.clone() });
        NodeConfig {
            cluster: "testkit".to_owned(),
            id: index as u64 + 1,
            listen: self.addresses[index].clone(),
            advertise: None,
            http_listen: "127.0.0.1:0".to_owned(),
            data_dir: self.data_dir(index),
            peers: peers.collect(),
            limits: Limits::default(),
            raft: RaftTimers { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 800 },
        }
    }

    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}", index + 1))
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Of all nodes.
    pub fn client(&self) -> Client {
        self.client_of(self.addresses.clone())
    }

    /// Of one node only.
    pub fn client_at(&self, index: usize) -> Client {
        self.client_of(vec![self.addresses[index].clone()])
    }

    fn client_of(&self, nodes: Vec<String>) -> Client {
        Client::connect(ClientConfig { name: "testkit".to_owned(), nodes, operation_timeout_ms: 5_000 })
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

    /// In good order: hands the leadership over first.
    pub async fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    /// # Panics
    /// The node does not start again.
    pub async fn restart(&mut self, index: usize) {
        self.stop(index).await;
        let grpc = std::net::TcpListener::bind(&self.addresses[index]).expect("its own port");
        let node = Node::start(self.config(index), NodeListeners { grpc, http: bind() })
            .await
            .expect("a node that starts");
        self.nodes[index] = Some(node);
    }
}

fn bind() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")
}
