//! Bad input and bad times: each has a clear answer, and nothing is charged or lost.

use std::time::Duration;

use quorate_ledger::Unit;
use quorate_policy::runtime::Cost;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    policies::{config, of_budgets, of_unit, tokens, units},
    provider::{Step, answer, chat},
    world::{PER_USER, World, chat_request, http_client, per_user},
};
use crate::settle::IN_NO_HURRY;

async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.gateway.proxy_address().unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let reading = async { while stream.read_buf(&mut said).await.unwrap() > 0 {} };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the gateway ends the connection");
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_denial_says_everything() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &chat(10, 190))]);
    world.chat(r#","max_tokens":200"#).await;
    let denied = world.chat(r#","max_tokens":90"#).await;
    assert_eq!(denied.status.as_u16(), 429);
    let error = denied.error();
    assert_eq!((error["type"].as_str(), error["param"].as_str()), (Some("rate_limit_exceeded"), None));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("budget per-user of tenant default for alice"), "{message}");
    assert!(message.contains("50 of 250 are left") && message.contains("resets in"), "{message}");
    let retry_after: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=604_800).contains(&retry_after));
    assert_eq!(denied.header("x-should-retry"), (retry_after > 60).then_some("false"));
    assert_eq!(denied.header("x-ratelimit-limit"), Some("250, 250;w=604800;name=\"per-user\""));
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("50"));
    assert_eq!((world.alice(), world.provider.got().len()), ((200, 0), 1));
    assert_eq!(world.metric("quorate_gateway_denials_total{budget=\"per-user\"}"), Some(1.0));
}

#[tokio::test]
async fn waiting_for_more_than_the_limit_is_pointless() {
    let world = World::new(PER_USER).await;
    let denied = world.chat(r#","max_tokens":1000"#).await;
    assert_eq!((denied.status.as_u16(), denied.header("x-should-retry")), (429, Some("false")));
    assert_eq!(
        (denied.header("retry-after"), denied.error()["type"].as_str()),
        (None, Some("insufficient_quota"))
    );
    assert_eq!(world.alice(), (0, 0));
}

#[tokio::test]
async fn one_subject_too_many_is_told_the_cap() {
    let capped = PER_USER.replace("  window", "  accountsMax: 1\n  window");
    let world = World::new(&capped).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    assert_eq!(world.chat("").await.status.as_u16(), 200);
    let body = chat_request("");
    let answer = world.ask_bare("/v1/chat/completions", &body, &[("x-user-id", "bob")]).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (429, Some("too_many_accounts")));
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("false"), None));
    let said = answer.error()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("budget per-user: 1 is the most"), "{said}");
    let counted = "quorate_gateway_accounts_capped_total{budget=\"per-user\"}";
    assert_eq!(world.metric(counted), Some(1.0));
}

#[tokio::test]
async fn without_the_cluster_nothing_is_spent() {
    let world = World::new(PER_USER).await;
    world.keeper.set_reachable(false);
    let answer = world.chat("").await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (503, Some("budget_unavailable")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(world.provider.got().is_empty());
}

#[tokio::test]
async fn a_settlement_waits_for_the_cluster_and_the_client_does_not() {
    let world = World::with(PER_USER, "timeouts: {settle_wait_ms: 50}\n").await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 20))]);
    let request = world.request("/v1/chat/completions", &chat_request(r#","max_tokens":90"#), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    world.keeper.set_reachable(false);
    world.provider.go();
    assert_eq!(asking.await.unwrap().as_u16(), 200);
    assert!(world.alice().1 > 90, "still held");
    world.keeper.set_reachable(true);
    world.resolved().await;
    assert_eq!(world.alice(), (30, 0));
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_its_settlement_says_what_will_be_left() {
    let world = World::with(PER_USER, "timeouts: {settle_wait_ms: 0}\n").await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world.keeper.hold_back_ends(true);
    let first = world.chat(r#","max_tokens":90"#).await;
    assert!(world.keeper.has_end(), "what the client asks next comes behind it");
    assert_eq!((first.status.as_u16(), first.header("x-ratelimit-remaining")), (200, Some("220")));
    assert_eq!(world.keeper.end_wait().await, IN_NO_HURRY);
    assert!(world.alice().0 == 0 && world.alice().1 > 90, "still held");
    world.keeper.hold_back_ends(false);
    world.resolved().await;
    assert_eq!(world.alice(), (30, 0));
}

#[tokio::test]
async fn an_answer_waits_for_its_settlement_where_the_config_says_so() {
    let world = World::with(PER_USER, "timeouts: {settle_wait_ms: 60000}\n").await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world.keeper.hold_back_ends(true);
    let request = world.request("/v1/chat/completions", &chat_request(r#","max_tokens":90"#), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    assert_eq!(world.keeper.end_wait().await, Duration::ZERO);
    assert!(!asking.is_finished());
    world.keeper.hold_back_ends(false);
    assert_eq!(asking.await.unwrap().as_u16(), 200);
    assert_eq!(world.alice(), (30, 0));
}

#[tokio::test]
async fn without_a_policy_nothing_is_served() {
    let world = World::new(PER_USER).await;
    world.policies.send_replace(None);
    let answer = world.chat("").await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (503, Some("no_policy")));
}

#[tokio::test]
async fn a_budget_that_the_cluster_does_not_know_is_asked_for_again_under_the_new_policy() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    // The nodes have the new policy already, the gateway hears of it while it asks.
    let renamed = PER_USER.replace("per-user", "renamed");
    let policy = crate::lower::compile(&renamed).unwrap();
    world.keeper.put_policy(&policy);
    let (answer, ()) = tokio::join!(world.chat(""), async {
        world.keeper.until("it was asked for", |_| world.keeper.reserves() > 0).await;
        world.put_policy(2, policy);
    });
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_eq!(world.keeper.account("default", "renamed", "alice").unwrap().spent.units_floor(), 30);
}

#[tokio::test]
async fn amounts_of_the_old_policy_are_not_charged_in_the_unit_of_the_new_one() {
    let world = World::compiled(of_budgets([tokens("b", 1_000)]), |url| config(&[("fake", url)], "")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    // The same name, and two cost units for each request.
    let counted = of_unit("b", Unit::Cost, units(100_000), Cost::Number(units(2)));
    world.keeper.put_policy(&of_budgets([counted.clone()]));
    let (answer, ()) = tokio::join!(world.chat(""), async {
        world.keeper.until("it was asked for", |_| world.keeper.reserves() > 0).await;
        world.put_policy(2, of_budgets([counted]));
    });
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_eq!(world.account("b", "alice"), (2, 0));
}

#[tokio::test]
async fn who_pays_must_be_known() {
    let identity =
        "apiVersion: quorate.dev/v1alpha1\nkind: Identity\nspec: {tenant: {header: x-tenant-id}}\n---";
    let world = World::new(&format!("{identity}{PER_USER}")).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    let nobody = world.chat("").await;
    assert_eq!((nobody.status.as_u16(), nobody.error()["code"].as_str()), (401, Some("tenant_missing")));
    let body = chat_request("");
    assert_eq!(
        world.ask("/v1/chat/completions", &body, &[("x-tenant-id", "acme")]).await.status.as_u16(),
        200
    );
    let account = world.keeper.account("acme", "per-user", "alice").unwrap();
    assert_eq!((account.spent.units_floor(), account.reserved.units_floor()), (30, 0));
    let long = "x".repeat(600);
    let too_long = world.ask("/v1/chat/completions", &body, &[("x-tenant-id", &long)]).await;
    assert_eq!(
        (too_long.status.as_u16(), too_long.error()["code"].as_str()),
        (400, Some("identity_invalid"))
    );
}

#[tokio::test]
async fn malformed_requests_are_named() {
    let world = World::new(PER_USER).await;
    for (path, body, status, said) in [
        ("/v1/chat/completions", "{\"model\": oops}", 400, "line 1 column 11"),
        ("/v1/chat/completions", "{}", 400, "names no model"),
        ("/v1/chat/completions", r#"{"model":"m","max_tokens":-1}"#, 400, "max_tokens"),
        ("/v1/chat/completions", r#"{"model":"m","max_tokens":1e99}"#, 400, "max_tokens"),
        ("/v1/nothing", "{}", 404, "/v1/chat/completions"),
        ("/v1/models", "{}", 405, "GET"),
    ] {
        let answer = world.ask(path, body, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        assert!(answer.error()["message"].as_str().unwrap().contains(said), "{}", answer.text());
    }
    let encoded = world.ask("/v1/chat/completions", "x", &[("content-encoding", "gzip")]).await;
    assert_eq!(encoded.status.as_u16(), 415);
    assert!(world.provider.got().is_empty());
}

#[tokio::test]
async fn unknown_models_and_the_list_of_the_known() {
    let world = World::configured(PER_USER, |base_url| {
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends: [{{name: fake, \
             provider: OpenAI, base_url: '{base_url}', models: [gpt-4o-mini, gpt-4o]}}]\n"
        )
    })
    .await;
    let unknown = world.ask("/v1/chat/completions", r#"{"model":"gpt-9","messages":[]}"#, &[]).await;
    assert_eq!((unknown.status.as_u16(), unknown.error()["code"].as_str()), (404, Some("model_not_found")));
    assert!(unknown.text().contains("gpt-4o-mini, gpt-4o"), "{}", unknown.text());
    let list: serde_json::Value =
        serde_json::from_slice(&world.ask("/v1/models", "", &[]).await.body).unwrap();
    assert_eq!((list["object"].as_str(), list["data"][1]["id"].as_str()), (Some("list"), Some("gpt-4o")));
    let one: serde_json::Value =
        serde_json::from_slice(&world.ask("/v1/models/gpt-4o", "", &[]).await.body).unwrap();
    assert_eq!(one["id"], "gpt-4o");
    assert_eq!(world.ask("/v1/models/gpt-9", "", &[]).await.status.as_u16(), 404);
}

#[tokio::test]
async fn a_backend_for_any_model_lists_its_own() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", r#"{"object":"list","data":[]}"#)]);
    assert_eq!(world.ask("/v1/models", "", &[]).await.text(), r#"{"object":"list","data":[]}"#);
    world.ask("/v1/models/a%20b", "", &[]).await;
    let heads: Vec<String> = world.provider.got().into_iter().map(|got| got.head).collect();
    assert!(
        heads[0].starts_with("get /v1/models ") && heads[1].starts_with("get /v1/models/a%20b "),
        "{heads:?}"
    );
}

#[tokio::test]
async fn the_header_names_the_model_where_the_body_does_not() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    let body = r#"{"messages":[],"max_tokens":9}"#;
    let answer = world.ask("/v1/chat/completions", body, &[("x-ai-eg-model", "gpt-4o")]).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(world.provider.got()[0].body, br#"{"model":"gpt-4o","messages":[],"max_tokens":9}"#);
}

#[tokio::test]
async fn files_cannot_be_bounded_beforehand() {
    let world = World::new(PER_USER).await;
    let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]}"#;
    let answer = world.ask("/v1/chat/completions", body, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (400, Some("unbounded_input")));
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_before_they_come() {
    let world = World::new(PER_USER).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n";
    let mut stream = TcpStream::connect(world.gateway.proxy_address().unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = vec![0; 64];
    // Nothing of the body was sent.
    let read = stream.read(&mut said).await.unwrap();
    assert!(String::from_utf8_lossy(&said[..read]).starts_with("HTTP/1.1 413 "), "{said:?}");
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_and_the_client_hears_it() {
    let world = World::with(PER_USER, "limits: {body_bytes_max: 1000}\n").await;
    let mut bytes =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..200 {
        bytes.extend_from_slice(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let said = raw(&world, &bytes).await;
    assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("1000 bytes"), "{said}");
}

#[tokio::test]
async fn slow_bodies_slow_heads_and_long_heads() {
    let world =
        World::with(PER_USER, "timeouts: {body_ms: 100, header_ms: 500}\nlimits: {header_bytes_max: 8192}\n")
            .await;
    let said =
        raw(&world, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let said = raw(&world, b"POST /v1/chat/completions HTTP/1.1\r\nhost: ").await;
    assert!(!said.contains("200"), "{said}");
    let said = raw(&world, b"PR").await;
    assert_eq!(said, "", "an undecided protocol ends too");
    let said =
        raw(&world, format!("GET / HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(20_000)).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
}

#[tokio::test]
async fn at_the_limit_of_requests_at_once_the_next_is_told_so() {
    let world = World::with(&per_user(10_000), "limits: {in_flight_max: 1}\n").await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(1, 2))]);
    let request = world.request("/v1/chat/completions", &chat_request(""), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.unwrap().status() });
    world.provider.asked.notified().await;
    let refused = world.chat("").await;
    assert_eq!((refused.status.as_u16(), refused.error()["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.provider.go();
    assert_eq!(asking.await.unwrap().as_u16(), 200);
}

#[tokio::test]
async fn the_operators_side() {
    let world = World::new(PER_USER).await;
    let get = async |path: &str| {
        let url = format!("http://{}{path}", world.gateway.http_address()).parse().unwrap();
        let (parts, body) = http_client().get(url).await.unwrap().into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz").await.0, 200);
    world.policies.send_replace(None);
    assert_eq!(get("/readyz").await.0, 503);
    let (status, metrics) = get("/metrics").await;
    assert!(status == 200 && metrics.contains("quorate_gateway_in_flight 0") && metrics.ends_with("# EOF\n"));
    assert_eq!(get("/").await.0, 404);
}

#[tokio::test]
async fn a_gateway_without_nodes_says_so_and_a_port_in_use_is_named() {
    // A port that was free a moment ago, and on which nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['{free}']\n\
         backends: [{{name: b, provider: OpenAI, base_url: 'http://{free}/v1'}}]\n"
    );
    let mut config: crate::GatewayConfig = serde_yaml_ng::from_str(&config).unwrap();
    let listeners = crate::Gateway::bind(&config).unwrap();
    let gateway = crate::Gateway::start(config.clone(), listeners).unwrap();
    for (address, path, status) in [
        (gateway.proxy_address().unwrap(), "/v1/models", 503),
        (gateway.http_address(), "/healthz", 200),
        (gateway.http_address(), "/readyz", 503),
    ] {
        let answer = http_client().get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    config.http_listen = gateway.proxy_address().unwrap().to_string();
    let error = crate::Gateway::bind(&config).unwrap_err().to_string();
    assert!(error.contains("http_listen") && error.contains(&config.http_listen), "{error}");
    gateway.stop().await;
}
