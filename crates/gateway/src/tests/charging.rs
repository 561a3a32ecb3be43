//! What each way of ending costs, for answers that are not streams.

use std::sync::Arc;

use super::{
    provider::{Step, answer, answer_with, chat},
    world::{PER_USER, World, chat_request, http_client, per_user},
};

const NAMED: &str = r#","max_completion_tokens":90"#;

#[tokio::test]
async fn an_answer_costs_its_usage_and_its_bytes_are_untouched() {
    let world = World::new(PER_USER).await;
    let body = chat(10, 33);
    world.provider.plays([answer_with(
        "200 OK",
        "content-type: application/json\r\nx-request-id: r1\r\n",
        &body,
    )]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, body.as_str()));
    assert_eq!(answer.header("x-ai-gateway-tokens-used"), Some("43"));
    assert_eq!(answer.header("x-ai-provider"), Some("fake"));
    assert_eq!(answer.header("x-request-id"), Some("r1"));
    assert_eq!(answer.header("x-ratelimit-limit"), Some("250, 250;w=604800;name=\"per-user\""));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("207"));
    assert!(answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() <= 604_800);
    assert_eq!(world.alice(), (43, 0), "settled before the answer ended");
    let got = world.provider.got();
    assert_eq!(String::from_utf8(got[0].body.clone()).unwrap(), chat_request(NAMED), "nothing to insert");
    assert!(got[0].head.contains("accept-encoding: identity"), "{}", got[0].head);
    assert!(!got[0].head.contains("x-user-id"), "{}", got[0].head);
}

#[tokio::test]
async fn of_twenty_at_once_exactly_two_fit() {
    let world = Arc::new(World::new(PER_USER).await);
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
async fn an_error_costs_nothing_and_passes_unchanged() {
    for (status, body) in [
        ("400 Bad Request", r#"{"error":{"message":"no"}}"#),
        ("429 Too Many Requests", r#"{"error":{"message":"slow"}}"#),
        ("503 Service Unavailable", "not even json"),
    ] {
        let world = World::new(PER_USER).await;
        world.provider.plays([answer_with(status, "retry-after: 7\r\n", body)]);
        let answer = world.chat(NAMED).await;
        assert_eq!((answer.status.as_str(), answer.text()), (&status[..3], body));
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(answer.header("x-ai-provider"), Some("fake"));
        assert_eq!(world.alice(), (0, 0), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_neither_followed_nor_passed_on() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer_with("302 Found", "location: http://127.0.0.1:1/\r\n", "")]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (502, None));
    assert_eq!((world.alice(), world.provider.got().len()), ((0, 0), 1));
}

#[tokio::test]
async fn a_backend_that_is_not_there_costs_nothing() {
    let world = World::configured(PER_USER, |_| {
        // A port that was free a moment ago, and on which nobody listens.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\n\
             backends: [{{name: fake, provider: OpenAI, base_url: 'http://{free}/v1'}}]\n"
        )
    })
    .await;
    let answer = world.chat(NAMED).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error()["code"].as_str()),
        (502, Some("upstream_unreachable"))
    );
    assert_eq!(world.alice(), (0, 0));
}

#[tokio::test]
async fn a_backend_that_dies_with_the_request_costs_the_input() {
    let world = World::new(PER_USER).await;
    world.provider.plays([Step::Die]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (502, Some("upstream_died")));
    let (spent, reserved) = world.alice();
    assert!((8..=12).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn a_backend_that_is_silent_costs_the_input() {
    let world = World::with(PER_USER, "timeouts: {first_byte_ms: 100}\n").await;
    world.provider.plays([Step::Pause]);
    let answer = world.chat(NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.error()["code"].as_str()), (504, Some("upstream_timeout")));
    let (spent, reserved) = world.alice();
    assert!((8..=12).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn half_an_answer_costs_at_most_what_was_held() {
    let world = World::new(PER_USER).await;
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{\"choices\":[{\"message\":";
    world.provider.plays([Step::Write(half.as_bytes().to_vec()), Step::Die]);
    let answer = world.chat(NAMED).await;
    assert_eq!(answer.status.as_u16(), 502);
    let (spent, reserved) = world.alice();
    assert!((11..=102).contains(&spent) && reserved == 0, "{spent}");
}

#[tokio::test]
async fn an_answer_without_usage_is_counted() {
    let world = World::new(PER_USER).await;
    let body =
        r#"{"choices":[{"message":{"role":"assistant","content":"Hello there, how are you today?"}}]}"#;
    world.provider.plays([answer("200 OK", body)]);
    let answer = world.chat(NAMED).await;
    let (spent, reserved) = world.alice();
    // 8 tokens of output on top of the input.
    assert!((16..=20).contains(&spent) && reserved == 0, "{spent}");
    assert_eq!(answer.header("x-ai-gateway-tokens-used"), Some(spent.to_string().as_str()));
    assert_eq!(world.metric("quorate_gateway_usage_estimated_total{kind=\"missing\"}"), Some(1.0));
}

#[tokio::test]
async fn the_account_says_what_was_only_counted() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &chat(10, 5))]);
    world.chat(NAMED).await;
    assert_eq!((world.alice(), world.estimated()), ((15, 0), 0));
    let body = r#"{"choices":[{"message":{"role":"assistant","content":"Hello there."}}]}"#;
    world.provider.plays([answer("200 OK", body)]);
    world.chat(NAMED).await;
    let counted = world.alice().0 - 15;
    assert_eq!(world.estimated(), counted);
    assert!(counted > 0);
    // Each attempt for itself.
    world.provider.plays([answer("200 OK", &chat(10, 5))]);
    world.chat(NAMED).await;
    assert_eq!((world.alice().0, world.estimated()), (counted + 30, counted));
}

#[tokio::test]
async fn more_than_was_reserved_is_charged_all_the_same() {
    let world = World::new(PER_USER).await;
    world.provider.plays([answer("200 OK", &chat(10, 400))]);
    assert_eq!(world.chat(NAMED).await.status.as_u16(), 200);
    assert_eq!(world.alice(), (410, 0));
    assert_eq!(world.metric("quorate_gateway_overdrafts_total"), Some(1.0));
}

#[tokio::test]
async fn who_names_no_limit_gets_what_is_left_and_it_is_sent_upstream() {
    let world = World::new(&per_user(100)).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    assert_eq!(world.chat("").await.status.as_u16(), 200);
    let sent = world.provider.got()[0].json();
    let limit = sent["max_completion_tokens"].as_u64().unwrap();
    assert!((88..=92).contains(&limit), "{sent}");
    assert_eq!(sent["messages"][0]["content"], "Say hello");
    assert_eq!(world.alice(), (30, 0));
    // Several answers share it.
    world.chat(r#","n":3"#).await;
    let sent = world.provider.got()[1].json();
    assert!((16..=21).contains(&sent["max_completion_tokens"].as_u64().unwrap()), "{sent}");
    // Below the floor of 16 for one answer nothing is granted.
    world.provider.plays([answer("200 OK", &chat(10, 10))]);
    world.chat(r#","max_tokens":20"#).await;
    assert_eq!(world.chat("").await.status.as_u16(), 429);
}

#[tokio::test]
async fn completions_keep_their_own_default_and_other_models_the_old_name() {
    let world = World::new(&per_user(100_000)).await;
    world.provider.plays([answer("200 OK", &chat(5, 5))]);
    world.ask("/v1/completions", r#"{"model":"babbage-002","prompt":"a"}"#, &[]).await;
    world.ask("/v1/chat/completions", r#"{"model":"llama","messages":[]}"#, &[]).await;
    let got = world.provider.got();
    assert_eq!(got[0].json()["max_tokens"], 16);
    assert!(got[0].head.starts_with("post /v1/completions "), "{}", got[0].head);
    assert_eq!(got[1].json()["max_tokens"], 1024);
}

#[tokio::test]
async fn embeddings_cost_their_input() {
    let world = World::new(PER_USER).await;
    let body = r#"{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    world.provider.plays([answer("200 OK", body)]);
    let request = r#"{"model":"text-embedding-3-small","input":"How do I reset my password?"}"#;
    let answer = world.ask("/v1/embeddings?x=1", request, &[]).await;
    assert_eq!((answer.text(), world.alice()), (body, (7, 0)));
    let got = &world.provider.got()[0];
    assert!(got.head.starts_with("post /v1/embeddings?x=1 "), "{}", got.head);
    assert_eq!(got.body, request.as_bytes());
}

#[tokio::test]
async fn every_budget_that_applies_is_charged_and_any_one_denies() {
    let both = format!(
        "{PER_USER}---{}",
        PER_USER
            .replace("per-user", "team")
            .replace("250", "120")
            .replace("subject: [{header: x-user-id}]", "subject: [model]",)
    );
    let world = World::new(&both).await;
    world.provider.plays([answer("200 OK", &chat(10, 50))]);
    let first = world.chat(NAMED).await;
    assert_eq!(first.header("x-ratelimit-limit").unwrap().matches(";name=").count(), 2);
    assert_eq!(first.header("x-ratelimit-remaining"), Some("60"));
    let second = world.chat(NAMED).await;
    assert_eq!(second.status.as_u16(), 429);
    assert!(second.text().contains("budget team of tenant default for gpt-4o-mini"), "{}", second.text());
    assert_eq!(world.alice(), (60, 0), "nothing is held by a denial");
    let team = world.keeper.account("default", "team", "gpt-4o-mini").unwrap();
    assert_eq!((team.spent.units_floor(), team.reserved.units_floor()), (60, 0));
}

#[tokio::test]
async fn without_a_budget_a_request_passes() {
    let world =
        World::new("apiVersion: quorate.dev/v1alpha1\nkind: Identity\nspec: {tenant: {default: d}}\n").await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    let answer = world.chat("").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ai-gateway-tokens-used")), (200, Some("3")));
    assert_eq!(answer.header("x-ratelimit-limit"), None);
    assert_eq!(world.provider.got()[0].json().get("max_completion_tokens"), None);
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_the_answer_it_asked_for() {
    let world = World::new(PER_USER).await;
    world.provider.plays([Step::Pause, answer("200 OK", &chat(10, 40))]);
    let request = world.request("/v1/chat/completions", &chat_request(NAMED), &[]);
    let asking = tokio::spawn(async move { http_client().request(request).await.map(drop) });
    world.provider.asked.notified().await;
    assert!(world.alice().1 > 90, "held while the provider works");
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    world.provider.go();
    world.resolved().await;
    assert_eq!(world.alice(), (50, 0));
}

#[tokio::test]
async fn long_texts_are_counted_when_their_bytes_do_not_fit() {
    let world = World::new(&per_user(3_000)).await;
    world.provider.plays([answer("200 OK", &chat(1_500, 10))]);
    let text = "hello ".repeat(1_500);
    let body =
        format!(r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":10}}"#);
    assert_eq!(world.ask("/v1/chat/completions", &body, &[]).await.status.as_u16(), 200);
    assert_eq!(world.metric("quorate_gateway_exact_counts_total"), Some(1.0));
    // Rich: the bytes are good enough.
    let world = World::new(&per_user(1_000_000)).await;
    world.provider.plays([answer("200 OK", &chat(1_500, 10))]);
    assert_eq!(world.ask("/v1/chat/completions", &body, &[]).await.status.as_u16(), 200);
    assert_eq!(world.metric("quorate_gateway_exact_counts_total"), Some(0.0));
    // Almost used up: asked again with the exact count.
    let spend = format!(r#"{{"model":"gpt-4o","messages":[],"max_tokens":{}}}"#, 990_000);
    world.provider.plays([answer("200 OK", &chat(5, 990_000 - 5))]);
    assert_eq!(world.ask("/v1/chat/completions", &spend, &[]).await.status.as_u16(), 200);
    world.provider.plays([answer("200 OK", &chat(1_500, 10))]);
    let before = world.metric("quorate_gateway_exact_counts_total");
    let long = body.replacen("hello ", &"hello ".repeat(1_000), 1);
    assert_eq!(world.ask("/v1/chat/completions", &long, &[]).await.status.as_u16(), 200);
    assert!(world.metric("quorate_gateway_exact_counts_total") > before);
}

#[tokio::test]
async fn the_key_is_the_gateways() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sk-gateway\n").unwrap();
    let world = World::configured(PER_USER, |base_url| {
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends: \
             [{{name: fake, provider: OpenAI, base_url: '{base_url}', api_key_file: '{}'}}]\n",
            file.path().display()
        )
    })
    .await;
    world.provider.plays([answer("200 OK", &chat(1, 2))]);
    let answer = world
        .ask("/v1/chat/completions", &chat_request(NAMED), &[("authorization", "Bearer sk-client")])
        .await;
    assert_eq!(answer.status.as_u16(), 200);
    let head = &world.provider.got()[0].head;
    assert!(head.contains("authorization: bearer sk-gateway") && !head.contains("sk-client"), "{head}");
    assert!(!format!("{:?}", world.core).contains("sk-gateway"));
}
