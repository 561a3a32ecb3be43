//! Budgets with `enforcement: Lease`: most requests meet no cluster at all, and the sums are right all the same.

use std::sync::Arc;

use quorate_ledger::CLOSED_WINDOWS_MAX;

use super::{
    provider::{Step, answer, chat, delta, piece, stream_end, stream_head, usage},
    world::{PER_USER, World, chat_request, per_user},
};
use crate::lower;

const NAMED: &str = r#","max_completion_tokens":90"#;
/// Of one request, as the provider says it.
const USED: u64 = 30;
const TEAM: &str = "---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: team}
spec:
  limit: {tokens: 1000000}
  window: Week
";

fn leased(policy: &str) -> String {
    policy.replacen("  window: Week\n", "  window: Week\n  enforcement: Lease\n", 1)
}

async fn world(policy: &str) -> World {
    let world = World::new(policy).await;
    world.provider.plays([answer("200 OK", &chat(10, USED - 10))]);
    world
}

fn count(world: &World, name: &str) -> u64 {
    let name = format!("quorate_gateway_lease_{name}_total{{budget=\"per-user\"}}");
    world.metric(&name).unwrap_or_default() as u64
}

/// Asks until `times` requests were admitted from slices; how many requests that took.
async fn until_local(world: &World, times: u64) -> u64 {
    let before = count(world, "local");
    for asked in 1..10_000 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
        if count(world, "local") >= before + times {
            return asked;
        }
    }
    panic!("no slice was ever used");
}

#[tokio::test]
async fn the_cluster_is_asked_for_slices_and_not_for_requests() {
    let world = world(&leased(&per_user(1_000_000))).await;
    let asked = until_local(&world, 50).await;
    let (local, direct) = (count(&world, "local"), count(&world, "direct"));
    let slices = count(&world, "granted") + count(&world, "denied");
    assert_eq!(local + direct, asked);
    // One may be on its way.
    let reserves = world.keeper.reserves() as u64;
    assert!((direct + slices..=direct + slices + 1).contains(&reserves), "{reserves} {direct} {slices}");
    assert!(slices >= 1 && direct < asked);

    // It is spent here, and shows in the answers before it does in the ledger.
    let answer = world.chat(NAMED).await;
    let left: u64 = answer.header("x-ratelimit-remaining").unwrap().parse().unwrap();
    // Near the truth: two answers of the cluster may have come in another order than it gave them.
    let exact = 1_000_000 - (asked + 1) * USED;
    assert!(left.abs_diff(exact) < 50_000, "{left}, not {exact}");

    let World { keeper, gateway, .. } = world;
    gateway.stop().await;
    let account = keeper.account("default", "per-user", "alice").unwrap();
    assert_eq!((account.spent.units_floor(), account.reserved.units_floor()), ((asked + 1) * USED, 0));
    assert!(account.overdraft.is_zero());
}

#[tokio::test]
async fn of_twenty_at_once_exactly_two_fit() {
    let world = Arc::new(world(&leased(PER_USER)).await);
    world.provider.plays([answer("200 OK", &chat(10, 90))]);
    let asking = (0..20).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.chat(NAMED).await.status.as_u16() })
    });
    let mut statuses = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        statuses.push(asked.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 18, "{statuses:?}");
    assert_eq!(world.alice(), (200, 0));
}

#[tokio::test]
async fn down_to_the_last_token_and_not_beyond() {
    let world = Arc::new(world(&leased(&per_user(30_000))).await);
    let asking = (0..8).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut admitted = 0;
            // Others may hold what is left; in the end nobody does.
            let mut denied = 0;
            while denied < 20 {
                match world.chat(NAMED).await.status.as_u16() {
                    200 => (admitted, denied) = (admitted + 1, 0),
                    429 => denied += 1,
                    other => panic!("{other}"),
                }
            }
            admitted
        })
    });
    let mut admitted = 0;
    for asked in asking.collect::<Vec<_>>() {
        admitted += asked.await.unwrap();
    }
    assert!(count(&world, "local") > 0);
    world.resolved().await;
    let (spent, reserved) = world.alice();
    assert_eq!((spent, reserved), (admitted * USED, 0));
    // No request that needs about a hundred fits any more, and none was turned away that did.
    assert!((29_800..=30_000).contains(&spent), "{spent}");
}

#[tokio::test]
async fn of_a_request_that_meets_others_too_only_those_are_asked_for() {
    let world = world(&format!("{}{TEAM}", leased(&per_user(1_000_000)))).await;
    let asked = until_local(&world, 1).await;
    // The last reservation may be one of a slice: then ask again.
    let mut more = 0;
    while world.keeper.last_reserved() != ["team"] {
        assert!(more < 1_000, "{:?}", world.keeper.last_reserved());
        more += until_local(&world, 1).await;
    }
    let answer = world.chat(NAMED).await;
    let sum = (asked + more + 1) * USED;
    let limits = answer.header("x-ratelimit-limit").unwrap();
    assert!(limits.contains("per-user") && limits.contains("team"), "{limits}");
    assert_eq!(world.account("team", ""), (sum, 0), "settled before the answer ended");

    // Refused for the other: nothing of the slice stays held.
    world.put_policy(
        2,
        lower::compile(&format!("{}{}", leased(&per_user(1_000_000)), TEAM.replace("1000000", "5"))).unwrap(),
    );
    for _ in 0..20 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 429);
    }
    let World { keeper, gateway, .. } = world;
    gateway.stop().await;
    assert_eq!(keeper.spent("default"), [sum, sum]);
}

#[tokio::test]
async fn a_new_policy_calls_slices_back() {
    let world = world(&leased(&per_user(1_000_000))).await;
    let asked = until_local(&world, 3).await;
    world.put_policy(2, lower::compile(&per_user(1_000_000)).unwrap());
    let more = 5;
    let before = count(&world, "local");
    for _ in 0..more {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    }
    assert_eq!(count(&world, "local"), before, "it is leased no more");
    world.resolved().await;
    assert_eq!(world.alice(), ((asked + more) * USED, 0));
}

#[tokio::test]
async fn every_window_is_charged_what_was_spent_in_it() {
    let policy = leased(&per_user(1_000_000)).replace("window: Week", "window: Second");
    let world = world(&policy).await;
    let mut asked = 0;
    let closed = |world: &World| {
        let account = world.keeper.account("default", "per-user", "alice");
        account.map_or(0, |account| account.closed_windows.len())
    };
    while closed(&world) < 2 {
        asked += until_local(&world, 1).await;
    }
    let World { keeper, gateway, .. } = world;
    gateway.stop().await;
    let account = keeper.account("default", "per-user", "alice").unwrap();
    assert!(
        account.closed_windows.len() < CLOSED_WINDOWS_MAX,
        "it was too slow: the oldest may be forgotten"
    );
    let spans = account.closed_windows.iter().map(|one| (one.spent, one.reserved));
    let spans: Vec<_> = spans.chain([(account.spent, account.reserved)]).collect();
    assert!(spans.iter().all(|(_, reserved)| reserved.is_zero()), "{spans:?}");
    assert_eq!(spans.iter().map(|(spent, _)| spent.units_floor()).sum::<u64>(), asked * USED);
}

#[tokio::test]
async fn with_the_cluster_away_what_slices_have_is_spent_and_charged_when_it_is_back() {
    let world = world(&leased(&per_user(1_000_000))).await;
    let mut asked = until_local(&world, 10).await;
    world.keeper.set_reachable(false);
    let mut served = 0;
    loop {
        match world.chat(NAMED).await.status.as_u16() {
            200 => served += 1,
            503 => break,
            other => panic!("{other}"),
        }
    }
    asked += served;
    assert!(served > 0, "a slice was there");
    world.keeper.set_reachable(true);
    let World { keeper, gateway, .. } = world;
    gateway.stop().await;
    let account = keeper.account("default", "per-user", "alice").unwrap();
    assert_eq!((account.spent.units_floor(), account.reserved.units_floor()), (asked * USED, 0));
}

#[tokio::test]
async fn what_is_free_here_goes_back_when_somebody_is_denied_for_it() {
    let world = world(&leased(&per_user(10_000))).await;
    let asked = until_local(&world, 3).await;
    let left = 10_000 - asked * USED;
    // As much as there is, if nothing is kept back in slices: its own input is counted too.
    let large = format!(r#","max_completion_tokens":{}"#, left - 40);
    let answer = world.ask("/v1/chat/completions", &chat_request(&large), &[]).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    world.resolved().await;
    assert_eq!(world.alice(), ((asked + 1) * USED, 0));
}

#[tokio::test]
async fn a_stream_holds_its_part_of_a_slice_and_the_slice_goes_back_after_it() {
    // Near enough to its limit that what nobody uses goes back within seconds.
    let world = Arc::new(world(&leased(&per_user(10_000))).await);
    let mut asked = until_local(&world, 3).await;
    let end = format!("{}data: [DONE]\n\n", usage(10, USED - 10));
    world.provider.plays([Step::Pause, stream_head(), piece(&delta("Hi")), piece(&end), stream_end()]);
    let mut ordinary = 0;
    let opened = loop {
        let (local, got) = (count(&world, "local"), world.provider.got().len());
        let opened = {
            let world = Arc::clone(&world);
            let stream = format!("{NAMED},\"stream\":true");
            tokio::spawn(async move { world.chat(&stream).await.status.as_u16() })
        };
        world.provider.until_asked(got + 1).await;
        if count(&world, "local") > local {
            break opened;
        }
        // The slice was just over: this one is an ordinary reservation, and the next one is looked at.
        world.provider.go();
        assert_eq!(opened.await.unwrap(), 200);
        (asked, ordinary) = (asked + 1, ordinary + 1);
        assert!(ordinary < 100, "no slice was ever used");
    };
    // The slice is idle, and still there.
    world
        .keeper
        .until("only what is held is left", |ledger| ledger.reservations("default").count() <= 1)
        .await;
    assert!(world.alice().1 > 0);
    opened.abort();
    world.resolved().await;
    let (spent, reserved) = world.alice();
    assert!(spent > asked * USED && reserved == 0, "the input of whoever left is charged");
}

#[tokio::test]
async fn users_who_come_rarely_ask_the_cluster_once_where_limits_are_far() {
    let world = world(&leased(&per_user(100_000_000))).await;
    for _ in 0..6 {
        assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    }
    let counts = ["local", "waited", "direct", "granted"].map(|name| count(&world, name));
    assert_eq!((counts, world.keeper.reserves()), ([6, 1, 0, 1], 1));

    // Without the cluster the next user, who has no slice, gets none.
    world.keeper.set_reachable(false);
    let other = [("x-user-id", "bob")];
    let other = world.ask_bare("/v1/chat/completions", &chat_request(NAMED), &other).await;
    assert_eq!(other.status.as_u16(), 503);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200, "of the slice that is here");
    world.keeper.set_reachable(true);
    let World { keeper, gateway, .. } = world;
    gateway.stop().await;
    assert_eq!(keeper.spent("default"), [7 * USED]);
}
