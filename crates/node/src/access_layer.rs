//! Stands before all services of a node that speaks TLS: lets through what `access` allows, counts what it refuses, and
//! sees to it that the name in the audit log is the certificate's.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{HeaderMap, HeaderValue, Request, Response};
use prometheus_client::metrics::counter::Counter;
use quorate_rpc::tls::{Identity, Peer, Role};
use quorate_rpc::{BY_HEADER, FORWARDED_HEADER};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;
use tower_service::Service;

use crate::access;

#[derive(Debug, Clone)]
pub(crate) struct AccessLayer {
    pub refused: Counter,
}

#[derive(Debug, Clone)]
pub(crate) struct Access<S> {
    inner: S,
    refused: Counter,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, refused: self.refused.clone() }
    }
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let identity = peer.as_ref().and_then(|peer| peer.identity.as_deref());
        if let Err(why) = access::check(request.uri().path(), identity) {
            self.refused.inc();
            tracing::warn!(from = ?peer.and_then(|peer| peer.address), why, "refused a call");
            return Either::Left(ready(Ok(Status::permission_denied(why).into_http())));
        }
        if let Some(identity) = identity {
            sign(request.headers_mut(), identity);
        }
        // Where the services look for the caller's address.
        let remote_addr = peer.and_then(|peer| peer.address);
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
        Either::Right(self.inner.call(request))
    }
}

/// Who asks is who the certificate names. A node that passes a call on has seen that of the caller.
fn sign(headers: &mut HeaderMap, identity: &Identity) {
    if identity.has(Role::Node) && headers.contains_key(FORWARDED_HEADER) {
        return;
    }
    let name = identity.name.escape_default().to_string();
    let said = headers.get(BY_HEADER).and_then(|said| said.to_str().ok()).map(str::trim);
    let by = match said.filter(|said| !said.is_empty() && *said != name) {
        Some(said) => format!("{name} (as {said})"),
        None => name,
    };
    // Escaped, and what was said came as a header: it fits into one.
    if let Ok(by) = HeaderValue::try_from(by) {
        headers.insert(BY_HEADER, by);
    } else {
        headers.remove(BY_HEADER);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Answers all.
    #[derive(Debug)]
    struct Open;

    impl Service<Request<Body>> for Open {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = Ready<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Body::empty())))
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_counted() {
        let refused = Counter::default();
        let mut access = AccessLayer { refused: refused.clone() }.layer(Open);
        let mut answered = 0;
        for (identity, path) in [
            (Some(Role::Read), "/quorate.admin.v1.Admin/ListNodes"),
            (Some(Role::Read), "/quorate.admin.v1.Admin/ApplyPolicy"),
            (Some(Role::Read), "//quorate.admin.v1.Admin/Unheard"),
            (None, "/quorate.admin.v1.Admin/ListNodes"),
        ] {
            let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let identity =
                identity.map(|role| Arc::new(Identity { name: "x".to_owned(), roles: vec![role] }));
            request.extensions_mut().insert(Peer { address: None, identity });
            let answer = access.call(request).await.unwrap();
            answered += u64::from(!answer.headers().contains_key("grpc-status"));
        }
        // And one that did not come over TLS at all.
        access.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!((answered, refused.get()), (1, 4));
    }

    #[test]
    fn the_name_is_the_certificates() {
        for (cn, role, forwarded, said, by) in [
            ("alice", Role::Admin, false, None, "alice"),
            ("alice", Role::Admin, false, Some("alice"), "alice"),
            ("alice", Role::Admin, false, Some(" "), "alice"),
            ("alice", Role::Admin, false, Some("ci job 7"), "alice (as ci job 7)"),
            ("alice", Role::Admin, true, Some("bob"), "alice (as bob)"),
            ("n1", Role::Node, true, Some("bob"), "bob"),
            ("n1", Role::Node, false, Some("bob"), "n1 (as bob)"),
            ("zoë", Role::Admin, false, None, "zo\\u{eb}"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(BY_HEADER, HeaderValue::from_static(said));
            }
            if forwarded {
                headers.insert(FORWARDED_HEADER, HeaderValue::from_static("1"));
            }
            sign(&mut headers, &Identity { name: cn.to_owned(), roles: vec![role] });
            assert_eq!(headers.get(BY_HEADER).unwrap(), by);
        }
    }
}
