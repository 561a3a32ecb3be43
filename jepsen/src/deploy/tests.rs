//! Deployments of real processes: one in a network of its own that is cut and mended, one on the loopback interface. They
//! need `cargo build -p quorate`, and the first one root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{Deployment, NetworkChoice, Options, network_missing};
use crate::faults::by_name;

const WELL_WITHIN: Duration = Duration::from_secs(60);

/// The binary beside this test's own.
fn binary() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let binary = test.parent()?.parent()?.join("quorate");
    if !binary.is_file() {
        eprintln!("skipped: there is no {} (cargo build -p quorate)", binary.display());
    }
    Some(binary).filter(|binary| binary.is_file())
}

fn options(binary: PathBuf, folder: &Path) -> Options {
    let mut options = Options::new(binary, folder.join("run"));
    options.gateways = 1;
    options
}

async fn with_policy(deployment: &Deployment) {
    let policy = deployment.options().folder.join("policy.yaml");
    let text = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: hourly}\n\
        spec: {limit: {tokens: 1000}, window: Hour}\n";
    std::fs::write(&policy, text).unwrap();
    deployment.quorate(&["apply", "-f", &policy.to_string_lossy()], WELL_WITHIN).await.unwrap();
    deployment.wait_until_well(WELL_WITHIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let Some(binary) = binary() else { return };
    if let Some(why) = network_missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deployment = Deployment::start(options(binary, folder.path())).await.unwrap();
    with_policy(&deployment).await;
    let label = deployment.network().unwrap().label().to_owned();
    let leader = deployment.leader().await.unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut fault = by_name("partition-leader").unwrap().make();
    let said = fault.inject(&deployment, &mut random).await.unwrap();
    assert!(said.starts_with(&format!("node {leader} |")), "{said}");
    let deadline = tokio::time::Instant::now() + WELL_WITHIN;
    while deployment.leader().await.is_none_or(|now| now == leader) {
        assert!(tokio::time::Instant::now() < deadline, "nobody took over from node {leader}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The one that was cut off is not well, and nobody says that all is.
    deployment.wait_until_well(Duration::ZERO).await.unwrap_err();
    fault.heal(&deployment).await.unwrap();
    deployment.wait_until_well(WELL_WITHIN).await.unwrap();
    assert_eq!(deployment.unexpected_ends(), Vec::<String>::new());
    drop(deployment);
    let left = super::tool::run("ip", &["netns", "list"]).unwrap();
    assert!(!left.contains(&label), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_of_its_own_nodes_are_killed_and_cuts_are_refused() {
    let Some(binary) = binary() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(binary, folder.path());
    options.network = NetworkChoice::Loopback;
    let refused = crate::faults::equip(&["partition-halves"], &mut options).unwrap_err().to_string();
    assert!(refused.contains("loopback"), "{refused}");
    let deployment = Deployment::start(options).await.unwrap();
    with_policy(&deployment).await;
    let mut random = StdRng::seed_from_u64(2);
    let mut fault = by_name("kill-all").unwrap().make();
    fault.inject(&deployment, &mut random).await.unwrap();
    assert_eq!(deployment.leader().await, None);
    fault.heal(&deployment).await.unwrap();
    deployment.wait_until_well(WELL_WITHIN).await.unwrap();
    let mut cut = by_name("partition-halves").unwrap().make();
    assert!(cut.inject(&deployment, &mut random).await.unwrap_err().to_string().contains("loopback"));
    assert_eq!(deployment.unexpected_ends(), Vec::<String>::new());
    // One that ends by itself is told of.
    let pid = deployment.node_pid(1).and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::ABORT).unwrap();
    while deployment.runs(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ends = deployment.unexpected_ends();
    assert!(ends.len() == 1 && ends[0].starts_with("node 1 ended by itself"), "{ends:?}");
    deployment.heal_all().await.unwrap();
    deployment.wait_until_well(WELL_WITHIN).await.unwrap();
}
