//! The bounds of Envoy's rate limit service: what is too long, too much or one too many is over its limit or said to be
//! wrong, and never uncounted.

use quorate_ledger::Command;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use tonic::Code;

use super::rate_limit::{Door, descriptor, reservation, told};
use super::world::PER_USER;
use crate::lower;

const SHOP: &str = "
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: few
    accounts_max: 1
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: plain
    rate_limit: {unit: year, requests_per_unit: 3, name: plain}
  - key: plain
    value: all
    rate_limit: {unlimited: true, replaces: [{name: plain}]}
  - key: held
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: whole
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 10}
";

fn bringing(text: &str, requests_per_unit: u32) -> RateLimitRequest {
    let mut one = descriptor(text);
    one.limit = Some(RateLimitOverride { requests_per_unit, unit: 6, unit_multiplier: None });
    RateLimitRequest { domain: "shop".to_owned(), descriptors: vec![one], hits_addend: 0 }
}

async fn wrong(door: &Door, request: RateLimitRequest, said: &str) {
    let status = door.send(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(said), "{status}");
}

#[tokio::test]
async fn an_unlimited_limit_replaces_others() {
    let door = Door::new(SHOP).await;
    assert_eq!(door.told("shop", &["plain=x 9", "plain=all"]).await, "OK, OK 0, OK 4294967295");
    assert_eq!(door.spent("shop/plain", "x"), 0);
}

#[tokio::test]
async fn a_limit_that_is_brought_is_over_where_no_account_is_left() {
    let door = Door::new(SHOP).await;
    let mut rules = lower::compile(SHOP).unwrap().rules();
    rules.iter_mut().filter(|rule| rule.name == "shop/override/Year").for_each(|rule| rule.accounts_max = 1);
    door.world.keeper.apply(&Command::PutPolicy {
        expected_version: None,
        rules,
        document: String::new(),
        staged: None,
        by: String::new(),
        comment: String::new(),
    });
    assert_eq!(told(&door.send(bringing("user=a", 5)).await.unwrap()), "OK, OK 4");
    assert_eq!(told(&door.send(bringing("user=b", 5)).await.unwrap()), "OVER, OVER 0");
}

#[tokio::test]
async fn accounts_that_are_there_count_beside_one_too_many() {
    let door = Door::new(SHOP).await;
    assert_eq!(door.told("shop", &["few=a"]).await, "OK, OK 2");
    assert_eq!(door.told("shop", &["few=b", "few=a"]).await, "OVER, OVER 0, OK 1");
    assert_eq!(door.spent("shop/few", "a"), 2);
}

#[tokio::test]
async fn many_budgets_without_an_account_left_do_not_keep_the_last_from_being_charged() {
    let mut policy = SHOP.to_owned();
    for number in 0..10 {
        policy.push_str(&format!(
            "  - {{key: few{number}, accounts_max: 1, rate_limit: {{unit: year, requests_per_unit: 3}}}}\n"
        ));
    }
    let door = Door::new(&policy).await;
    let of = |subject: &str| {
        let few = (0..10).map(|number| format!("few{number}={subject}"));
        few.chain([format!("user={subject}")]).collect::<Vec<_>>()
    };
    for (subject, code, left) in [("a", "OK", 2), ("b", "OVER", 0)] {
        let asked = of(subject);
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let told = door.told("shop", &asked).await;
        let few = format!(", {code} {left}").repeat(10);
        assert_eq!(told, format!("{code}{few}, OK 2"));
    }
}

#[tokio::test]
async fn a_long_value_is_counted_and_told_from_others() {
    let door = Door::new(SHOP).await;
    let long = "x".repeat(600);
    let (one, other) = (format!("user={long}1"), format!("user={long}2"));
    assert_eq!(door.told("shop", &[&one]).await, "OK, OK 2");
    assert_eq!(door.told("shop", &[&one]).await, "OK, OK 1");
    assert_eq!(door.told("shop", &[&other, "user=short"]).await, "OK, OK 2, OK 2");
    assert_eq!(told(&door.send(bringing(&one, 5)).await.unwrap()), "OK, OK 4");
    assert_eq!(told(&door.send(bringing(&other, 5)).await.unwrap()), "OK, OK 4");
    assert_eq!(told(&door.send(bringing(&one, 5)).await.unwrap()), "OK, OK 3");
}

/// What the client reads.
fn body(response: &RateLimitResponse) -> String {
    String::from_utf8(response.raw_body.to_vec()).unwrap()
}

#[tokio::test]
async fn attributes_that_the_http_door_refuses_are_over() {
    let door = Door::new(PER_USER).await;
    let long = "x".repeat(600);
    let response = door.ask("quorate", &[&format!("x-user-id={long}"), "x-user-id=bob"]).await;
    assert_eq!(told(&response), "OVER, OVER 0, OK 249");
    assert!(body(&response).contains("shorten"), "{}", body(&response));
    assert_eq!(door.world.account("per-user", "bob"), (1, 0));
    for tenant in [format!("tenant={long}"), format!("x-tenant-id={long}"), "tenant=a\u{7}".to_owned()] {
        let response = door.ask("quorate", &[&format!("{tenant} x-user-id=bob")]).await;
        assert_eq!(told(&response), "OVER, OVER 0", "{tenant}");
        assert!(body(&response).contains("tenant"), "{}", body(&response));
    }
    // As at the HTTP door, an empty one is none.
    assert_eq!(door.told("quorate", &["tenant= x-user-id=bob"]).await, "OK, OK 248");
    assert_eq!(door.told("quorate", &["x-tenant-id= x-user-id=bob"]).await, "OK, OK 247");
}

const DOLLARS: &str = "
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: dollars}
spec:
  subject: [user]
  limit: {dollars: 1}
  window: Year
";

#[tokio::test]
async fn a_model_without_a_price_is_over_where_dollars_are_counted() {
    let door = Door::new(&format!("{PER_USER}---{DOLLARS}")).await;
    let text = "user=alice model=nobodys hits=input_tokens";
    let response = door.ask("quorate", &[&format!("{text} 20"), "user=bob 5"]).await;
    assert_eq!(told(&response), "OVER, OVER 0, OK 245");
    assert!(body(&response).contains("no price for model nobodys"), "{}", body(&response));
    // What can be told was used all the same.
    assert_eq!(door.world.account("per-user", "alice"), (20, 0));
    let response = door.ask("quorate", &[&format!("{text} quorate_reservation=hold 20")]).await;
    assert_eq!(told(&response), "OVER, OVER 0");
    assert_eq!(door.world.account("per-user", "alice"), (20, 0));
    // A budget that only watches has no say.
    let watching = DOLLARS.replace("  window", "  enforcement: Shadow\n  window");
    let door = Door::new(&format!("{PER_USER}---{watching}")).await;
    assert_eq!(door.told("quorate", &[&format!("{text} 20")]).await, "OK, OK 230");
}

#[tokio::test]
async fn a_reservation_of_no_hits_has_a_name() {
    let door = Door::new(SHOP).await;
    let response = door.ask("shop", &["held=x 0"]).await;
    assert_eq!(told(&response), "OK, OK 10");
    let said = format!("quorate_reservation={} 4", reservation(&response));
    door.ask("shop", &[&said]).await;
    door.world.resolved().await;
    assert_eq!(door.world.account("shop/held", "x"), (4, 0));
    door.ask("shop", &["held=x 6"]).await;
    assert_eq!(door.told("shop", &["held=x 0"]).await, "OVER, OVER 0");
}

#[tokio::test]
async fn what_cannot_be_is_said_before_anything_is_charged() {
    let door = Door::new(SHOP).await;
    wrong(&door, bringing("user=a quorate_reservation=hold", 5), "hold").await;
    let many: Vec<String> = (0..33).map(|number| format!("whole=x{number}")).collect();
    for key in ["whole", "held"] {
        let of_key = many.iter().map(|text| descriptor(&text.replace("whole", key)));
        let descriptors = [descriptor("user=a")].into_iter().chain(of_key).collect();
        let request = RateLimitRequest { domain: "shop".to_owned(), descriptors, hits_addend: 0 };
        wrong(&door, request, "at most 32").await;
    }
    assert_eq!(door.spent("shop/user", "a"), 0);
}
