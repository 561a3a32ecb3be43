//! Requests that wait for what others hold: clients that leave, a gateway that stops.

use std::{sync::Arc, time::Duration};

use quorate_policy::runtime::Budget;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    policies::{config, of_budgets, tokens},
    provider::{Step, answer, chat},
    world::{World, chat_request, http_client, until},
};

const NAMED: &str = r#","max_completion_tokens":70"#;

/// One request fits at a time; the next may wait for it.
fn patient() -> Budget {
    let mut budget = tokens("b", 100);
    budget.max_wait_ms = 60_000;
    budget
}

/// A world in which one request is under way.
async fn busy(more: &str) -> World {
    let world = World::compiled(of_budgets([patient()]), |url| config(&[("fake", url)], more)).await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    tokio::spawn(async move { http_client().request(request).await });
    world.provider.asked.notified().await;
    world
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_up_at_once() {
    let world = busy("").await;
    let held = world.account("b", "alice");
    let body = chat_request(NAMED);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-user-id: alice\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(world.gateway.proxy_address().unwrap()).await.unwrap();
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    until("the second one waits", || world.keeper.waiting() == 1).await;
    drop(client);
    until("the hang-up is seen", || world.metric("quorate_gateway_hang_ups_total") == Some(1.0)).await;
    until("nothing waits", || world.keeper.waiting() == 0).await;
    until("its reservation is released", || world.keeper.releases() > 0).await;
    assert_eq!(world.account("b", "alice"), held, "the first one goes on");
    world.provider.go();
    world.resolved().await;
    assert_eq!(world.account("b", "alice"), (30, 0));
}

#[tokio::test]
async fn a_gateway_that_stops_leaves_nothing_in_the_queue() {
    let world = busy("timeouts: {stop_ms: 100}\n").await;
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let waiting = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    until("the second one waits", || world.keeper.waiting() == 1).await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), world.gateway.stop());
    stopping.await.unwrap();
    assert_eq!((world.keeper.waiting(), world.keeper.releases()), (0, 1));
    drop(waiting);
    let account = world.keeper.account("default", "b", "alice").unwrap();
    assert!(account.reserved.is_zero(), "{account:?}");
}

#[tokio::test]
async fn a_request_that_is_granted_after_the_cut_is_not_sent_and_not_charged() {
    for more in [NAMED.to_owned(), format!("{NAMED},\"stream\":true")] {
        let budgets = of_budgets([tokens("b", 100)]);
        let world =
            World::compiled(budgets, |url| config(&[("fake", url)], "timeouts: {stop_ms: 50}\n")).await;
        world.keeper.hold_back_reserves(true);
        let request = world.request("/v1/chat/completions", &chat_request(&more), &[]);
        let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
        until("its reservation is asked for", || world.keeper.reserves() == 1).await;
        let (core, keeper) = (Arc::clone(&world.core), Arc::clone(&world.keeper));
        let stopping = tokio::spawn(world.gateway.stop());
        core.cut.cancelled().await;
        keeper.hold_back_reserves(false);
        stopping.await.unwrap();
        assert_eq!(asking.await.unwrap().as_u16(), 503);
        assert!(world.provider.got().is_empty());
        let account = keeper.account("default", "b", "alice").unwrap();
        assert!(account.spent.is_zero() && account.reserved.is_zero(), "{account:?}");
    }
}
