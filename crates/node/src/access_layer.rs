//! Stands before all services of a node that speaks TLS: lets through what `access` allows, and sees to it that the
//! name in the audit log is the certificate's.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{HeaderMap, HeaderValue, Request, Response};
use quorate_rpc::tls::{Identity, Peer, Role};
use quorate_rpc::{BY_HEADER, FORWARDED_HEADER};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower_layer::Layer;
use tower_service::Service;

use crate::access;

#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessLayer;

#[derive(Debug, Clone)]
pub(crate) struct Access<S> {
    inner: S,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { inner }
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
    use super::*;

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
