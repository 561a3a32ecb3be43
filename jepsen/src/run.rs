//! One run: a deployment, workloads and faults at the same time; then everything is healed, last reads are made, and the
//! history is checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_rpc::admin::{ApplyPolicyRequest, CheckInvariantsRequest};
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::{Verdict, Violation, availability, floor};
use crate::deploy::{self, Deployment};
use crate::faults::Known;
use crate::history::{Event, History, NEMESIS, Recorder};
use crate::nemesis;
use crate::report::{CLUSTER, Summary};
use crate::workloads::{Context, Workload};

/// After the last heal: until the cluster is well, and for the last reads of each workload.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// No less than its parts: reservations that expire, what is under way at a provider, and reads that are tried again.
const FINISH_WITHIN: Duration = Duration::from_secs(180);
/// Clients end after the operation that they are at.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(60);

/// The clients' headers are believed: in a network of its own, and on loopback.
const IDENTITY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Identity\nmetadata: {name: clients}\nspec:\n  \
     trustedSources: [10.0.0.0/8, 127.0.0.0/8]\n";
/// A shorter run need not have seen everything.
const SEES_ALL_FROM: Duration = Duration::from_secs(40);
/// And what comes after that: clients end, and the last reads are made.
const WELL: &str = "the cluster gets well";

/// What one run does.
#[derive(Clone)]
pub struct Plan {
    pub workloads: Vec<Arc<dyn Workload>>,
    /// They take turns.
    pub faults: Vec<&'static Known>,
    pub time: Duration,
    pub seed: u64,
    pub clients: usize,
    pub deployment: deploy::Options,
    /// For the history and the report.
    pub folder: PathBuf,
}

/// What goes wrong once clients are there is part of the verdict; what was recorded until then is judged all the same.
///
/// # Errors
/// There was no run: a process did not start, or the cluster refused what the workloads need.
pub async fn run(plan: &Plan) -> Result<(History, Summary)> {
    std::fs::create_dir_all(&plan.folder)
        .with_context(|| format!("cannot make {}", plan.folder.display()))?;
    let recorder = Recorder::new(&plan.folder.join("history.jsonl"))?;
    let deployment = Deployment::start(plan.deployment.clone()).await?;
    prepare(plan, &deployment).await?;
    let mut nodes = run_on(plan, &deployment, &recorder).await;
    nodes.merge(process_ends(&deployment));
    drop(deployment);
    let history = recorder.finish()?;
    let summary = judge(plan, &history, nodes);
    Ok((history, summary))
}

async fn prepare(plan: &Plan, deployment: &Deployment) -> Result<()> {
    let documents = plan.workloads.iter().map(|workload| (workload.name(), workload.policy(deployment)));
    for (name, document) in std::iter::once(("any", IDENTITY.to_owned())).chain(documents) {
        let request = ApplyPolicyRequest { document, ..Default::default() };
        let applied = deployment.admin().apply_policy(request).await;
        applied.with_context(|| format!("the policy of workload {name}"))?;
    }
    deployment.wait_until_well(WELL_WITHIN).await?;
    Ok(())
}

/// Clients and faults at the same time, and what comes after them, as far as it goes.
async fn run_on(plan: &Plan, deployment: &Arc<Deployment>, recorder: &Recorder) -> Verdict {
    let mut verdict = Verdict::default();
    let stop = CancellationToken::new();
    let context = Context {
        deployment: deployment.clone(),
        recorder: recorder.clone(),
        seed: plan.seed,
        clients: plan.clients,
        stop: stop.clone(),
    };
    let mut clients = JoinSet::new();
    for workload in &plan.workloads {
        let (name, drive) = (workload.name(), workload.drive(context.clone()));
        clients.spawn(async move { drive.await.with_context(|| format!("workload {name}")) });
    }
    let deadline = Instant::now() + plan.time;
    let faults = tokio::select! {
        faults = nemesis::run(deployment, recorder, plan.faults.clone(), plan.seed, deadline) => faults,
        // Clients end before the time is up only when something is wrong with them.
        Some(ended) = clients.join_next() => {
            let ended = ended.context("a workload panicked").flatten();
            ended.and_then(|()| bail!("the clients of a workload ended by themselves"))
        }
    };
    note(&mut verdict, faults);
    recorder.info(NEMESIS, availability::CLIENTS_STOP, &"");
    stop.cancel();
    note(&mut verdict, deployment.heal_all().await.context("faults cannot be undone"));
    let ended = tokio::time::timeout(CLIENTS_END_WITHIN, ends(&mut clients)).await;
    note(&mut verdict, ended.context("clients do not end").flatten());
    clients.shutdown().await;
    let well = deployment.wait_until_well(WELL_WITHIN).await.context("after all faults were healed");
    // Nobody answers last reads.
    if !note(&mut verdict, well) {
        return verdict;
    }
    for workload in &plan.workloads {
        let finished = tokio::time::timeout(FINISH_WITHIN, workload.finish(context.clone())).await;
        let name = workload.name();
        let finished = finished.context("the last reads take too long").flatten();
        note(&mut verdict, finished.with_context(|| format!("workload {name}")));
    }
    match invariants(deployment).await {
        Ok(found) => verdict.merge(found),
        Err(error) => verdict.not_shown.push(format!("{error:#}")),
    }
    verdict
}

/// Of each that has not ended yet, in the order of their ends.
async fn ends(clients: &mut JoinSet<Result<()>>) -> Result<()> {
    let mut all = Ok(());
    while let Some(ended) = clients.join_next().await {
        all = all.and(ended.context("a workload panicked").flatten());
    }
    all
}

/// An error, as what it says of the cluster; false if there was one.
fn note<T>(verdict: &mut Verdict, done: Result<T>) -> bool {
    match verdict.checked.iter_mut().find(|(property, _)| property == WELL) {
        Some((_, times)) => *times += 1,
        None => verdict.checked.push((WELL.to_owned(), 1)),
    }
    let Err(error) = done else { return true };
    tracing::error!("the run goes wrong: {error:#}");
    let (property, detail) = (WELL.to_owned(), format!("{error:#}"));
    verdict.violations.push(Violation { property, detail, events: Vec::new() });
    false
}

/// Every node's own registry of safety properties.
async fn invariants(deployment: &Deployment) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let addresses = deployment.node_addresses();
    verdict.checked.push(("the ledger's own invariants".to_owned(), addresses.len() as u64));
    for address in addresses {
        let config = ClientConfig {
            name: "jepsen".to_owned(),
            nodes: vec![address.clone()],
            operation_timeout_ms: 5_000,
            security: Security::Plain,
        };
        let answer = Client::connect(config).admin().check_invariants(CheckInvariantsRequest {}).await;
        let answer = answer.with_context(|| format!("the invariants of node {address}"))?;
        verdict.violations.extend(answer.violations.into_iter().map(|detail| Violation {
            property: "the ledger's own invariants".to_owned(),
            detail: format!("node {address}: {detail}"),
            events: Vec::new(),
        }));
    }
    Ok(verdict)
}

/// Processes that ended, or panicked, without having been made to.
fn process_ends(deployment: &Deployment) -> Verdict {
    let violations = deployment.unexpected_ends().into_iter().map(|detail| Violation {
        property: "processes live until they are stopped".to_owned(),
        detail,
        events: Vec::new(),
    });
    Verdict {
        checked: vec![("processes live until they are stopped".to_owned(), 1)],
        violations: violations.collect(),
        ..Verdict::default()
    }
}

fn judge(plan: &Plan, history: &History, mut cluster: Verdict) -> Summary {
    cluster.merge(availability::check(history));
    let mut verdicts: Vec<(String, Verdict)> =
        plan.workloads.iter().map(|workload| (workload.name().to_owned(), workload.check(history))).collect();
    verdicts.push((CLUSTER.to_owned(), cluster));
    if plan.time >= SEES_ALL_FROM {
        demand(history, &mut verdicts);
    }
    let faults: Vec<&str> = plan.faults.iter().map(|known| known.name).collect();
    Summary::new(history, verdicts, &faults, plan.seed, plan.time)
}

/// All properties were seen, and clients were served, in a run that was long enough for that.
fn demand(history: &History, verdicts: &mut [(String, Verdict)]) {
    for (name, verdict) in verdicts {
        verdict.unseen_is_not_shown();
        if name != CLUSTER {
            verdict.not_shown.extend(floor::missing(history, name));
        }
    }
}

/// Checks a recorded history again: each workload that has events in it.
///
/// # Errors
/// The file cannot be read, or no workload has events in it.
pub fn replay(path: &Path) -> Result<(History, Summary)> {
    let history = History::read(path)?;
    let all = crate::workloads::all();
    let has_events =
        |workload: &Arc<dyn Workload>| history.events.iter().any(|event| event.workload == workload.name());
    let mut verdicts: Vec<(String, Verdict)> = all
        .iter()
        .filter(|workload| has_events(workload))
        .map(|workload| (workload.name().to_owned(), workload.check(&history)))
        .collect();
    if verdicts.is_empty() {
        bail!("{} holds no operations of a workload that is known here", path.display());
    }
    verdicts.push((CLUSTER.to_owned(), availability::check(&history)));
    let time = |event: &Event| Duration::from_micros(event.time_us);
    let stopped = history.faults().find(|event| event.f == availability::CLIENTS_STOP).map(time);
    if stopped.is_some_and(|time| time >= SEES_ALL_FROM) {
        demand(&history, &mut verdicts);
    }
    let time = history.events.last().map_or(Duration::ZERO, time);
    let summary = Summary::new(&history, verdicts, &[], 0, time);
    Ok((history, summary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Kind;

    #[tokio::test]
    async fn what_goes_wrong_is_a_violation_and_does_not_hide_the_rest() {
        let mut clients = JoinSet::new();
        clients.spawn(async { bail!("workload a: no provider") });
        clients.spawn(async { panic!("of workload b") });
        clients.spawn(async { Ok(()) });
        let ended = ends(&mut clients).await;
        assert!(clients.is_empty());
        let mut verdict = Verdict::default();
        assert!(!note(&mut verdict, ended) && note(&mut verdict, Ok(())));
        assert_eq!(verdict.checked, [(WELL.to_owned(), 2)]);
        assert_eq!((verdict.violations.len(), verdict.broken(WELL)), (1, 1), "{verdict:?}");
    }

    #[test]
    fn a_long_run_has_to_show_everything_and_a_short_one_what_it_can() {
        let event = |index, time_s: u64, workload: &str, kind, f: &str| Event {
            index,
            time_us: time_s * 1_000_000,
            workload: workload.to_owned(),
            process: 1,
            kind,
            f: f.to_owned(),
            value: serde_json::Value::Null,
            error: None,
        };
        let not_shown = |stop_s| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("history.jsonl");
            let lines = [
                event(0, 1, "windows", Kind::Invoke, "reserve"),
                event(1, 2, "windows", Kind::Fail, "reserve"),
                event(2, stop_s, NEMESIS, Kind::Info, availability::CLIENTS_STOP),
            ];
            let lines = lines.map(|event| serde_json::to_string(&event).unwrap());
            std::fs::write(&path, lines.join("\n")).unwrap();
            let (_, summary) = replay(&path).unwrap();
            let all = summary.verdicts.into_iter().flat_map(|(_, verdict)| verdict.not_shown);
            all.collect::<Vec<_>>()
        };
        let long = not_shown(40);
        assert!(long.iter().any(|why| why.contains("0 of 1 operations were decided")), "{long:?}");
        assert!(long.iter().any(|why| why.contains("nothing was seen that could break")), "{long:?}");
        let short = not_shown(39);
        assert!(!short.is_empty() && short.len() < long.len(), "{short:?}");
        assert!(
            !short.iter().any(|why| why.contains("decided") || why.contains("nothing was seen")),
            "{short:?}"
        );
    }
}
