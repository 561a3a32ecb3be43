//! One opinion of a backend in the whole fleet: three nodes and four gateways, each a process of its own, under traffic.
//! What counts is the record of the provider, by the provider's own clock.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

#[path = "support/recorder.rs"]
mod recorder;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use recorder::{Recorder, Seen};
use serde_json::{Value, json};
use support::Deployment;
use tokio::task::JoinHandle;

const GATEWAYS: usize = 4;
/// Of each gateway: one of them may be held as the probe.
const CLIENTS: usize = 2;
/// How soon nobody sends any more, on a machine with nothing else to do: 100 ms, which `QUORATE_TEST_WITHIN_MS=100` insists
/// on. Without it the figure is printed, and some of the rest is enough: the machine may run many tests at once.
fn within() -> Duration {
    let within = std::env::var("QUORATE_TEST_WITHIN_MS").ok().and_then(|text| text.parse().ok());
    within.map_or(Duration::from_secs(rest_s()) / 3, Duration::from_millis)
}

/// Where a probe is lost.
const LEASE_MS: u64 = 3_000;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

/// One fleet at a time: what is measured is not how many of them fit on this machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What a `retry-after` asks for, in seconds. The command line is asked what it shows meanwhile.
fn rest_s() -> u64 {
    std::env::var("QUORATE_TEST_REST_S").ok().and_then(|text| text.parse().ok()).unwrap_or(15)
}

/// Clients of each gateway that never stop asking.
struct Traffic {
    served: Arc<[AtomicU64; GATEWAYS]>,
    refused: Arc<[AtomicU64; GATEWAYS]>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(deployment: &Deployment) -> Self {
        let (served, refused) = (Arc::<[AtomicU64; GATEWAYS]>::default(), Arc::default());
        let stop = Arc::new(AtomicBool::new(false));
        let client = |gateway: usize| {
            let (http, address) = (deployment.http.clone(), deployment.gateway_addresses[gateway].clone());
            let (served, refused, stop) = (served.clone(), Arc::clone(&refused), stop.clone());
            let body = json!({
                "model": "gpt-4o",
                "max_tokens": 10,
                "messages": [{"role": "user", "content": "Hello there!"}],
                "metadata": {"from": gateway.to_string()},
            });
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::post(format!("http://{address}/v1/chat/completions"))
                        .header("content-type", "application/json")
                        .header("x-user-id", "alice")
                        .body(Full::new(Bytes::from(body.to_string())))
                        .unwrap();
                    let (status, body) = match http.request(request).await {
                        Ok(response) => {
                            let status = response.status().as_u16();
                            let body = response.into_body().collect().await.map(|body| body.to_bytes());
                            (status, body.unwrap_or_default())
                        }
                        // The gateway was killed.
                        Err(_) => (0, Bytes::new()),
                    };
                    let counted: Option<&[AtomicU64; GATEWAYS]> = match status {
                        200 => Some(&served),
                        429 if code(&body) == "provider_limited" => Some(&refused),
                        _ => None,
                    };
                    if let Some(counted) = counted {
                        counted[gateway].fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        let clients = (0..GATEWAYS * CLIENTS).map(|number| client(number % GATEWAYS)).collect();
        Self { served, refused: Arc::clone(&refused), stop, clients }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

fn code(body: &Bytes) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Waits until each of these gateways has counted so many more.
async fn more(deployment: &Deployment, counts: &[AtomicU64; GATEWAYS], gateways: &[usize], so_many: u64) {
    let count = |gateway: &usize| counts[*gateway].load(Ordering::Relaxed);
    let before: Vec<u64> = gateways.iter().map(count).collect();
    deployment
        .until(async || {
            gateways.iter().zip(&before).all(|(gateway, before)| count(gateway) >= before + so_many)
        })
        .await;
}

async fn fleet(lease_ms: u64) -> (Deployment, Arc<Recorder>) {
    let recorder = Recorder::start().await;
    let mut deployment = Deployment::without_gateways(&support::policy(100_000_000, "Lifetime")).await;
    for _ in 0..GATEWAYS {
        let backends = [("recorded", recorder.address.clone())];
        deployment.start_gateway_with(&backends, &format!("timeouts: {{probe_ms: {lease_ms}}}\n")).await;
    }
    (deployment, recorder)
}

/// Has one request limited; when the answer went out.
async fn limit(deployment: &Deployment, recorder: &Recorder, rest_s: u64) -> Instant {
    recorder.limit_next(rest_s);
    deployment.until(async || recorder.limited_at().is_some()).await;
    recorder.limited_at().unwrap()
}

/// Waits for the first request that is held.
async fn probe(deployment: &Deployment, recorder: &Recorder, after: Instant) -> Seen {
    let mut found = None;
    deployment
        .until(async || {
            found = recorder.since(after).into_iter().find(|seen| seen.answered.is_none());
            found.is_some()
        })
        .await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_leaves_a_limited_backend_alone_and_one_probe_tries_it_again() {
    let _turn = TURN.lock().await;
    let (deployment, recorder) = fleet(60_000).await;
    let traffic = Traffic::start(&deployment);
    let all: Vec<usize> = (0..GATEWAYS).collect();
    more(&deployment, &traffic.served, &all, 20).await;
    let rest = Duration::from_secs(rest_s());
    let limited_at = limit(&deployment, &recorder, rest_s()).await;

    // Everybody refuses at once, and says why.
    more(&deployment, &traffic.refused, &all, 3).await;
    let shown = deployment.quorate(&["get", "providers"]).unwrap();
    assert!(
        shown.contains("recorded") && shown.contains("open") && shown.contains("limited: status 429"),
        "{shown}"
    );

    let first = probe(&deployment, &recorder, limited_at + rest).await;
    // While the probe is out, all four are asked, and nothing else is sent.
    more(&deployment, &traffic.refused, &all, 20).await;
    let shown = deployment.quorate(&["get", "providers"]).unwrap();
    assert!(shown.contains("half-open") && shown.contains("now, by gateway-"), "{shown}");
    recorder.serve();
    more(&deployment, &traffic.served, &all, 10).await;
    traffic.stop().await;

    let record = recorder.since(limited_at);
    let after = |seen: &Seen| seen.came - limited_at;
    let in_rest: Vec<&Seen> = record.iter().filter(|seen| after(seen) < rest).collect();
    let stopped = in_rest.iter().map(|seen| after(seen)).max().unwrap_or_default();
    println!(
        "after the 429 {} requests were still sent, the last one {stopped:?} after it; the probe came {:?} after the rest",
        in_rest.len(),
        after(&first) - rest
    );
    assert!(stopped < within(), "a request was sent {stopped:?} after the 429");
    let probe = record.iter().find(|seen| seen.came == first.came).unwrap();
    let beside = record.iter().filter(|seen| after(seen) >= rest && Some(seen.came) < probe.answered);
    assert_eq!(beside.count(), 1, "one probe, and nothing beside it: {record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_its_probe_to_another() {
    let _turn = TURN.lock().await;
    let (mut deployment, recorder) = fleet(LEASE_MS).await;
    let traffic = Traffic::start(&deployment);
    let all: Vec<usize> = (0..GATEWAYS).collect();
    more(&deployment, &traffic.served, &all, 5).await;
    let limited_at = limit(&deployment, &recorder, 1).await;
    let rest_over = limited_at + Duration::from_secs(1);
    let first = probe(&deployment, &recorder, rest_over).await;
    deployment.gateways[first.from].kill_9();
    let killed = Instant::now();
    let second = probe(&deployment, &recorder, killed).await;
    let others: Vec<usize> = all.into_iter().filter(|gateway| *gateway != first.from).collect();
    more(&deployment, &traffic.refused, &others, 3).await;
    recorder.serve();
    more(&deployment, &traffic.served, &others, 10).await;
    traffic.stop().await;

    println!(
        "the holder of the probe was killed; another probed {:?} after it (lease {LEASE_MS} ms)",
        second.came - first.came
    );
    assert_ne!(second.from, first.from);
    let answered = recorder.since(killed).into_iter().find(|seen| seen.came == second.came).unwrap().answered;
    let sent = |seen: &Seen| seen.came >= rest_over && Some(seen.came) < answered;
    let probes =
        recorder.since(limited_at).into_iter().filter(sent).map(|seen| seen.from).collect::<Vec<_>>();
    assert_eq!(probes, [first.from, second.from], "one at a time");
    // The lease began before the first came, and had to run out.
    assert!(second.came - first.came > Duration::from_millis(LEASE_MS / 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_backend_gets_nothing_until_it_is_undrained() {
    let _turn = TURN.lock().await;
    let (deployment, recorder) = fleet(60_000).await;
    let ask =
        async |gateway| deployment.chat(gateway, "alice", &support::request_of_100(false)).await.unwrap();
    let said = deployment.quorate(&["drain", "backend", "recorded", "--by", "ops"]).unwrap();
    assert!(said.contains("backend recorded drained"), "{said}");
    for gateway in 0..GATEWAYS {
        deployment.until(async || code(&ask(gateway).await.body) == "backends_resting").await;
    }
    let from = Instant::now();
    for gateway in 0..GATEWAYS {
        let refused = ask(gateway).await;
        assert_eq!(refused.status, 503);
        assert!(String::from_utf8_lossy(&refused.body).contains("recorded is drained"));
    }
    assert!(recorder.since(from).is_empty());
    let shown = deployment.quorate(&["get", "providers"]).unwrap();
    assert!(shown.contains("drained") && shown.contains("by ops"), "{shown}");
    let audit = deployment.quorate(&["history", "audit"]).unwrap();
    assert!(audit.contains("drain backend") && audit.contains("ops"), "{audit}");
    deployment.quorate(&["undrain", "backend", "recorded"]).unwrap();
    for gateway in 0..GATEWAYS {
        deployment.until(async || ask(gateway).await.status == 200).await;
    }
}
