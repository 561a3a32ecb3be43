//! Calls of Envoy's rate limit service, as an Envoy makes them: one unary `ShouldRateLimit` for each request, each for one
//! of many users. Whoever serves it: a gateway of Quorate, Limitador, any other.
//!
//! Not an Envoy: nothing is charged afterwards, and a call that is over the limit counts as an error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::uri::PathAndQuery;
use quorate_rpc::tls::Security;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::bench::load::Work;

const TIMEOUT: Duration = Duration::from_secs(10);
const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Code `OK` of Envoy's contract.
const OK: i32 = 1;
/// An odd number near 2^64 / φ: its multiples visit all users, neighbours far apart (Knuth, TAOCP 3, 6.4).
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// What each call says.
#[derive(Debug, Clone)]
pub struct RlsPlan {
    /// `host:port`, or a URL of it
    pub target: String,
    pub security: Security,
    pub domain: String,
    /// The key of the one entry of the one descriptor; its value is the user.
    pub key: String,
    pub users: u64,
    pub hits: u32,
    pub connections: usize,
}

#[derive(Debug)]
pub struct RlsWork {
    channels: Vec<Channel>,
    plan: RlsPlan,
    next: AtomicU64,
}

/// Envoy's `RateLimitRequest`, as far as a caller needs it. Numbers are those of `envoy/service/ratelimit/v3/rls.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct RateLimitRequest {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    hits_addend: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    overall_code: i32,
}

impl RlsWork {
    /// # Errors
    /// The target is no address.
    pub fn new(plan: RlsPlan) -> Result<Self> {
        let address = plan.target.trim_start_matches("http://").trim_end_matches('/');
        let connect = |_| Ok(quorate_rpc::channel(address, &plan.security)?);
        let channels = (0..plan.connections.max(1)).map(connect).collect::<Result<_>>()?;
        Ok(Self { channels, plan, next: AtomicU64::new(0) })
    }

    fn request(&self) -> RateLimitRequest {
        let number = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) % self.plan.users.max(1);
        let entry = Entry { key: self.plan.key.clone(), value: format!("user-{number}") };
        RateLimitRequest {
            domain: self.plan.domain.clone(),
            descriptors: vec![Descriptor { entries: vec![entry] }],
            hits_addend: self.plan.hits,
        }
    }
}

impl Work for RlsWork {
    type Client = Grpc<Channel>;

    fn client(&self, number: usize) -> Grpc<Channel> {
        Grpc::new(self.channels[number % self.channels.len()].clone())
    }

    async fn step(&self, client: &mut Grpc<Channel>) -> Result<(), String> {
        client.ready().await.map_err(|error| error.to_string())?;
        let mut request = tonic::Request::new(self.request());
        request.set_timeout(TIMEOUT);
        let codec: ProstCodec<RateLimitRequest, RateLimitResponse> = ProstCodec::default();
        let answer = client.unary(request, PathAndQuery::from_static(METHOD), codec).await;
        match answer.map_err(|status| status.message().to_owned())?.into_inner().overall_code {
            OK => Ok(()),
            code => Err(format!("the service answered code {code} where OK ({OK}) was expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost::Message as _;

    use super::*;

    fn plan(users: u64) -> RlsPlan {
        RlsPlan {
            target: "http://127.0.0.1:1/".to_owned(),
            security: Security::Plain,
            domain: "d".to_owned(),
            key: "k".to_owned(),
            users,
            hits: 2,
            connections: 1,
        }
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_envoys_contract() {
        let work = RlsWork::new(plan(1)).unwrap();
        // domain "d"; a descriptor with the entry k=user-0; hits 2.
        let expected = b"\x0a\x01d\x12\x0d\x0a\x0b\x0a\x01k\x12\x06user-0\x18\x02";
        assert_eq!(work.request().encode_to_vec(), expected);
    }

    #[tokio::test]
    async fn every_user_has_a_turn() {
        let work = RlsWork::new(plan(16)).unwrap();
        let users: HashSet<String> =
            (0..16).map(|_| work.request().descriptors[0].entries[0].value.clone()).collect();
        assert_eq!(users.len(), 16);
    }
}
