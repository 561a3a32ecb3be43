//! Limits that are all or nothing, beside others of the same call: in quotas, under the gateway's own modes, and with what
//! is leased or held.

use std::sync::Arc;
use std::time::Duration;

use super::rate_limit::{Door, reservation, told};

const POOLS: &str = "
domain: pools
descriptors:
  - key: small
    quota_mode: true
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: large
    quota_mode: true
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 100}
  - key: small_held
    quota_mode: true
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: large_held
    quota_mode: true
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 100}
  - key: plain
    enforcement: Reserve
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: held
    reserve: true
    rate_limit: {unit: year, requests_per_unit: 10}
  - key: leased
    enforcement: Lease
    rate_limit: {unit: year, requests_per_unit: 100000}
";

impl Door {
    /// Of several accounts, `small x`: what was spent.
    fn all_spent(&self, accounts: &[&str]) -> Vec<u64> {
        let spent = |account: &&str| {
            let (budget, subject) = account.split_once(' ').unwrap();
            self.spent(&format!("pools/{budget}"), subject)
        };
        accounts.iter().map(spent).collect()
    }

    async fn settled(&self, name: &str, used: u64) {
        let said = format!("quorate_reservation={name} {used}");
        assert_eq!(self.told("pools", &[&said]).await, "OK, OK 0");
        self.world.resolved().await;
    }
}

#[tokio::test]
async fn a_quota_that_is_used_up_does_not_keep_another_from_being_charged() {
    let door = Door::new(POOLS).await;
    for ask in [["small=x 50", "large=x 50"], ["large=x 50", "small=x 50"]] {
        assert!(door.told("pools", &ask).await.starts_with("OK"));
    }
    assert_eq!(door.all_spent(&["small x", "large x"]), [0, 100]);
    let response = door.ask("pools", &["small_held=x 50", "large_held=x 50"]).await;
    assert_eq!(told(&response), "OK, OVER 0, OK 50");
    door.settled(&reservation(&response), 30).await;
    assert_eq!(door.all_spent(&["small_held x", "large_held x"]), [0, 30]);
}

#[tokio::test]
async fn what_is_over_as_it_stands_keeps_the_rest_from_being_charged() {
    let door = Door::new(POOLS).await;
    // More than can be counted.
    for ask in [["plain=x 1", "held=x 2000000000000000"], ["leased=x 1", "held=x 2000000000000000"]] {
        assert!(door.told("pools", &ask).await.starts_with("OVER"));
    }
    door.world.resolved().await;
    assert_eq!(door.all_spent(&["plain x", "leased x"]), [0, 0]);
}

#[tokio::test]
async fn a_refusal_says_all_that_was_asked_of_the_account() {
    let door = Door::new(POOLS).await;
    let response = door.ask("pools", &["held=x 4", "held=x 7"]).await;
    let body = String::from_utf8(response.raw_body.to_vec()).unwrap();
    assert!(body.contains("10 of 10 are left, and 11 were asked for"), "{body}");
}

#[tokio::test]
async fn what_refuses_the_call_keeps_its_quotas_from_being_charged() {
    let door = Door::new(POOLS).await;
    assert_eq!(door.told("pools", &["large=x 5", "plain=x 11"]).await, "OVER, OK 100, OVER 0");
    assert_eq!(door.told("pools", &["plain=x 11", "large=x 5"]).await, "OVER, OVER 0, OK 100");
    // All quotas are over.
    let all = ["small=x 11", "large=x 101", "plain=x 1"];
    assert_eq!(door.told("pools", &all).await, "OVER, OVER 0, OVER 0, OK 10");
    let held = ["small_held=x 11", "large=x 101", "plain=x 1"];
    assert_eq!(door.told("pools", &held).await, "OVER, OVER 0, OVER 0, OK 10");
    assert_eq!(door.all_spent(&["small x", "large x", "plain x"]), [0, 0, 0]);
}

#[tokio::test]
async fn every_limit_is_a_quota_where_the_gateway_says_so() {
    let door = Door::with(POOLS, ", quota_mode: true").await;
    assert_eq!(door.told("pools", &["plain=x 50", "large=x 50"]).await, "OK, OVER 0, OK 50");
    assert_eq!(door.all_spent(&["plain x", "large x"]), [0, 50]);
    let response = door.ask("pools", &["held=x 50", "large_held=x 50"]).await;
    assert_eq!(told(&response), "OK, OVER 0, OK 50");
    door.settled(&reservation(&response), 20).await;
    assert_eq!(door.all_spent(&["held x", "large_held x"]), [0, 20]);
}

#[tokio::test]
async fn every_limit_counts_in_shadow_mode() {
    let door = Door::with(POOLS, ", shadow_mode: true").await;
    assert_eq!(door.told("pools", &["plain=x 50", "large=x 50"]).await, "OK, OVER 0, OK 50");
    assert_eq!(door.told("pools", &["leased=x 100001", "plain=y"]).await, "OK, OVER 0, OK 9");
    assert_eq!(door.all_spent(&["plain x", "large x", "leased x", "plain y"]), [50, 50, 100_001, 1]);
    let response = door.ask("pools", &["held=x 50", "large_held=x 50"]).await;
    assert_eq!(told(&response), "OK, OVER 0, OK 50");
    door.settled(&reservation(&response), 60).await;
    let response = door.ask("pools", &["held=x 50"]).await;
    assert_eq!(told(&response), "OK, OVER 0");
    door.settled(&reservation(&response), 7).await;
    assert_eq!(door.all_spent(&["held x", "large_held x"]), [67, 60]);
}

#[tokio::test]
async fn what_is_held_and_what_is_charged_at_once_are_one() {
    let door = Door::new(POOLS).await;
    assert_eq!(door.told("pools", &["held=a 11", "plain=a 1"]).await, "OVER, OVER 0, OK 10");
    assert_eq!(door.told("pools", &["plain=a 1", "held=a 11"]).await, "OVER, OK 10, OVER 0");
    assert_eq!(door.told("pools", &["held=a 1", "plain=a 11"]).await, "OVER, OK 9, OVER 0");
    // Given back.
    door.world.resolved().await;
    assert_eq!(door.told("pools", &["plain=a 11", "held=a 1"]).await, "OVER, OVER 0, OK 9");
    door.world.resolved().await;
    assert_eq!(door.all_spent(&["held a", "plain a"]), [0, 0]);
}

#[tokio::test]
async fn what_is_leased_and_what_is_not_are_one() {
    let door = Door::new(POOLS).await;
    // Until a slice is here.
    let (mut asked, mut before) = (0, u64::MAX);
    while *door.world.keeper.applied().borrow() != before {
        assert!(asked < 50_000, "never from a slice");
        before = *door.world.keeper.applied().borrow();
        assert_eq!(door.ask("pools", &["leased=a"]).await.overall_code, 1);
        asked += 1;
    }
    for refused in [["leased=a 5", "plain=a 11"], ["plain=a 11", "leased=a 5"], ["leased=a 5", "held=a 11"]] {
        assert!(door.told("pools", &refused).await.starts_with("OVER"), "{refused:?}");
    }
    assert!(door.told("pools", &["leased=a 3", "plain=a 2"]).await.starts_with("OK"));
    let core = Arc::clone(&door.world.core);
    assert!(core.leases.stop(Duration::from_secs(10)).await);
    door.world.resolved().await;
    assert_eq!(door.all_spent(&["leased a", "plain a", "held a"]), [asked + 3, 2, 0]);
}
