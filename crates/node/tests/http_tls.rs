//! `/metrics` and `/healthz` of a node over TLS, and what a port for other machines needs.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use quorate_node::{
    AlertsConfig, ClockConfig, Limits, Node, NodeConfig, PeerConfig, RaftTimers, SecretsConfig,
};
use quorate_rpc::tls::{Authority, HttpTlsFiles, Role, Subject};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

fn config(folder: &std::path::Path) -> NodeConfig {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    NodeConfig {
        cluster: "test".to_owned(),
        id: 1,
        listen: listen.clone(),
        advertise: None,
        http_listen: "127.0.0.1:0".to_owned(),
        data_dir: folder.join("data"),
        peers: vec![PeerConfig { id: 1, address: listen }],
        tls: None,
        http_tls: None,
        insecure: false,
        limits: Limits::default(),
        secrets: SecretsConfig::default(),
        alerts: AlertsConfig::default(),
        raft: RaftTimers::default(),
        clock: ClockConfig::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_over_tls_and_the_clock_stands_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test").unwrap();
    let hosts = vec!["127.0.0.1".to_owned()];
    let issued =
        authority.issue(&Subject { name: "n1".to_owned(), role: Role::Node, hosts, days: 1 }).unwrap();
    let (cert_file, key_file) = (folder.path().join("own.crt"), folder.path().join("own.key"));
    fs::write(&cert_file, issued.certificate).unwrap();
    fs::write(&key_file, issued.key).unwrap();
    let mut config = config(folder.path());
    config.http_tls = Some(HttpTlsFiles { cert_file, key_file, client_ca_file: None });
    let listeners = Node::bind(&config).unwrap();
    let node = Node::start(config, listeners).await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(https);
    let get = async |path: &str| {
        let uri = format!("https://{}{path}", node.http_address()).parse().unwrap();
        let (head, body) = client.get(uri).await.unwrap().into_parts();
        (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    assert_eq!(get("/healthz").await, (http::StatusCode::OK, "ok\n".to_owned()));
    let compared = async {
        while !get("/metrics").await.1.contains("quorate_node_clock_offset_ms{from=\"median\"} 0\n") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), compared).await.expect("one clock is right");
    node.close().await;
}

#[test]
fn a_port_for_others_needs_tls_or_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let files = HttpTlsFiles { cert_file: "a".into(), key_file: "b".into(), client_ca_file: None };
    let table = [
        // (http_tls, insecure, refused)
        (None, false, true),
        (None, true, false),
        (Some(files), false, false),
    ];
    for (http_tls, insecure, refused) in table {
        let mut config = config(folder.path());
        config.http_listen = "0.0.0.0:0".to_owned();
        (config.http_tls, config.insecure) = (http_tls, insecure);
        let bound = Node::bind(&config).map(drop).map_err(|error| error.to_string());
        assert_eq!(bound.is_err(), refused, "{bound:?}");
        assert!(bound.err().is_none_or(|error| error.contains("`http_tls`") && error.contains("--insecure")));
    }
}
