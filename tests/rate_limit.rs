//! Envoy's rate limit service before a cluster of real processes: limits by the command line and by a control plane's
//! stream, on the accounts that the HTTP door charges.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::pin::Pin;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use quorate_rpc::discovery::{DiscoveryRequest, DiscoveryResponse};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor as Asked;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use quorate_rpc::rls::rate_limit_response::Code;
use quorate_rpc::rls::rate_limit_service_client::RateLimitServiceClient;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use quorate_rpc::rls_config::{RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit};
use quorate_rpc::rls_discovery::rate_limit_config_discovery_service_server::{
    RateLimitConfigDiscoveryService, RateLimitConfigDiscoveryServiceServer,
};
use quorate_rpc::tls::Security;
use serde_json::json;
use support::{Deployment, free_address};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// As Envoy AI Gateway's users write it: 250 tokens a year for each user.
const POLICY: &str = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: tokens, namespace: ai}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}]
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
          limit: {requests: 250, unit: Year}
          cost:
            request: {from: Number, number: 0}
            response: {from: Metadata, metadata: {namespace: io.envoy.ai_gateway, key: llm_total_token}}
";
const LIMITS: &str = "
domain: shop
descriptors:
  - key: user
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 250}
";

const HELD: &str = "
domain: held
descriptors:
  - key: user
    enforcement: Lease
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000000}
";

struct Door(RateLimitServiceClient<Channel>);

impl Door {
    fn new(address: &str) -> Self {
        Self(RateLimitServiceClient::new(quorate_rpc::channel(address, &Security::Plain).unwrap()))
    }

    async fn ask(
        &self,
        domain: &str,
        key: &str,
        value: &str,
        hits: u64,
    ) -> Result<RateLimitResponse, Status> {
        let entry = Entry { key: key.to_owned(), value: value.to_owned() };
        let one = Asked { entries: vec![entry], hits_addend: Some(hits), ..Asked::default() };
        let request = RateLimitRequest { domain: domain.to_owned(), descriptors: vec![one], hits_addend: 0 };
        self.0.clone().should_rate_limit(request).await.map(Response::into_inner)
    }

    async fn passes(&self, domain: &str, key: &str, value: &str, hits: u64) -> bool {
        self.ask(domain, key, value, hits).await.unwrap().overall_code() == Code::Ok
    }
}

/// Two gateways with this door, and their addresses.
async fn doors(deployment: &mut Deployment, more: &str) -> Vec<Door> {
    let mut doors = Vec::new();
    for _ in 0..2 {
        let address = free_address();
        let lines = format!("rate_limit:\n  listen: '{address}'\n{more}");
        let backend = [("mock", deployment.provider_address.clone())];
        deployment.start_gateway_with(&backend, &lines).await;
        doors.push(Door::new(&address));
    }
    doors
}

#[tokio::test(flavor = "multi_thread")]
async fn two_doors_and_http_have_one_account() {
    let mut deployment = Deployment::without_gateways(POLICY).await;
    let doors = doors(&mut deployment, "").await;
    let path = deployment.folder.path().join("limits.yaml");
    std::fs::write(&path, LIMITS).unwrap();
    let path = path.to_str().unwrap();
    assert!(deployment.quorate(&["validate", "-f", path]).unwrap().contains("valid"));
    assert!(
        deployment.quorate(&["apply", "-f", path]).unwrap().contains("ratelimitconfig default/shop created")
    );
    assert!(deployment.quorate(&["diff", "-f", path]).unwrap().is_empty());
    assert!(deployment.quorate(&["get", "policies"]).unwrap().contains("RateLimitConfig"));
    deployment.all_gateways_run_the_policy_in_force().await;

    // 20 at once on two processes: two of 100 fit into 250.
    let asked = (0..20).map(|n| doors[n % 2].passes("shop", "user", "a", 100));
    let passed = join_all(asked).await.into_iter().filter(|passed| *passed).count();
    assert_eq!(passed, 2);
    deployment.until_account("shop/user", "a", |account| account.spent_micros == 200_000_000).await;

    // A user's tokens are one account, whichever door asks.
    let body = json!({"model": "gpt-4o-mini", "max_tokens": 90, "messages": [{"role": "user", "content": "Hi"}],
        "metadata": {"mock_input_tokens": "10", "mock_tokens": "90"}});
    assert_eq!(deployment.chat(0, "u", &body).await.unwrap().status, 200);
    let budget = "ai/tokens";
    deployment.until_account(budget, "u", |account| account.spent_micros == 100_000_000).await;
    assert!(doors[1].passes("quorate", "user", "u", 0).await);
    assert!(doors[1].passes("quorate", "x-user-id", "u", 100).await);
    deployment.until_account(budget, "u", |account| account.spent_micros == 200_000_000).await;
    assert_eq!(deployment.chat(1, "u", &body).await.unwrap().status, 429);
    // What was used already is charged, also beyond the limit.
    assert!(!doors[0].passes("quorate", "user", "u", 100).await);
    assert!(!doors[0].passes("quorate", "user", "u", 100).await);
    deployment.until_account(budget, "u", |account| account.spent_micros == 400_000_000).await;

    assert!(deployment.quorate(&["delete", "-f", path]).unwrap().contains("shop deleted"));
    deployment.until(async || doors[0].passes("shop", "user", "a", 1_000).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_held_from_leases_outlives_it() {
    let mut deployment = Deployment::without_gateways(HELD).await;
    let doors = doors(&mut deployment, "  hold_from_leases: true\n").await;
    // A slice takes a moment.
    let answer = loop {
        if let Ok(answer) = doors[0].ask("held", "user", "a", 100).await {
            break answer;
        }
    };
    let name = &answer.request_headers_to_add[0].value;
    let budget = "held/user";
    // A slice has room for those that come after it.
    deployment.until_account(budget, "a", |account| account.reserved_micros > 100_000_000).await;
    deployment.gateways[0].signal("-TERM");
    deployment.until_account(budget, "a", |account| account.reserved_micros == 100_000_000).await;
    assert!(doors[1].passes("held", "quorate_reservation", name, 30).await);
    let account = deployment.until_account(budget, "a", |account| account.reserved_micros == 0).await;
    assert_eq!(account.spent_micros, 30_000_000);
}

/// A control plane that sends what it is told to, and hands on what it hears.
#[derive(Debug)]
struct ControlPlane {
    heard: mpsc::UnboundedSender<DiscoveryRequest>,
    /// Of each stream, as it opens.
    streams: mpsc::UnboundedSender<mpsc::UnboundedSender<Result<DiscoveryResponse, Status>>>,
    lock: Mutex<()>,
}

#[tonic::async_trait]
impl RateLimitConfigDiscoveryService for ControlPlane {
    type StreamRlsConfigsStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn stream_rls_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamRlsConfigsStream>, Status> {
        let _one = self.lock.lock().await;
        let (say, said) = mpsc::unbounded_channel();
        let (heard, mut requests) = (self.heard.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let _ = heard.send(request);
            }
        });
        let _ = self.streams.send(say);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(said))))
    }
}

fn answer(version: &str, domain: &str, limit: u32) -> DiscoveryResponse {
    let policy = RateLimitPolicy {
        unit: RateLimitUnit::Year.into(),
        requests_per_unit: limit,
        ..RateLimitPolicy::default()
    };
    let descriptors =
        vec![RateLimitDescriptor { key: "user".to_owned(), rate_limit: Some(policy), ..Default::default() }];
    let config = RateLimitConfig { name: domain.to_owned(), domain: domain.to_owned(), descriptors };
    let type_url = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig".to_owned();
    let resource = prost_types::Any { type_url: type_url.clone(), value: config.encode_to_vec() };
    DiscoveryResponse {
        version_info: version.to_owned(),
        resources: vec![resource],
        type_url,
        nonce: format!("nonce-{version}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_sends_the_limits() {
    let mut deployment = Deployment::without_gateways(LIMITS).await;
    let (heard, mut requests) = mpsc::unbounded_channel();
    let (streams, mut opened) = mpsc::unbounded_channel();
    let plane = ControlPlane { heard, streams, lock: Mutex::default() };
    let address = free_address();
    let service = RateLimitConfigDiscoveryServiceServer::new(plane);
    tokio::spawn(Server::builder().add_service(service).serve(address.parse().unwrap()));
    let door_address = free_address();
    let lines = format!(
        "rate_limit:\n  listen: '{door_address}'\n  config_stream: {{server: '{address}', node_id: test}}\n"
    );
    let backend = [("mock", deployment.provider_address.clone())];
    deployment.start_gateway_with(&backend, &lines).await;
    let door = Door::new(&door_address);

    let mut stream = opened.recv().await.unwrap();
    let first = requests.recv().await.unwrap();
    assert_eq!((first.node.unwrap().id.as_str(), first.version_info.as_str()), ("test", ""));
    stream.send(Ok(answer("1", "eg/http", 3))).unwrap();
    let acked = requests.recv().await.unwrap();
    assert_eq!((acked.version_info.as_str(), acked.response_nonce.as_str()), ("1", "nonce-1"));
    assert!(acked.error_detail.is_none());
    deployment.until(async || !door.passes("eg/http", "user", "a", 4).await).await;

    // A domain of somebody else is refused, with the reason, and what was in force stays.
    stream.send(Ok(answer("2", "shop", 1))).unwrap();
    let refused = requests.recv().await.unwrap();
    assert_eq!((refused.version_info.as_str(), refused.response_nonce.as_str()), ("1", "nonce-2"));
    assert!(refused.error_detail.unwrap().message.contains("shop"));
    assert!(!door.passes("eg/http", "user", "b", 4).await);

    // The stream breaks and is opened again; what it does not name any more goes.
    drop(stream);
    stream = opened.recv().await.unwrap();
    assert_eq!(requests.recv().await.unwrap().version_info, "", "all of it is to be sent");
    stream.send(Ok(answer("3", "eg/other", 3))).unwrap();
    assert_eq!(requests.recv().await.unwrap().version_info, "3");
    deployment.until(async || door.passes("eg/http", "user", "b", 4).await).await;
    assert!(!door.passes("eg/other", "user", "b", 4).await);
    assert!(deployment.quorate(&["get", "policies"]).unwrap().contains("shop"));
}
