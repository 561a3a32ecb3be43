//! Envoy's rate limit service over gRPC, against a ledger in memory.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use quorate_rpc::rls::rate_limit_response::Code;
use quorate_rpc::rls::rate_limit_response::rate_limit::Unit;
use quorate_rpc::rls::rate_limit_service_client::RateLimitServiceClient;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use tonic::transport::Channel;

use super::provider::{answer, chat};
use super::world::{PER_USER, World};

/// A gateway with the service, and a proxy.
pub(crate) struct Door {
    pub(crate) world: World,
    client: RateLimitServiceClient<Channel>,
}

/// `a=b c=d 5`: two entries, five hits; without a number, none are named.
pub(crate) fn descriptor(text: &str) -> RateLimitDescriptor {
    let mut one = RateLimitDescriptor::default();
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) => one.entries.push(Entry { key: key.to_owned(), value: value.to_owned() }),
            None => one.hits_addend = Some(word.parse().unwrap()),
        }
    }
    one
}

fn section(more: &str) -> String {
    format!("rate_limit: {{listen: '127.0.0.1:0'{more}}}\n")
}

impl Door {
    pub(crate) async fn new(policy: &str) -> Self {
        Self::with(policy, "").await
    }

    pub(crate) async fn with(policy: &str, more: &str) -> Self {
        Self::of(World::with(policy, &section(more)).await)
    }

    /// Another one of the same cluster.
    pub(crate) async fn beside(&self, policy: &str, more: &str) -> Self {
        Self::of(self.world.beside(policy, &section(more)).await)
    }

    fn of(world: World) -> Self {
        let address = world.gateway.rate_limit_address().unwrap();
        let channel = quorate_rpc::channel(&address.to_string(), &quorate_rpc::tls::Security::Plain).unwrap();
        let client = RateLimitServiceClient::new(channel);
        Self { world, client }
    }

    pub(crate) async fn send(&self, request: RateLimitRequest) -> Result<RateLimitResponse, tonic::Status> {
        self.client.clone().should_rate_limit(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn try_ask(
        &self,
        domain: &str,
        descriptors: &[&str],
    ) -> Result<RateLimitResponse, tonic::Status> {
        let descriptors = descriptors.iter().map(|text| descriptor(text)).collect();
        self.send(RateLimitRequest { domain: domain.to_owned(), descriptors, hits_addend: 0 }).await
    }

    pub(crate) async fn ask(&self, domain: &str, descriptors: &[&str]) -> RateLimitResponse {
        self.try_ask(domain, descriptors).await.unwrap()
    }

    /// `OK 9`, `OVER 0`: code and what is left, for each descriptor; first the code of all.
    pub(crate) async fn told(&self, domain: &str, descriptors: &[&str]) -> String {
        told(&self.ask(domain, descriptors).await)
    }

    pub(crate) fn spent(&self, budget: &str, subject: &str) -> u64 {
        self.world.account(budget, subject).0
    }
}

pub(crate) fn code(code: i32) -> &'static str {
    if code == Code::Ok as i32 { "OK" } else { "OVER" }
}

pub(crate) fn told(response: &RateLimitResponse) -> String {
    let mut text = code(response.overall_code).to_owned();
    for status in &response.statuses {
        text.push_str(&format!(", {} {}", code(status.code), status.limit_remaining));
    }
    text
}

fn headers(response: &RateLimitResponse) -> BTreeMap<&str, &str> {
    response.response_headers_to_add.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect()
}

const SHOP: &str = "
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: user
    value: banned
    rate_limit: {unit: year, requests_per_unit: 0}
  - key: user
    value: free
    rate_limit: {unlimited: true}
  - key: path
    value: /img/*
    share_threshold: true
    rate_limit: {unit: year, requests_per_unit: 5}
  - key: tokens
    descriptors:
      - key: user
        rate_limit: {unit: year, requests_per_unit: 250}
";

#[tokio::test]
async fn limits_count_and_end() {
    let door = Door::new(SHOP).await;
    for expected in ["OK, OK 2", "OK, OK 1", "OK, OK 0", "OVER, OVER 0"] {
        assert_eq!(door.told("shop", &["user=alice"]).await, expected);
    }
    for (descriptors, expected) in [
        (&["user=bob"][..], "OK, OK 2"),
        (&["user=banned"], "OVER, OVER 0"),
        (&["user=free"], "OK, OK 4294967295"),
        (&["user=carol", "user=banned"], "OVER, OK 2, OVER 0"),
        (&["other=x"], "OK, OK 0"),
        (&["user=alice other=x"], "OK, OK 0"),
        // Of one account twice in one call, the second has what the first left.
        (&["user=dora 2", "user=dora 2"], "OVER, OK 1, OVER 0"),
        (&["path=/img/a 3"], "OK, OK 2"),
        (&["path=/img/b 3"], "OVER, OVER 0"),
    ] {
        assert_eq!(door.told("shop", descriptors).await, expected, "{descriptors:?}");
    }
    assert_eq!(door.told("nobody", &["user=alice"]).await, "OK, OK 0");
    // Counted although another one was over.
    assert_eq!(door.spent("shop/user", "carol"), 1);
}

#[tokio::test]
async fn what_was_used_is_charged_beyond_the_limit() {
    let door = Door::new(SHOP).await;
    assert_eq!(door.told("shop", &["tokens=x user=alice 0"]).await, "OK, OK 250");
    assert_eq!(door.told("shop", &["tokens=x user=alice 200"]).await, "OK, OK 50");
    assert_eq!(door.told("shop", &["tokens=x user=alice 100"]).await, "OVER, OVER 0");
    assert_eq!(door.spent("shop/tokens/user", "x + alice"), 300);
    assert_eq!(door.told("shop", &["tokens=x user=alice 0"]).await, "OVER, OVER 0");
    // Looking charges nothing.
    assert_eq!(door.spent("shop/tokens/user", "x + alice"), 300);
}

#[tokio::test]
async fn one_call_is_one_operation_that_says_all() {
    let door = Door::new(SHOP).await;
    let mut request = RateLimitRequest {
        domain: "shop".to_owned(),
        descriptors: vec![descriptor("user=alice")],
        hits_addend: 2,
    };
    let response = door.send(request.clone()).await.unwrap();
    let status = &response.statuses[0];
    let limit = status.current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit()), (3, Unit::Year));
    assert!((1..=31_622_400).contains(&status.duration_until_reset.as_ref().unwrap().seconds));
    let said = headers(&response);
    assert_eq!((said["RateLimit-Limit"], said["RateLimit-Remaining"]), ("3", "1"));
    assert!(said["RateLimit-Reset"].parse::<u64>().unwrap() <= 31_622_400);
    let over = door.send(request.clone()).await.unwrap();
    let said = headers(&over);
    assert_eq!((said["RateLimit-Remaining"], said["content-type"]), ("0", "application/json"));
    assert!(said.contains_key("retry-after"));
    let body: serde_json::Value = serde_json::from_slice(&over.raw_body).unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota");
    assert!(body["error"]["message"].as_str().unwrap().contains("shop/user"), "{body}");
    for (change, said) in [
        (&(|r: &mut RateLimitRequest| r.domain.clear()) as &dyn Fn(&mut RateLimitRequest), "domain"),
        (&|r| r.descriptors.clear(), "descriptor list"),
        (&|r| r.descriptors[0].is_negative_hits = true, "taken back"),
        (&|r| r.descriptors[0].limit = Some(RateLimitOverride::default()), "unit"),
    ] {
        let before = request.clone();
        change(&mut request);
        let status = door.send(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert!(status.message().contains(said), "{status}");
        request = before;
    }
}

#[tokio::test]
async fn a_limit_may_come_with_the_descriptor() {
    let door = Door::new(SHOP).await;
    let mut one = descriptor("user=alice 3");
    one.limit = Some(RateLimitOverride { requests_per_unit: 5, unit: 6, unit_multiplier: None });
    let request = RateLimitRequest { domain: "shop".to_owned(), descriptors: vec![one], hits_addend: 0 };
    assert_eq!(told(&door.send(request.clone()).await.unwrap()), "OK, OK 2");
    assert_eq!(told(&door.send(request).await.unwrap()), "OVER, OVER 0");
    assert_eq!(door.spent("shop/user", "alice"), 0);
    assert_eq!(door.spent("shop/override/Year", "user=alice"), 6);
}

const MODES: &str = "
domain: modes
descriptors:
  - key: shadow
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: plain
    rate_limit: {unit: year, requests_per_unit: 1, name: plain}
  - key: instead
    rate_limit: {unit: year, requests_per_unit: 4, replaces: [{name: plain}]}
  - key: one
    quota_mode: true
    metadata: {pool: {one: 1}}
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: two
    quota_mode: true
    metadata: {pool: {two: true}}
    rate_limit: {unit: year, requests_per_unit: 2}
";

#[tokio::test]
async fn modes_of_limits() {
    let door = Door::with(MODES, ", dynamic_metadata: true").await;
    assert_eq!(door.told("modes", &["shadow=x 3"]).await, "OK, OK 0");
    assert_eq!(door.spent("modes/shadow", "x"), 3);
    // Replaced: neither counted nor over.
    assert_eq!(door.told("modes", &["plain=x 3", "instead=x"]).await, "OK, OK 0, OK 3");
    assert_eq!(door.spent("modes/plain", "x"), 0);
    assert_eq!(door.told("modes", &["one=x", "two=x"]).await, "OK, OK 0, OK 1");
    let response = door.ask("modes", &["one=x", "two=x"]).await;
    assert_eq!(told(&response), "OK, OVER 0, OK 0");
    let metadata = format!("{:?}", response.dynamic_metadata.unwrap().fields["metadata"]);
    assert!(metadata.contains("two") && !metadata.contains("one"), "{metadata}");
    assert_eq!(door.told("modes", &["one=x", "two=x"]).await, "OVER, OVER 0, OVER 0");

    let shadow = Door::with(MODES, ", shadow_mode: true").await;
    assert_eq!(shadow.told("modes", &["plain=x 3"]).await, "OK, OVER 0");
    let quota = Door::with(MODES, ", quota_mode: true").await;
    assert_eq!(quota.told("modes", &["plain=x 3", "instead=y"]).await, "OK, OK 0, OK 3");
    assert_eq!(quota.told("modes", &["plain=x 3", "one=x"]).await, "OK, OVER 0, OK 0");
}

const STRICT: &str = "
domain: strict
descriptors:
  - key: user
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 250}
  - key: team
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 1000}
  - key: held
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 250}
";

#[tokio::test]
async fn whole_or_not_at_all() {
    let door = Door::new(STRICT).await;
    assert_eq!(door.told("strict", &["user=a 300", "team=t 300"]).await, "OVER, OVER 0, OK 1000");
    assert_eq!((door.spent("strict/user", "a"), door.spent("strict/team", "t")), (0, 0));
    let asked = (0..20).map(|_| door.told("strict", &["user=a 100", "team=t 100"]));
    let passed = join_all(asked).await.iter().filter(|told| told.starts_with("OK")).count();
    assert_eq!((passed, door.spent("strict/user", "a"), door.spent("strict/team", "t")), (2, 200, 200));
    assert_eq!(door.told("strict", &["user=a 900", "team=t 900"]).await, "OVER, OVER 0, OVER 0");
}

pub(crate) fn reservation(response: &RateLimitResponse) -> String {
    let header = &response.request_headers_to_add[0];
    assert_eq!(header.key, "x-quorate-reservation");
    let fields = &response.dynamic_metadata.as_ref().unwrap().fields;
    assert!(format!("{:?}", fields["quorate_reservation"]).contains(&header.value));
    header.value.clone()
}

#[tokio::test]
async fn reserved_and_settled_by_another_call() {
    let door = Door::new(STRICT).await;
    for way in ["held=a 100", "user=b quorate_reservation=hold 100"] {
        let (budget, subject) = if way.starts_with('h') { ("held", "a") } else { ("user", "b") };
        let budget = format!("strict/{budget}");
        let way = [way];
        let asked = (0..20).map(|_| door.ask("strict", &way));
        let responses = join_all(asked).await;
        let held: Vec<String> =
            responses.iter().filter(|response| told(response).starts_with("OK")).map(reservation).collect();
        assert_eq!(held.len(), 2, "{way:?}");
        assert_eq!(door.world.account(&budget, subject), (0, 200));
        for (name, used) in held.iter().zip([30, 0]) {
            let said = format!("quorate_reservation={name} {used}");
            assert_eq!(door.told("strict", &[&said]).await, "OK, OK 0");
        }
        door.world.resolved().await;
        assert_eq!(door.world.account(&budget, subject), (30, 0));
    }
    // Held, and over by another limit of the same call: given back.
    assert_eq!(door.told("strict", &["held=c 100", "user=c 300"]).await, "OVER, OK 150, OVER 0");
    door.world.resolved().await;
    assert_eq!(door.world.account("strict/held", "c"), (0, 0));
}

const BUDGETS: &str = "
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: dollars}
spec:
  subject: [user]
  limit: {dollars: 1}
  window: Year
---
apiVersion: quorate.dev/v1alpha1
kind: ModelPrice
metadata: {name: m}
spec:
  model: m
  input: 100
  output: 400
";

/// No window ends while a test looks at it.
fn budgets() -> String {
    format!("{}---{BUDGETS}", PER_USER.replace("Week", "Year"))
}

#[tokio::test]
async fn the_accounts_of_all_other_policies() {
    let door = Door::new(&budgets()).await;
    // Some of it at the HTTP door, the rest here.
    door.world.provider.plays([answer("200 OK", &chat(40, 60))]);
    assert_eq!(door.world.chat("").await.status, 200);
    door.world.resolved().await;
    assert_eq!(door.world.alice().0, 100);
    assert_eq!(door.told("quorate", &["user=alice 0"]).await, "OK, OK 150");
    assert_eq!(door.told("quorate", &["x-user-id=alice model=m 100"]).await, "OK, OK 50");
    assert_eq!(door.world.alice().0, 200);
    // A total says nothing of dollars; input and output told apart do.
    let dollars = || door.world.keeper.account("default", "dollars", "alice").unwrap().spent.micros();
    let before = dollars();
    let told = door
        .told(
            "quorate",
            &["user=alice model=m hits=input_tokens 20", "user=alice model=m hits=output_tokens 30"],
        )
        .await;
    assert!(told.starts_with("OK"), "{told}");
    assert_eq!((door.world.alice().0, dollars() - before), (250, 20 * 100 + 30 * 400));
    // What is used up here is used up there.
    assert_eq!(door.world.chat("").await.status, 429);
    assert_eq!(door.told("quorate", &["header:x-user-id=alice 0"]).await, "OVER, OVER 0");
    assert_eq!(door.told("quorate", &["tenant=acme user=alice 0"]).await, "OK, OK 1");
}

#[tokio::test]
async fn a_reservation_of_attributes() {
    let door = Door::new(&budgets()).await;
    let ask = [
        "user=alice model=m hits=input_tokens quorate_reservation=hold 100",
        "user=alice model=m hits=output_tokens quorate_reservation=hold 100",
    ];
    let response = door.ask("quorate", &ask).await;
    assert_eq!(code(response.overall_code), "OK");
    assert_eq!(door.world.alice(), (0, 200));
    let name = reservation(&response);
    let said = format!("user=alice model=m hits=input_tokens quorate_reservation={name} 10");
    let more = format!("user=alice model=m hits=output_tokens quorate_reservation={name} 20");
    door.ask("quorate", &[&said, &more]).await;
    door.world.resolved().await;
    let dollars = door.world.keeper.account("default", "dollars", "alice").unwrap();
    assert_eq!((door.world.alice(), dollars.spent.micros()), ((30, 0), 10 * 100 + 20 * 400));
}

const LEASED: &str = "
domain: leased
descriptors:
  - key: user
    enforcement: Lease
    rate_limit: {unit: year, requests_per_unit: 100000}
  - key: few
    enforcement: Lease
    rate_limit: {unit: year, requests_per_unit: 10}
";

#[tokio::test]
async fn leased_limits_are_spent_here_and_never_exceeded() {
    let door = Door::new(LEASED).await;
    let (mut asked, mut before) = (0, u64::MAX);
    // Until a slice is here: calls go by without a command.
    while *door.world.keeper.applied().borrow() != before {
        assert!(asked < 50_000, "never from a slice");
        before = *door.world.keeper.applied().borrow();
        assert!(door.told("leased", &["user=a"]).await.starts_with("OK"));
        asked += 1;
    }
    let passed = {
        let mut passed = 0;
        for _ in 0..50 {
            passed += usize::from(door.told("leased", &["few=a"]).await.starts_with("OK"));
        }
        passed
    };
    assert_eq!(passed, 10);
    let core = std::sync::Arc::clone(&door.world.core);
    assert!(core.leases.stop(std::time::Duration::from_secs(10)).await);
    door.world.resolved().await;
    assert_eq!(door.spent("leased/user", "a"), asked);
    assert_eq!(door.spent("leased/few", "a"), 10);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_an_error() {
    let door = Door::new(SHOP).await;
    door.world.keeper.set_reachable(false);
    let request = RateLimitRequest {
        domain: "shop".to_owned(),
        descriptors: vec![descriptor("user=alice")],
        hits_addend: 0,
    };
    assert_eq!(door.send(request).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert_eq!(door.told("shop", &["user=free"]).await, "OK, OK 4294967295");
}

#[tokio::test]
async fn one_subject_too_many_is_over() {
    let door = Door::new(&SHOP.replace(
        "rate_limit: {unit: year, requests_per_unit: 3}",
        "rate_limit: {unit: year, requests_per_unit: 3}\n    accounts_max: 1",
    ))
    .await;
    assert_eq!(door.told("shop", &["user=a"]).await, "OK, OK 2");
    assert_eq!(door.told("shop", &["user=b", "path=/img/x"]).await, "OVER, OVER 0, OK 4");
}

#[tokio::test]
async fn metrics_of_limits() {
    let door = Door::new(SHOP).await;
    door.told("shop", &["user=alice 2"]).await;
    door.told("shop", &["user=alice 2"]).await;
    // Of the second two, one had room.
    let counts = [("hits", 4.0), ("within_limit", 2.0), ("near_limit", 1.0), ("over_limit", 1.0)];
    for (name, count) in counts {
        let name = format!("quorate_gateway_rate_limit_{name}_total{{limit=\"shop.user\"}}");
        assert_eq!(door.world.metric(&name), Some(count), "{name}");
    }
    assert_eq!(door.world.metric("quorate_gateway_rate_limit_calls_total{code=\"over_limit\"}"), Some(1.0));
}
