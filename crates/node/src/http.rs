//! /metrics, /healthz and /readyz over HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use quorate_replica::Replica;
use quorate_rpc::tls::HttpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 128;

#[derive(Debug, Clone)]
pub(crate) struct HttpServer {
    pub replica: Replica,
    pub metrics: Arc<Metrics>,
}

impl HttpServer {
    pub async fn serve(self, mut listener: HttpListener, stop: CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (server, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| std::future::ready(server.answer(&request)));
                let mut http = http1::Builder::new();
                let connection = http
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = connection => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, kind, text) = match request.uri().path() {
            "/metrics" => (
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.page(&self.replica),
            ),
            "/healthz" => match self.replica.status().borrow().fatal.clone() {
                None => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
                Some(fatal) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{fatal}\n")),
            },
            "/readyz" if self.replica.status().borrow().leader.is_some() => {
                (StatusCode::OK, "text/plain", "ok\n".to_owned())
            }
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no leader is known\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "text/plain", "known: /metrics, /healthz, /readyz\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        Ok(response)
    }
}
