//! /metrics, /healthz and /readyz over HTTP/1.1.

use std::convert::Infallible;
use std::pin::pin;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 128;
/// Whoever scrapes for longer connects again; whoever does not read the answers must not keep others out.
const CONNECTION_MAX: Duration = Duration::from_secs(60);

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
                tokio::select! {
                    () = converse(stream, |request| server.answer(request)) => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
        response
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request))));
    let mut http = http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    if timeout(CONNECTION_MAX, connection.as_mut()).await.is_err() {
        // An answer that is on its way may still arrive.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEADER_TIMEOUT, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_answers_is_let_go() {
        let (mut caller, served) = tokio::io::duplex(64);
        caller.write_all(b"GET /metrics HTTP/1.1\r\nhost: n1\r\n\r\n").await.unwrap();
        let serving = converse(served, |_| Response::new(Full::new(Bytes::from(vec![b'x'; 1 << 20]))));
        timeout(Duration::from_secs(600), serving).await.expect("its place is free again");
        drop(caller);
    }
}
