//! A running gateway: what is started together and stopped in order.

use std::{net::SocketAddr, net::TcpListener, sync::Arc, time::Duration};

use quorate_rpc::tls::{HttpListener, Names, Protocol, Security};
use quorate_rpc::{Client, ClientConfig};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::field::display;

use crate::{
    budget::{BudgetKeeper, ClusterKeeper},
    config::GatewayConfig,
    core::{Core, Followed},
    error::GatewayError,
    health,
    metrics::Metrics,
    ops,
    policy::{self, Sources},
    rate_limit, server,
    tokenizer::Tokenizer,
};

/// After answers were cut off: time to settle them.
const SETTLE_ON_STOP: Duration = Duration::from_secs(5);

/// The sockets of a gateway, bound before anything else so that a port in use is an early and clear error.
#[derive(Debug)]
pub struct GatewayListeners {
    /// `None`: applications have no door here.
    pub proxy: Option<TcpListener>,
    pub http: TcpListener,
    /// For Envoy's rate limit service.
    pub rate_limit: Option<TcpListener>,
}

/// A gateway that serves. Dropping it does not stop it; [`Gateway::stop`] does.
#[derive(Debug)]
pub struct Gateway {
    core: Arc<Core>,
    proxy_address: Option<SocketAddr>,
    http_address: SocketAddr,
    rate_limit_address: Option<SocketAddr>,
    proxy: Option<JoinHandle<()>>,
    rate_limit: Option<JoinHandle<()>>,
    http: JoinHandle<()>,
    background_stop: CancellationToken,
}

impl Gateway {
    /// Binds all addresses.
    ///
    /// # Errors
    /// [`GatewayError::Bind`] or [`GatewayError::Reach`], naming the key and the address.
    pub fn bind(config: &GatewayConfig) -> Result<GatewayListeners, GatewayError> {
        Ok(GatewayListeners {
            proxy: match config.listen.as_str() {
                "" => None,
                address => Some(config.listen_on("listen", address)?),
            },
            http: config.listen_on("http_listen", &config.http_listen)?,
            rate_limit: match &config.rate_limit {
                Some(section) => Some(config.listen_on("rate_limit.listen", &section.listen)?),
                None => None,
            },
        })
    }

    /// Starts serving; must be called inside a tokio runtime. Does not wait for the cluster: until its policy has come,
    /// requests are answered with 503.
    ///
    /// # Errors
    /// [`GatewayError`] for a wrong configuration, a missing key or unusable sockets.
    pub fn start(config: GatewayConfig, listeners: GatewayListeners) -> Result<Self, GatewayError> {
        config.check()?;
        let security = match &config.cluster_tls {
            Some(files) => Security::mutual(files.named(Names::CLUSTER_TLS))?,
            None => Security::Plain,
        };
        let client = Client::connect(ClientConfig {
            name: config.name.clone(),
            nodes: config.nodes.clone(),
            operation_timeout_ms: config.timeouts.reserve_ms,
            security,
        });
        let watched = Arc::new(client.watch());
        let stream = config.rate_limit.as_ref().and_then(|section| section.config_stream.clone());
        let metrics = Arc::new(Metrics::new());
        let sources = Arc::new(Sources::open(&config)?);
        let (active, policies) = watch::channel(None);
        let background_stop = CancellationToken::new();
        let followed = Followed { policy: policies, keys: watched.keys(), providers: watched.providers() };
        tokio::spawn(health::follow(watched.providers(), Arc::clone(&metrics), background_stop.clone()));
        let synced = watched.synced();
        if let Some(stream) = stream {
            let admin = rate_limit::admin(&config, &stream, &client)?;
            let (name, metrics) = (config.name.clone(), Arc::clone(&metrics));
            let stop = background_stop.clone();
            tokio::spawn(rate_limit::follow_config_stream(stream, name, admin, metrics, stop)?);
        }
        let keeper: Arc<dyn BudgetKeeper> = Arc::new(ClusterKeeper::new(client));
        let core = Core::new(config, Arc::clone(&sources), keeper, followed, Arc::clone(&metrics))?;
        let core = Arc::new(core);
        // The watch ends with its handle.
        tokio::spawn(policy::follow(watched, active, sources, metrics, background_stop.clone()));
        Self::serve(core, listeners, synced, background_stop)
    }

    /// Serves a core that is already there.
    pub(crate) fn serve(
        core: Arc<Core>,
        listeners: GatewayListeners,
        synced: watch::Receiver<bool>,
        background_stop: CancellationToken,
    ) -> Result<Self, GatewayError> {
        let listener = |key: &'static str, listener: TcpListener| {
            let unusable = |source| GatewayError::Bind { key, address: String::new(), source };
            listener.set_nonblocking(true).map_err(unusable)?;
            let address = listener.local_addr().map_err(unusable)?;
            Ok::<_, GatewayError>((tokio::net::TcpListener::from_std(listener).map_err(unusable)?, address))
        };
        let proxy = listeners.proxy.map(|proxy| listener("listen", proxy)).transpose()?;
        let (http, http_address) = listener("http_listen", listeners.http)?;
        let (tls, http_tls) = (core.config.tls.as_ref(), core.config.http_tls.as_ref());
        let tls = tls.map(|files| files.server(Names::GATEWAY_TLS, Protocol::Http)).transpose()?;
        let http_tls = http_tls.map(|files| files.server(Names::HTTP_TLS, Protocol::Http1)).transpose()?;
        let proxy_address = proxy.as_ref().map(|(_, address)| *address);
        let proxy = proxy.map(|(proxy, _)| HttpListener::new(proxy, tls));
        let http = HttpListener::new(http, http_tls);
        let rate_limit = match (listeners.rate_limit, &core.config.rate_limit) {
            (Some(listener), Some(section)) => Some(rate_limit::Listening::new(listener, section)?),
            _ => None,
        };
        let rate_limit_address = rate_limit.as_ref().map(|listening| listening.address);
        // Takes a moment and nobody waits for it.
        drop(tokio::task::spawn_blocking(Tokenizer::warm_up));
        let (proxy_shown, rate_limit_shown) = (proxy_address.map(display), rate_limit_address.map(display));
        tracing::info!(
            name = core.config.name, proxy = proxy_shown, http = %http_address, rate_limit = rate_limit_shown,
            "gateway serves"
        );
        Ok(Self {
            proxy: proxy.map(|proxy| tokio::spawn(server::serve(proxy, Arc::clone(&core)))),
            rate_limit: rate_limit
                .map(|listening| tokio::spawn(rate_limit::serve(listening, Arc::clone(&core)))),
            rate_limit_address,
            http: tokio::spawn(ops::serve(http, Arc::clone(&core), synced, background_stop.clone())),
            core,
            proxy_address,
            http_address,
            background_stop,
        })
    }

    /// Where applications connect; `None`: nowhere.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy_address
    }

    /// Where proxies ask for limits; `None`: nowhere.
    pub fn rate_limit_address(&self) -> Option<SocketAddr> {
        self.rate_limit_address
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Accepts nothing new, lets what is at work finish within `stop_ms`, cuts off the rest, and settles everything.
    pub async fn stop(self) {
        let core = self.core;
        let deadline = Instant::now() + Duration::from_millis(core.config.timeouts.stop_ms);
        core.stop.cancel();
        core.tasks.close();
        // What is free at once, the rest as requests end.
        let leases = core.leases.clone();
        let most = Duration::from_millis(core.config.timeouts.stop_ms) + 5 * SETTLE_ON_STOP;
        let mut returned = tokio::spawn(async move { leases.stop(most).await });
        // What proxies have held here is handed over while it is young.
        closed(self.rate_limit, deadline).await;
        core.local_holds.finish(&core).await;
        closed(self.proxy, deadline).await;
        if timeout_at(deadline, core.tasks.wait()).await.is_err() {
            tracing::warn!("what is still under way is cut off");
        }
        // Also for a request whose body is not here yet: it has no task so far.
        core.cut.cancel();
        if timeout(SETTLE_ON_STOP, core.tasks.wait()).await.is_err() {
            core.give_up.cancel();
            let ended = timeout(SETTLE_ON_STOP, core.tasks.wait()).await;
            let left = if ended.is_ok() { 0 } else { core.tasks.len() };
            tracing::error!(left, "some reservations could not be settled; they expire as reserved");
        }
        core.repayer.finish(Instant::now() + SETTLE_ON_STOP).await;
        if !matches!(timeout(SETTLE_ON_STOP, &mut returned).await, Ok(Ok(true))) {
            returned.abort();
            tracing::error!("some slices of accounts could not be returned; they expire as charged");
        }
        self.background_stop.cancel();
        // Ends at once with the token.
        let _ = self.http.await;
        tracing::info!(name = core.config.name, "gateway stopped");
    }
}

/// Connections end when their answers are complete; the listener's task bounds that by `stop_ms`.
async fn closed(listener: Option<JoinHandle<()>>, deadline: Instant) {
    let Some(listener) = listener else { return };
    match timeout_at(deadline, listener).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "a listener's task failed"),
        Err(_) => tracing::warn!("some connections were not closed in time"),
    }
}
