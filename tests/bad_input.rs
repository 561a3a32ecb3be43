//! Mistakes, each with an error that says what to do, and nothing lost.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Deployment, Process, free_address, node_config, policy, request_of_100};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_charged_nothing() {
    let deployment = Deployment::start(&policy(250, "Lifetime")).await;
    let bad = deployment.chat(0, "alice", &json!("not an object")).await.unwrap();
    assert_eq!(bad.status, 400);
    let error: serde_json::Value = serde_json::from_slice(&bad.body).unwrap();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    let negative = deployment
        .chat(0, "alice", &json!({"model": "gpt-4o", "max_tokens": -5, "messages": []}))
        .await
        .unwrap();
    assert_eq!(negative.status, 400);

    let huge =
        hyper::Request::post(format!("http://{}/v1/chat/completions", deployment.gateway_addresses[0]))
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(hyper::body::Bytes::from(vec![b' '; 100 << 20])))
            .unwrap();
    // Either the answer or, where it came before the body had gone out, a connection that was closed.
    if let Ok(response) = deployment.http.request(huge).await {
        assert_eq!(response.status(), 413);
    }
    assert!(
        deployment
            .account(0, "user", "alice", Default::default())
            .await
            .is_none_or(|account| account.spent_micros == 0)
    );
    assert_eq!(deployment.chat(0, "alice", &request_of_100(false)).await.unwrap().status, 200);
}

/// A node that must fail to start, with these words in its output.
fn fails_with(folder: &std::path::Path, config: &str, words: &[&str]) {
    let path = folder.join("bad.yaml");
    std::fs::write(&path, config).unwrap();
    let _ = std::fs::remove_file(folder.join("bad.log"));
    let (code, output) = Process::start(folder, "bad", &["node", "--config", path.to_str().unwrap()]).wait();
    assert_eq!(code, Some(1), "{output}");
    for word in words {
        assert!(output.contains(word), "{word:?} is missing in:\n{output}");
    }
    assert!(!output.contains("panicked"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let address = vec![free_address()];
    let data = folder.path().join("data");
    let config = node_config(1, &address, &free_address(), &data);

    fails_with(
        folder.path(),
        &config.replace("data_dir", "data_dri"),
        &["bad.yaml", "unknown field `data_dri`", "line 5"],
    );
    let taken = std::net::TcpListener::bind(&address[0]).unwrap();
    fails_with(folder.path(), &config, &["cannot listen on", &address[0], "listen"]);
    drop(taken);

    // A cluster of one, to have a folder with data in it.
    let path = folder.path().join("good.yaml");
    std::fs::write(&path, &config).unwrap();
    let start = || Process::start(folder.path(), "good", &["node", "--config", path.to_str().unwrap()]);
    let client = || {
        quorate_rpc::Client::connect(quorate_rpc::ClientConfig {
            name: "test".into(),
            nodes: address.clone(),
            operation_timeout_ms: 5_000,
            security: quorate_rpc::tls::Security::Plain,
        })
    };
    let mut node = start();
    let request =
        quorate_rpc::admin::ApplyPolicyRequest { document: policy(100, "Day"), ..Default::default() };
    client().admin().apply_policy(request).await.unwrap();

    let elsewhere = vec![free_address()];
    let other = |id: usize, cluster: &str| {
        let config = node_config(1, &elsewhere, &free_address(), &data)
            .replace("cluster: test", &format!("cluster: {cluster}"));
        config.replace("id: 1", &format!("id: {id}"))
    };
    fails_with(folder.path(), &other(1, "test"), &["is in use by another process"]);
    node.kill_9();
    fails_with(folder.path(), &other(1, "prod"), &["belongs to cluster test, not prod"]);
    fails_with(folder.path(), &other(2, "test"), &["belongs to node 1, not 2"]);

    let mut again = start();
    let policy = client().admin().get_policy(Default::default()).await.unwrap();
    assert_eq!(policy.version, 1, "nothing was lost");
    again.kill_9();
    damage_a_frame(&data.join("log").join("db"));
    fails_with(folder.path(), &config, &["is damaged", "Rebuild this node from its peers"]);
}

/// Flips bits inside the stored policy document, wherever sled has put it.
fn damage_a_frame(db: &std::path::Path) {
    let mut bytes = std::fs::read(db).unwrap();
    let needle = b"quorate.dev/v1alpha1";
    let places: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| window == needle)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "the log holds the policy");
    for at in places {
        bytes[at] ^= 0xff;
    }
    std::fs::write(db, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_id_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let address = vec![free_address()];
    let path = folder.path().join("first.yaml");
    std::fs::write(&path, node_config(1, &address, &free_address(), &folder.path().join("first"))).unwrap();
    let _first = Process::start(folder.path(), "first", &["node", "--config", path.to_str().unwrap()]);
    let client = quorate_rpc::Client::connect(quorate_rpc::ClientConfig {
        name: "test".into(),
        nodes: address.clone(),
        operation_timeout_ms: 5_000,
        security: quorate_rpc::tls::Security::Plain,
    });
    let admin = client.admin();
    tokio::time::timeout(Duration::from_secs(30), admin.get_policy(Default::default()))
        .await
        .unwrap()
        .unwrap();
    // The second listens elsewhere, behind the first one's advertised address.
    let config = node_config(1, &address, &free_address(), &folder.path().join("second"));
    let config = config.replace(
        &format!("listen: {}\nhttp", address[0]),
        &format!("listen: {}\nadvertise: {}\nhttp", free_address(), address[0]),
    );
    fails_with(folder.path(), &config, &["two nodes run with id 1"]);
}
