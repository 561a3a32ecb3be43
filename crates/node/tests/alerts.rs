//! Alerts as webhooks: signed, under a stable id, once where nothing fails, again by the next leader where something does.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_ledger::{Amount, Charge, Command, Outcome};
use quorate_node::{AlertsConfig, SecretKey};
use quorate_rpc::Client;
use quorate_rpc::admin::{ListAlertsRequest, WatchEventsRequest, event::Kind};
use quorate_testkit::Cluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const POLICY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: user}\nspec:\n  subject: [{header: x-user-id}]\n  limit: {tokens: 100}\n  window: Lifetime\n  alerts: {shares: [50, 100]}\n";
const TIMEOUT: Duration = Duration::from_secs(20);
const SECRET: &str = "hush";
/// Alerts that are raised and not known as delivered.
const WAITING: &str = "quorate_node_alerts_waiting";

/// A tiny HTTP server that keeps what it was sent and answers as it is told.
struct Receiver {
    address: String,
    received: Arc<Mutex<Vec<(String, String)>>>,
    status: Arc<AtomicU16>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap().to_string(),
            received: Arc::default(),
            status: Arc::new(AtomicU16::new(204)),
        };
        let (received, status) = (receiver.received.clone(), receiver.status.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, received.clone(), status.clone()));
            }
        });
        receiver
    }

    /// Heads and bodies, once there are so many.
    async fn wait_for(&self, count: usize) -> Vec<(String, String)> {
        let waiting = async {
            while self.received.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
        self.received.lock().clone()
    }
}

async fn answer(mut stream: TcpStream, received: Arc<Mutex<Vec<(String, String)>>>, status: Arc<AtomicU16>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut some = [0; 4_096];
        let read = stream.read(&mut some).await.unwrap();
        bytes.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize = header(head, "content-length").unwrap().parse().unwrap();
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    received.lock().push((head, body));
    let line = format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", status.load(Ordering::SeqCst));
    stream.write_all(line.as_bytes()).await.unwrap();
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

async fn cluster(receiver: &Receiver) -> (Cluster, tempfile::TempDir) {
    let secrets = tempfile::tempdir().unwrap();
    std::fs::create_dir(secrets.path().join("pager")).unwrap();
    std::fs::write(secrets.path().join("pager/token"), SECRET).unwrap();
    let (url, dir) = (format!("http://{}/alerts", receiver.address), secrets.path().to_owned());
    let cluster = Cluster::start_with(3, move |config| {
        config.secrets.dir = Some(dir.clone());
        let secret = Some(SecretKey { name: "pager".to_owned(), key: "token".to_owned() });
        config.alerts = AlertsConfig { url: Some(url.clone()), secret };
    })
    .await;
    cluster.apply(POLICY).await;
    (cluster, secrets)
}

async fn spend(client: &Client, tokens: u64) {
    let amount = Amount::from_units(tokens).unwrap();
    let charge = Charge { budget: "user".into(), subject: "alice".into(), amount, at_least: amount };
    let (tenant, id) = ("acme".to_owned(), client.new_id());
    let reserve =
        Command::Reserve { tenant: tenant.clone(), id, charges: vec![charge], ttl_ms: 60_000, wait: false };
    let executed = client.execute(reserve, TIMEOUT).await.unwrap();
    assert!(matches!(executed.outcome, Outcome::Granted(_)), "{executed:?}");
    client
        .execute(Command::Settle { tenant, id, actual: vec![amount], estimated: false }, TIMEOUT)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_share_is_told_once_whoever_leads() {
    let receiver = Receiver::start().await;
    let (mut cluster, _secrets) = cluster(&receiver).await;
    let client = cluster.client();
    spend(&client, 60).await;
    let received = receiver.wait_for(1).await;
    let (head, body) = &received[0];
    let told: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&told["budget"], &told["subject"]), (&"user".into(), &"alice".into()), "{body}");
    assert_eq!((told["share_percent"].as_u64(), told["spent_micros"].as_u64()), (Some(50), Some(60_000_000)));
    assert_eq!(header(head, "quorate-alert-id"), told["id"].as_str());
    let signature = header(head, "quorate-signature").unwrap();
    let at = signature.trim_start_matches("t=").split(',').next().unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature, format!("t={at},v1={hex}"));
    // What the cluster has on record is known to the next leader.
    cluster.until_metric(WAITING, |alerts| alerts == 0).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    spend(&client, 40).await;
    receiver.wait_for(2).await;
    // All that this leader had to deliver.
    cluster.until_metric(WAITING, |alerts| alerts == 0).await;
    let received = receiver.received.lock().clone();
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(received[1].1.contains("\"share_percent\":100"), "{received:?}");
    let listed = client.admin().list_alerts(ListAlertsRequest::default()).await.unwrap().alerts;
    assert_eq!(listed.iter().map(|alert| alert.share).collect::<Vec<_>>(), [50, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_sent_again_under_the_same_id_by_the_next_leader_too() {
    let receiver = Receiver::start().await;
    receiver.status.store(500, Ordering::SeqCst);
    let (mut cluster, _secrets) = cluster(&receiver).await;
    // A budget's own webhook goes before that of the nodes.
    let webhook = format!(
        "shares: [50], webhook: {{url: 'http://{}/own?token=1', secretRef: {{name: pager, key: token}}}}",
        receiver.address
    );
    cluster.apply(&POLICY.replace("shares: [50, 100]", &webhook)).await;
    let client = cluster.client();
    spend(&client, 50).await;
    receiver.wait_for(2).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    receiver.status.store(200, Ordering::SeqCst);
    let before = receiver.received.lock().len();
    let received = receiver.wait_for(before + 1).await;
    let ids: Vec<_> = received.iter().map(|(head, _)| header(head, "quorate-alert-id").unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let own = |(head, _): &(String, String)| {
        head.starts_with("POST /own?token=1 ") && header(head, "quorate-signature").is_some()
    };
    assert!(received.iter().all(own), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_sees_alerts_and_versions() {
    let receiver = Receiver::start().await;
    let (cluster, _secrets) = cluster(&receiver).await;
    let client = cluster.client();
    let mut events = client.admin().watch_events(WatchEventsRequest::default()).await.unwrap();
    spend(&client, 100).await;
    let (mut shares, mut versions) = (Vec::new(), Vec::new());
    while shares.len() < 2 || versions.is_empty() {
        let event = tokio::time::timeout(TIMEOUT, events.message()).await.unwrap().unwrap().unwrap();
        match event.kind.unwrap() {
            Kind::Alert(alert) => shares.push(alert.share),
            Kind::Policy(policy) => versions.push((policy.version, policy.by)),
        }
    }
    assert_eq!((shares, versions), (vec![50, 100], vec![(1, "testkit".to_owned())]));
}
