//! A node: opens its replica, serves gRPC and HTTP, and stops in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use quorate_replica::{Peer, Replica, ReplicaConfig, ReplicaError, Role, Status, Timers};
use quorate_rpc::admin::admin_server::AdminServer;
use quorate_rpc::budget::budget_server::BudgetServer;
use quorate_rpc::tls::{self, ClientCertificates, HttpListener, Names, Protocol, ServerTls, TlsFiles};
use quorate_rpc::{DESCRIPTORS, MESSAGE_MAX_BYTES};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::access_layer::AccessLayer;
use crate::admin_changes::Changes;
use crate::admin_drains::Drains;
use crate::admin_members::Members;
use crate::admin_reads::Reads;
use crate::admin_service::AdminService;
use crate::alerts::Alerts;
use crate::backups;
use crate::budget_service::BudgetService;
use crate::config::NodeConfig;
use crate::decisions::Decisions;
use crate::error::NodeError;
use crate::forward::Forwarder;
use crate::http::HttpServer;
use crate::key_set::KeySets;
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::policy_changes::PolicyChanges;
use crate::policy_events::WATCHES_MAX;
use crate::proposer::Proposer;
use crate::secrets::Secrets;
use crate::tenants::Tenants;
use crate::watch_service::Watches;
use crate::watchers::Watchers;
use crate::webhook::Webhooks;

const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAMS_MAX: u32 = 4_096;
/// For what was answered and is still on its way.
const GIVE_UP_DRAIN: Duration = Duration::from_millis(500);

/// Bound before anything is opened, so that a port in use costs nothing.
#[derive(Debug)]
pub struct NodeListeners {
    pub grpc: std::net::TcpListener,
    pub http: std::net::TcpListener,
}

#[derive(Debug)]
pub struct Node {
    replica: Replica,
    tenants: Arc<Tenants>,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    drain: Duration,
    stop: CancellationToken,
    under_way: TaskTracker,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    failure: watch::Receiver<Option<String>>,
}

impl Node {
    /// # Errors
    /// Names the address and the config key.
    pub fn bind(config: &NodeConfig) -> Result<NodeListeners, NodeError> {
        Ok(NodeListeners {
            grpc: config.listen_on("listen", &config.listen)?,
            http: config.listen_on("http_listen", &config.http_listen)?,
        })
    }

    /// Opens the data folder and serves. Forms the cluster with the peers in the background, if it is new.
    ///
    /// # Errors
    /// The data folder cannot be opened, or the configuration contradicts itself.
    pub async fn start(config: NodeConfig, listeners: NodeListeners) -> Result<Self, NodeError> {
        let peers: Vec<Peer> =
            config.peers.iter().map(|peer| Peer { id: peer.id, address: peer.address.clone() }).collect();
        check_peers(&config, &peers)?;
        config.clock.check()?;
        let http_tls = config.http_tls.as_ref();
        let http_tls = http_tls.map(|files| files.server(Names::HTTP_TLS, Protocol::Http1)).transpose()?;
        let replica = Replica::open(replica_config(&config)?).await?;
        let metrics = Arc::new(Metrics::new());
        let proposer = Proposer::start(replica.clone(), &config.limits, metrics.clone());
        let tenants = Tenants::new(replica.clone(), proposer.clone(), metrics.clone(), &config.limits);
        let (stop, under_way) = (CancellationToken::new(), TaskTracker::new());
        let grpc_address =
            listeners.grpc.local_addr().map_err(|error| NodeError::Serve(error.to_string()))?;
        let http_address =
            listeners.http.local_addr().map_err(|error| NodeError::Serve(error.to_string()))?;
        let policies = Policies::new(replica.clone(), &config.alerts);
        let alerts = Alerts {
            cluster: config.cluster.clone(),
            replica: replica.clone(),
            proposer,
            policies: policies.clone(),
            webhooks: Webhooks::new()?,
            secrets: Secrets { dir: config.secrets.dir.clone() },
            metrics: metrics.clone(),
        };
        let routes = routes(&config, &replica, &tenants, &policies, &metrics, (&stop, &under_way)).await?;
        let incoming = Incoming::new(tokio_listener(listeners.grpc)?, config.tls.as_ref())?;
        let http_listener = HttpListener::new(tokio_listener(listeners.http)?, http_tls);
        if let Incoming::Tls(_, tls) = &incoming {
            metrics.follow_tls(tls.clone());
        }
        let http = HttpServer { replica: replica.clone(), metrics: metrics.clone() };
        let server = tokio::spawn(serve(routes, incoming, metrics.refused_calls.clone(), stop.clone()));
        let (failed, failure) = watch::channel(None);
        let tasks = vec![
            tokio::spawn(http.serve(http_listener, stop.clone())),
            tokio::spawn(tenants.clone().follow_leadership()),
            tokio::spawn(policies.follow(metrics)),
            tokio::spawn(alerts.run()),
            tokio::spawn(bootstrap(replica.clone(), peers, failed.clone())),
            tokio::spawn(watch_for_failure(replica.clone(), failed)),
        ];
        let drain = Duration::from_millis(config.limits.drain_ms);
        Ok(Self {
            replica,
            tenants,
            grpc_address,
            http_address,
            drain,
            stop,
            under_way,
            server,
            tasks,
            failure,
        })
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.replica.status()
    }

    /// Resolves when the node cannot go on, with the whole message: its storage failed, somebody else runs under its id, or
    /// it was removed from the cluster.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        let failed = failure.wait_for(Option::is_some).await.map(|failure| failure.clone());
        match failed {
            Ok(Some(reason)) => reason,
            // The watchers end only with the node.
            _ => std::future::pending().await,
        }
    }

    /// Hands the leadership over, answers what is in flight, closes the data folder.
    pub async fn stop(self) {
        if self.replica.status().borrow().role == Role::Leader {
            match self.replica.transfer_leadership(None).await {
                Ok(leader) => tracing::info!(leader, "handed the leadership over"),
                Err(error) => tracing::warn!(%error, "stopping as leader; the others will elect another"),
            }
        }
        self.close().await;
    }

    /// After `failed`: what is in flight cannot be answered, except what has been, and who asked should turn to another node
    /// soon.
    pub async fn give_up(mut self) {
        self.drain = self.drain.min(GIVE_UP_DRAIN);
        self.close().await;
    }

    /// Like `stop`, but for a whole cluster that goes down at once: there is nobody to hand the leadership to.
    pub async fn close(self) {
        self.stop.cancel();
        self.under_way.close();
        let deadline = tokio::time::Instant::now() + self.drain;
        // What its peers send may be what an operation waits for.
        let _ = tokio::time::timeout_at(deadline, self.under_way.wait()).await;
        self.replica.leave_streams();
        let mut server = self.server;
        if tokio::time::timeout_at(deadline, &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.tenants.stop_all();
        self.replica.shutdown().await;
    }
}

pub(crate) fn check_peers(config: &NodeConfig, peers: &[Peer]) -> Result<(), NodeError> {
    let me = peers.iter().find(|peer| peer.id == config.id);
    match me {
        None => Err(NodeError::Config(format!("peers: node {} itself is not among them; add it", config.id))),
        Some(me) if me.address != config.advertised() => Err(NodeError::Config(format!(
            "peers: node {} stands there as {}, but its own address is {} (advertise, or listen)",
            config.id,
            me.address,
            config.advertised()
        ))),
        Some(_) => Ok(()),
    }
}

pub(crate) fn replica_config(config: &NodeConfig) -> Result<ReplicaConfig, NodeError> {
    let mut replica = ReplicaConfig::new(&config.cluster, config.id, &config.data_dir);
    replica.timers = Timers {
        heartbeat_ms: config.raft.heartbeat_ms,
        election_min_ms: config.raft.election_min_ms,
        election_max_ms: config.raft.election_max_ms,
    };
    replica.clock_offset_max_ms = config.clock.max_offset_ms;
    replica.snapshot_every_entries = config.limits.snapshot_every_entries;
    replica.keep_entries = config.limits.log_keep_entries;
    replica.security = config.security()?;
    Ok(replica)
}

async fn routes(
    config: &NodeConfig,
    replica: &Replica,
    tenants: &Arc<Tenants>,
    policies: &Arc<Policies>,
    metrics: &Arc<Metrics>,
    (stop, under_way): (&CancellationToken, &TaskTracker),
) -> Result<Routes, NodeError> {
    let forwarder = Arc::new(Forwarder::new(replica.clone()));
    let watchers = Watchers::new(config.id);
    let watches = Watches {
        replica: replica.clone(),
        keys: KeySets::new(replica.clone()),
        watchers: watchers.clone(),
        stop: stop.clone(),
    };
    let budget = BudgetService {
        decisions: Decisions {
            tenants: tenants.clone(),
            metrics: metrics.clone(),
            default_timeout: Duration::from_millis(config.limits.operation_timeout_ms),
        },
        forwarder: forwarder.clone(),
        watches,
        metrics: metrics.clone(),
        session_in_flight: config.limits.session_in_flight,
        stop: stop.clone(),
        under_way: under_way.clone(),
    };
    let changes = Changes { tenants: tenants.clone() };
    let admin = AdminService {
        cluster: config.cluster.clone(),
        replica: replica.clone(),
        reads: Reads { replica: replica.clone() },
        policies: policies.clone(),
        policy_changes: PolicyChanges {
            replica: replica.clone(),
            policies: policies.clone(),
            changes: changes.clone(),
            turn: Arc::default(),
        },
        drains: Drains { replica: replica.clone(), changes: changes.clone(), policies: policies.clone() },
        changes,
        members: Members { replica: replica.clone(), forwarder: forwarder.clone() },
        forwarder,
        watchers,
        started: Instant::now(),
        event_watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        backups: Arc::new(Semaphore::new(backups::AT_ONCE)),
        stop: stop.clone(),
    };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| NodeError::Serve(error.to_string()))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<BudgetServer<BudgetService>>().await;
    reporter.set_serving::<AdminServer<AdminService>>().await;
    Ok(Routes::new(replica.raft_service())
        .add_service(BudgetServer::new(budget))
        .add_service(
            AdminServer::new(admin)
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(health)
        .add_service(reflection))
}

/// Connections to the gRPC port.
enum Incoming {
    Plain(TcpIncoming),
    Tls(TcpListener, Arc<ServerTls>),
}

impl Incoming {
    fn new(listener: TcpListener, tls: Option<&TlsFiles>) -> Result<Self, NodeError> {
        let Some(files) = tls else {
            return Ok(Self::Plain(TcpIncoming::from(listener).with_nodelay(Some(true))));
        };
        let tls = ServerTls::new(files.named(Names::TLS), ClientCertificates::Required, Protocol::Grpc)?;
        Ok(Self::Tls(listener, Arc::new(tls)))
    }
}

fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

async fn serve(routes: Routes, incoming: Incoming, refused: Counter, stop: CancellationToken) {
    let served = match incoming {
        Incoming::Plain(incoming) => {
            let server = server().add_routes(routes);
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        }
        Incoming::Tls(listener, tls) => {
            let incoming = tls::incoming(listener, tls);
            let server = server().layer(AccessLayer { refused }).add_routes(routes);
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// Finds the node its place, and then watches whether it keeps it.
async fn bootstrap(replica: Replica, peers: Vec<Peer>, failed: watch::Sender<Option<String>>) {
    let ended = match replica.bootstrap(&peers).await {
        Err(error) => error,
        Ok(()) => replica.until_removed(&peers).await,
    };
    match ended {
        removed @ ReplicaError::Removed { .. } => {
            tracing::error!("{removed}");
            failed.send_replace(Some(removed.to_string()));
        }
        // Somebody else's mistake, perhaps; but to go on would be to share an identity.
        error @ (ReplicaError::DuplicateNode { .. }
        | ReplicaError::OtherCluster { .. }
        | ReplicaError::OtherNode { .. }) => {
            failed.send_replace(Some(cannot_go_on(&replica, &error.to_string())));
        }
        error => tracing::error!(%error, "cannot join the cluster"),
    }
    // Keeps the sender: `failed` must not see the channel closed.
    std::future::pending::<()>().await;
}

async fn watch_for_failure(replica: Replica, failed: watch::Sender<Option<String>>) {
    let mut status = replica.status();
    if let Ok(status) = status.wait_for(|status| status.fatal.is_some()).await {
        let fatal = status.fatal.as_deref().map(|fatal| cannot_go_on(&replica, fatal));
        failed.send_replace(fatal);
    }
    std::future::pending::<()>().await;
}

fn cannot_go_on(replica: &Replica, reason: &str) -> String {
    format!("node {} cannot go on: {reason}", replica.node_id())
}

fn tokio_listener(listener: std::net::TcpListener) -> Result<TcpListener, NodeError> {
    let serve = |error: std::io::Error| NodeError::Serve(error.to_string());
    listener.set_nonblocking(true).map_err(serve)?;
    TcpListener::from_std(listener).map_err(serve)
}
