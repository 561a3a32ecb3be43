//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them, within the limits of the config.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use quorate_rpc::tls::{HttpListener, HttpStream};
use tokio::{sync::Semaphore, time::timeout};

use crate::{core::Core, io::TimedIo, pipeline};

/// Between two pings on an HTTP/2 connection, and how long its answer may take.
const PING: Duration = Duration::from_secs(20);

fn builder(core: &Core) -> auto::Builder<TokioExecutor> {
    let header_bytes = core.config.limits.header_bytes_max;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(core.config.timeouts.header_ms))
        .max_buf_size(header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX));
    builder
}

/// Serves until the core's `stop`, then lets what is at work finish; returns when the last connection has closed, or
/// when `stop_ms` are over.
pub(crate) async fn serve(mut listener: HttpListener, core: Arc<Core>) {
    let builder = Arc::new(builder(&core));
    let places = Arc::new(Semaphore::new(core.config.limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            () = core.stop.cancelled() => break,
            // Never closed.
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
        };
        let (stream, source) = tokio::select! {
            () = core.stop.cancelled() => break,
            (stream, source) = listener.accept() => (stream, source.ip()),
        };
        let (core, builder, watcher) = (Arc::clone(&core), Arc::clone(&builder), graceful.watcher());
        tokio::spawn(async move {
            core.metrics.connections.inc();
            connection(&core, &builder, stream, source, watcher).await;
            core.metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    let within = Duration::from_millis(core.config.timeouts.stop_ms);
    if timeout(within, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

async fn connection(
    core: &Arc<Core>,
    builder: &auto::Builder<TokioExecutor>,
    stream: HttpStream,
    source: IpAddr,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let timeouts = &core.config.timeouts;
    let io = TimedIo::new(
        stream,
        Duration::from_millis(timeouts.header_ms),
        Duration::from_millis(timeouts.write_ms),
    );
    let service = service_fn(|request| {
        let core = Arc::clone(core);
        // Boxed: hyper moves it around, and clears its place after each request.
        Box::pin(async move { Ok::<_, Infallible>(pipeline::handle(core, source, request).await) })
    });
    if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(io), service)).await {
        tracing::debug!(%error, "connection ended");
    }
}
