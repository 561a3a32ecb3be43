//! How what Envoy's rate limit service has begun comes to its end: settled by any call, under any policy, by whoever has
//! room for it.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::rate_limit::{Door, reservation, told};
use super::world::{PER_USER, until};
use crate::lower;

const LIMITS: &str = "
domain: llm
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: input
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000}
  - key: requests
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 1000}
";

/// No window ends while a test looks at it.
fn per_user() -> String {
    PER_USER.replace("Week", "Year")
}

#[tokio::test]
async fn each_limit_of_a_reservation_may_be_settled_with_its_own_number() {
    let door = Door::new(LIMITS).await;
    let response = door.ask("llm", &["input=a 100", "requests=a 1"]).await;
    let name = reservation(&response);
    let input = format!("input=a quorate_reservation={name} 70");
    let requests = format!("requests=a quorate_reservation={name} 2");
    assert_eq!(door.told("llm", &[&input, &requests]).await, "OK, OK 0, OK 0");
    door.world.resolved().await;
    assert_eq!((door.spent("llm/input", "a"), door.spent("llm/requests", "a")), (70, 2));
    // What is named by none keeps what was held.
    let response = door.ask("llm", &["input=b 100", "requests=b 1"]).await;
    let input = format!("input=b quorate_reservation={} 70", reservation(&response));
    door.ask("llm", &[&input]).await;
    door.world.resolved().await;
    assert_eq!((door.spent("llm/input", "b"), door.spent("llm/requests", "b")), (70, 1));
}

#[tokio::test]
async fn two_subjects_of_one_budget_are_charged_each_its_own() {
    let door = Door::new(&per_user()).await;
    let ask = ["x-user-id=alice quorate_reservation=hold 100", "x-user-id=bob quorate_reservation=hold 50"];
    let name = reservation(&door.ask("quorate", &ask).await);
    let alice = format!("x-user-id=alice quorate_reservation={name} 10");
    let bob = format!("x-user-id=bob quorate_reservation={name} 20");
    door.ask("quorate", &[&alice, &bob]).await;
    door.world.resolved().await;
    assert_eq!(door.world.account("per-user", "alice"), (10, 0));
    assert_eq!(door.world.account("per-user", "bob"), (20, 0));
}

#[tokio::test]
async fn a_policy_that_changes_between_does_not_keep_a_reservation_from_being_settled() {
    let both = format!("{}---{}", per_user(), per_user().replace("name: per-user", "name: other"));
    let door = Door::new(&both).await;
    let response = door.ask("quorate", &["x-user-id=alice quorate_reservation=hold 100"]).await;
    assert_eq!(told(&response), "OK, OK 150");
    door.world.put_policy(2, lower::compile(&per_user()).unwrap());
    let said = format!("x-user-id=alice quorate_reservation={} 10", reservation(&response));
    assert_eq!(door.told("quorate", &[&said]).await, "OK, OK 0");
    door.world.resolved().await;
    assert_eq!(door.world.account("per-user", "alice"), (10, 0));
    assert_eq!(door.world.metric("quorate_gateway_rate_limit_kept_total"), Some(1.0));
    // It is there again.
    door.world.put_policy(3, lower::compile(&both).unwrap());
    assert_eq!(door.world.account("other", "alice"), (100, 0));
}

#[tokio::test]
async fn what_only_the_newer_policy_holds_is_held_and_named() {
    let door = Door::new(LIMITS).await;
    let newer = LIMITS.replace("key: user", "key: user\n    value: a\n    reserve: true");
    // The nodes have it before the gateway has.
    door.world.keeper.put_policy(&lower::compile(&newer).unwrap());
    let (response, ()) = tokio::join!(door.ask("llm", &["user=a 4"]), async {
        until("it is asked for under the older one", || door.world.keeper.reserves() == 1).await;
        door.world.put_policy(2, lower::compile(&newer).unwrap());
    });
    assert_eq!(told(&response), "OK, OK 6");
    let said = format!("quorate_reservation={} 3", reservation(&response));
    door.ask("llm", &[&said]).await;
    door.world.resolved().await;
    assert_eq!(door.spent("llm/user=a", ""), 3);
}

#[tokio::test]
async fn what_is_charged_is_charged_although_its_settlement_gets_lost() {
    let door = Door::new(LIMITS).await;
    door.world.keeper.lose_the_next_end();
    assert_eq!(door.told("llm", &["user=a 30"]).await, "OVER, OVER 0");
    door.world.resolved().await;
    // All of it, and not only what there was room for.
    assert_eq!(door.spent("llm/user", "a"), 30);
}

#[tokio::test]
async fn what_outlives_its_call_keeps_its_place() {
    let door = Door::with(LIMITS, ", in_flight_max: 1").await;
    let response = door.ask("llm", &["input=a 100"]).await;
    let said = format!("quorate_reservation={} 70", reservation(&response));
    door.world.keeper.hold_back_ends(true);
    door.ask("llm", &[&said]).await;
    let asked = door.try_ask("nobody", &["user=a"]).await;
    assert_eq!(asked.unwrap_err().code(), tonic::Code::ResourceExhausted);
    assert_eq!(door.world.metric("quorate_gateway_rate_limit_turned_away_total"), Some(1.0));
    door.world.keeper.hold_back_ends(false);
    door.world.resolved().await;
    assert_eq!(door.spent("llm/input", "a"), 70);
    while door.try_ask("nobody", &["user=a"]).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_proxy_may_ask_how_the_service_is() {
    let door = Door::new(LIMITS).await;
    let address = door.world.gateway.rate_limit_address().unwrap();
    let channel = quorate_rpc::channel(&address.to_string(), &quorate_rpc::tls::Security::Plain).unwrap();
    let mut client = HealthClient::new(channel);
    for name in ["", "envoy.service.ratelimit.v3.RateLimitService"] {
        let request = HealthCheckRequest { service: name.to_owned() };
        while client.check(request.clone()).await.unwrap().into_inner().status() != ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    }
    let unknown = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
}
