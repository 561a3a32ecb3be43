//! The workloads on accounts against a real cluster on loopback, with a node killed in between: by hand, for
//! `cargo test -p quorate-jepsen trial -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_rpc::admin::ApplyPolicyRequest;
use tokio_util::sync::CancellationToken;

use crate::check::{availability, counts};
use crate::deploy::{Deployment, Options};
use crate::history::{History, NEMESIS, Recorder};
use crate::workloads::account::Account;
use crate::workloads::hierarchy::Hierarchy;
use crate::workloads::{Context, Workload};

/// Checks a history again: `HISTORY=… cargo test -p quorate-jepsen again -- --ignored --nocapture`.
#[test]
#[ignore = "needs a history"]
fn again() {
    let path = std::env::var("HISTORY").unwrap();
    let history = History::read(std::path::Path::new(&path)).unwrap();
    let workloads: [Box<dyn Workload>; 2] = [Box::<Account>::default(), Box::<Hierarchy>::default()];
    for workload in workloads {
        let started = Instant::now();
        let verdict = workload.check(&history);
        println!("{}: checked in {} ms, {verdict:#?}", workload.name(), started.elapsed().as_millis());
        assert!(verdict.passed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the debug binary, and a minute"]
async fn trial() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let binary = std::env::current_exe().unwrap().parent().unwrap().join("../quorate");
    let folder = tempfile::tempdir().unwrap().keep();
    println!("in {}", folder.display());
    let options = Options { binary, folder: folder.clone(), nodes: 3, gateways: 0 };
    let deployment = Deployment::start(options).await.unwrap();
    let recorder = Recorder::new(&folder.join("history.jsonl")).unwrap();
    let stop = CancellationToken::new();
    let context = Context {
        deployment: deployment.clone(),
        recorder: recorder.clone(),
        seed: number("SEED", 1),
        clients: usize::try_from(number("CLIENTS", 16)).unwrap(),
        stop: stop.clone(),
    };
    let workloads: Vec<Arc<dyn Workload>> = vec![
        Arc::new(Account::with_rate(number("RATE", 250))),
        Arc::new(Hierarchy::with_rate(number("RATE", 250) / 4)),
    ];
    let document: String = workloads.iter().map(|workload| workload.policy(&deployment)).collect();
    let request = ApplyPolicyRequest { document, ..Default::default() };
    deployment.admin().apply_policy(request).await.unwrap();
    let driving: Vec<_> =
        workloads.iter().map(|workload| tokio::spawn(workload.drive(context.clone()))).collect();
    let end = Instant::now() + Duration::from_secs(number("SECONDS", 30));
    for round in 0.. {
        tokio::time::sleep(Duration::from_secs(6)).await;
        if Instant::now() + Duration::from_secs(8) > end {
            break;
        }
        let ids = deployment.node_ids();
        let leader = deployment.leader().await.unwrap_or(1);
        let node = if round % 2 == 0 { leader } else { ids[round % ids.len()] };
        recorder.info(NEMESIS, "inject:kill-one", &node);
        deployment.kill_node(node);
        tokio::time::sleep(Duration::from_secs(3)).await;
        deployment.start_node(node).unwrap();
        recorder.info(NEMESIS, "heal:kill-one", &node);
    }
    tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    stop.cancel();
    for driven in driving {
        driven.await.unwrap().unwrap();
    }
    for workload in &workloads {
        workload.finish(context.clone()).await.unwrap();
    }
    let history = recorder.finish().unwrap();
    let bytes = std::fs::metadata(folder.join("history.jsonl")).unwrap().len();
    println!("{} events, {} KiB", history.events.len(), bytes / 1024);
    let mut verdicts = Vec::new();
    for workload in &workloads {
        let started = Instant::now();
        let verdict = workload.check(&history);
        println!("{}: checked in {} ms, {:#?}", workload.name(), started.elapsed().as_millis(), verdict);
        verdicts.push((workload.name().to_owned(), verdict));
    }
    println!("{:#?}", availability::recoveries(&history));
    println!("{:#?}", counts::table(&history, &verdicts));
    assert!(verdicts.iter().all(|(_, verdict)| verdict.passed()), "{}", folder.display());
}
