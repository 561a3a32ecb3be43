//! Calls of Envoy's rate limit service, as an Envoy makes them: one unary `ShouldRateLimit` for each request, each for one
//! of many users. Whoever serves it: a gateway of Quorate, Limitador, any other.
//!
//! Not an Envoy: nothing is charged afterwards, and a call that is over the limit counts as an error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor::Entry,
};
use quorate_rpc::rls::RateLimitRequest;
use quorate_rpc::rls::rate_limit_response::Code;
use quorate_rpc::rls::rate_limit_service_client::RateLimitServiceClient;
use quorate_rpc::tls::Security;
use tonic::transport::Channel;

use crate::bench::load::Work;

const TIMEOUT: Duration = Duration::from_secs(10);
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
            descriptors: vec![RateLimitDescriptor { entries: vec![entry], ..Default::default() }],
            hits_addend: self.plan.hits,
        }
    }
}

impl Work for RlsWork {
    type Client = RateLimitServiceClient<Channel>;

    fn client(&self, number: usize) -> RateLimitServiceClient<Channel> {
        RateLimitServiceClient::new(self.channels[number % self.channels.len()].clone())
    }

    async fn step(&self, client: &mut RateLimitServiceClient<Channel>) -> Result<(), String> {
        let mut request = tonic::Request::new(self.request());
        request.set_timeout(TIMEOUT);
        let answer = client.should_rate_limit(request).await.map_err(|status| status.message().to_owned())?;
        match answer.into_inner().overall_code() {
            Code::Ok => Ok(()),
            code => Err(format!("the service answered {} where OK was expected", code.as_str_name())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
    async fn every_user_has_a_turn() {
        let work = RlsWork::new(plan(16)).unwrap();
        let users: HashSet<String> =
            (0..16).map(|_| work.request().descriptors[0].entries[0].value.clone()).collect();
        assert_eq!(users.len(), 16);
    }
}
