//! The operator's side: `/metrics`, `/healthz` (the process works) and `/readyz` (it can admit requests).

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use quorate_rpc::tls::HttpListener;
use tokio::sync::{Semaphore, watch};

use crate::{core::Core, io::TimedIo};

const CONNECTIONS_MAX: usize = 64;
const WITHIN: Duration = Duration::from_secs(10);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `ends` says so: longer than the proxy, so that a stop can be watched.
pub(crate) async fn serve(
    mut listener: HttpListener,
    core: Arc<Core>,
    synced: watch::Receiver<bool>,
    ends: tokio_util::sync::CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = ends.cancelled() => return,
            (stream, _) = listener.accept() => stream,
        };
        let (core, synced, ends) = (Arc::clone(&core), synced.clone(), ends.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&core, *synced.borrow(), &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let io = TokioIo::new(TimedIo::new(stream, WITHIN, WITHIN));
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(WITHIN)
                .serve_connection(io, service);
            tokio::select! {
                () = ends.cancelled() => {}
                served = serving => if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                },
            }
            drop(place);
        });
    }
}

fn answer(core: &Core, synced: bool, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(core, synced),
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(core.metrics_text())));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn ready(core: &Core, synced: bool) -> Response<Full<Bytes>> {
    if core.stop.is_cancelled() {
        text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if !synced {
        text(StatusCode::SERVICE_UNAVAILABLE, "not connected to the budget nodes\n")
    } else if core.policy.borrow().is_none() {
        text(StatusCode::SERVICE_UNAVAILABLE, "no policy received from the budget nodes yet\n")
    } else {
        text(StatusCode::OK, "ready\n")
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
