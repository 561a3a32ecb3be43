//! Replicas in this process, talking over loopback.
#![allow(dead_code, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_ledger::{Amount, BudgetRule, Charge, Command, Ledger, Outcome, ReservationId, Unit, Window};
use quorate_replica::{Clock, Peer, Replica, ReplicaConfig, ReplicaError, Role, Status};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

pub const CLUSTER: &str = "test";
pub const TENANT: &str = "acme";
/// For everything that must happen, also on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Node {
    pub replica: Replica,
    server: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Node {
    async fn serve(replica: Replica, listener: TcpListener) -> Self {
        let router = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .add_service(replica.raft_service());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
        });
        Self { replica, server, stop }
    }

    pub async fn stop(self) {
        // Peers are told that their connections end, and raft ends the streams on them.
        self.stop.send(()).unwrap();
        self.replica.shutdown().await;
        tokio::time::timeout(PATIENCE, self.server).await.expect("the server does not end").unwrap();
    }

    pub async fn wait(&self, what: &str, condition: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.replica.status();
        // What is seen is a lock, and whoever holds it must not ask for the status again.
        let seen = async { status.wait_for(condition).await.unwrap().clone() };
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(seen) => seen,
            Err(_) => panic!("not in time: {what}; status: {:?}", self.replica.status().borrow()),
        }
    }
}

/// Three nodes, some of which may be down.
pub struct Cluster {
    pub peers: Vec<Peer>,
    /// Keep the addresses of nodes that are down from everybody else.
    reserved: Vec<TcpSocket>,
    pub folders: Vec<tempfile::TempDir>,
    pub nodes: Vec<Option<Node>>,
    pub snapshot_every: u64,
    /// How far each node's wall clock is ahead, in milliseconds.
    pub ahead_ms: Vec<Arc<AtomicI64>>,
    pub cluster: String,
    /// Of the only node, instead of one that goes with this value.
    pub fixed_folder: Option<PathBuf>,
}

impl Cluster {
    /// Reserves addresses and folders; nothing runs yet.
    pub async fn new(size: u64) -> Self {
        log();
        let reserved: Vec<TcpSocket> = (0..size).map(|_| reserve_address()).collect();
        let peers: Vec<Peer> = reserved.iter().zip(1..).map(|(socket, id)| peer(socket, id)).collect();
        let folders = peers.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let nodes = peers.iter().map(|_| None).collect();
        let ahead_ms = peers.iter().map(|_| Arc::default()).collect();
        Self {
            peers,
            reserved,
            folders,
            nodes,
            snapshot_every: 20_000,
            ahead_ms,
            cluster: CLUSTER.to_owned(),
            fixed_folder: None,
        }
    }

    pub async fn formed(size: u64) -> Self {
        let mut cluster = Self::new(size).await;
        cluster.start_all().await;
        cluster
    }

    pub async fn start_all(&mut self) {
        for index in 0..self.peers.len() {
            self.open(index).await;
        }
        let joined = self.nodes.iter().flatten().map(|node| node.replica.bootstrap(&self.peers));
        for result in tokio::time::timeout(PATIENCE, futures_util::future::join_all(joined)).await.unwrap() {
            result.unwrap();
        }
    }

    pub fn config(&self, index: usize) -> ReplicaConfig {
        let mut config = ReplicaConfig::new(&self.cluster, self.peers[index].id, self.folder(index));
        config.snapshot_every_entries = self.snapshot_every;
        config.keep_entries = self.snapshot_every / 4;
        let ahead_ms = self.ahead_ms[index].clone();
        config.clock = Clock::new(move || real_ms().saturating_add_signed(ahead_ms.load(Ordering::Relaxed)));
        config
    }

    pub fn folder(&self, index: usize) -> PathBuf {
        let own = || self.folders[index].path().join("data");
        self.fixed_folder.clone().unwrap_or_else(own)
    }

    pub async fn open(&mut self, index: usize) {
        let address: SocketAddr = self.peers[index].address.parse().unwrap();
        let replica = Replica::open(self.config(index)).await.unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        self.nodes[index] = Some(Node::serve(replica, listener).await);
    }

    pub async fn start(&mut self, index: usize) -> Result<(), ReplicaError> {
        self.open(index).await;
        self.bootstrap(index).await
    }

    pub async fn bootstrap(&self, index: usize) -> Result<(), ReplicaError> {
        let bootstrap = self.node(index).replica.bootstrap(&self.peers);
        tokio::time::timeout(PATIENCE, bootstrap)
            .await
            .unwrap_or_else(|_| panic!("node {index} finds no place"))
    }

    /// One more address and folder, with the next id. Nothing runs there yet, and nobody knows of it.
    pub async fn spare(&mut self) -> usize {
        let id = u64::try_from(self.peers.len()).unwrap() + 1;
        let socket = reserve_address();
        self.peers.push(peer(&socket, id));
        self.reserved.push(socket);
        self.folders.push(tempfile::tempdir().unwrap());
        self.nodes.push(None);
        self.ahead_ms.push(Arc::default());
        self.peers.len() - 1
    }

    /// Opens the node and has it look for its place, with this list of peers.
    pub async fn start_in_background(&mut self, index: usize, peers: Vec<Peer>) -> JoinHandle<ReplicaError> {
        self.open(index).await;
        let replica = self.node(index).replica.clone();
        tokio::spawn(async move {
            match replica.bootstrap(&peers).await {
                Ok(()) => replica.until_removed(&peers).await,
                Err(error) => error,
            }
        })
    }

    pub async fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    pub async fn stop_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.stop(index).await;
        }
    }

    pub fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    /// Position of a running node that leads.
    pub async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let leads = |node: &Option<Node>| {
                node.as_ref().is_some_and(|node| node.replica.status().borrow().role == Role::Leader)
            };
            if let Some(index) = self.nodes.iter().position(leads) {
                return index;
            }
            assert!(tokio::time::Instant::now() < deadline, "no leader in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Proposes at whoever leads, until it is applied. Operations are idempotent.
    pub async fn apply(&self, commands: Vec<Command>) -> Vec<Outcome> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            let proposed = self.node(leader).replica.propose(commands.clone());
            match tokio::time::timeout(PATIENCE, proposed).await.unwrap() {
                Ok(applied) => return applied.outcomes,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every running node has applied what the leader has.
    pub async fn settle(&self) -> Ledger {
        let leader = self.node(self.leader().await);
        tokio::time::timeout(PATIENCE, leader.replica.linearize()).await.unwrap().unwrap();
        let (ledger, index) = leader.replica.read(|ledger, point| (ledger.clone(), point.index));
        for node in self.nodes.iter().flatten() {
            let mut applied = node.replica.applied();
            let caught_up = applied.wait_for(|applied| *applied >= index);
            tokio::time::timeout(PATIENCE, caught_up).await.expect("a node lags").unwrap();
            if node.replica.read(|_, point| point.index) == index {
                assert_eq!(node.replica.read(|ledger, _| ledger.clone()), ledger);
            }
        }
        ledger
    }
}

/// A free address that nobody else is given, and at which a node of ours can listen: the socket is bound and no more.
fn reserve_address() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

fn peer(socket: &TcpSocket, id: u64) -> Peer {
    Peer { id, address: socket.local_addr().unwrap().to_string() }
}

pub fn real_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub fn policy() -> Command {
    let limit = Amount::from_units(1_000_000_000).unwrap();
    Command::PutPolicy {
        expected_version: None,
        rules: vec![BudgetRule::new("all", Unit::Tokens, limit, Window::Lifetime)],
        document: "test".into(),
        staged: None,
        by: String::new(),
        comment: String::new(),
    }
}

pub fn new_id() -> ReservationId {
    ReservationId::from_u128(uuid::Uuid::now_v7().as_u128()).unwrap()
}

pub fn reserve(id: ReservationId) -> Command {
    let amount = Amount::from_units(1).unwrap();
    let charge = Charge { budget: "all".into(), subject: "alice".into(), amount, at_least: amount };
    Command::Reserve { tenant: TENANT.into(), id, charges: vec![charge], ttl_ms: 86_400_000, wait: false }
}

/// Batches of reservations, one after the other.
pub async fn load(cluster: &Cluster, batches: usize, size: usize) -> Vec<ReservationId> {
    let mut ids = Vec::new();
    for _ in 0..batches {
        let batch: Vec<_> = (0..size).map(|_| new_id()).collect();
        let outcomes = cluster.apply(batch.iter().map(|id| reserve(*id)).collect()).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Granted(_))), "{outcomes:?}");
        ids.extend(batch);
    }
    ids
}

pub fn assert_holds(ledger: &Ledger, ids: &[ReservationId]) {
    let held: std::collections::BTreeSet<_> = ledger.reservations(TENANT).map(|view| view.id).collect();
    let lost: Vec<_> = ids.iter().filter(|id| !held.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged reservations lost", lost.len(), ids.len());
}

/// `RUST_LOG=quorate_replica=debug,openraft=info` shows what happens.
pub fn log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}
