//! Workload `policy`: one budget's limit goes up and down, by two appliers that get into each other's way, while requests
//! and direct reservations are decided by it. What must hold is in `policy_check`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{BoxFuture, join_all};
use quorate_ledger::{Amount, Charge, Command, Outcome};
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{
    ApplyPolicyRequest, ApplyPolicyResponse, ListPolicyVersionsRequest, RollbackPolicyRequest,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::http::Http;
use super::policy_check::{
    self, APPLY, Applied, Apply, BUDGET, CHAT, Decision, INITIAL, MICROS, RESERVE, ROLLOUT, Running, SETTLE,
    VERSIONS, Versions,
};
use super::{Context, Workload, gateway_looks};
use crate::check::Verdict;
use crate::client::{CALL, Ending, Ids, NodeClient, Nodes, Via};
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

pub const NAME: &str = "policy";
const APPLIERS: u64 = 2;
/// Between two changes of one applier, on average.
const APPLY_PAUSE_MS: u64 = 1_000;
/// Between two requests or reservations of a client, on average.
const PAUSE_MS: u64 = 250;
const ROLLOUT_EVERY: Duration = Duration::from_millis(500);
const APPLY_WITHIN: Duration = Duration::from_secs(8);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The latest versions of a list: older ones were in the lists before.
const VERSIONS_SHOWN: usize = 60;
const METRIC: &str = "quorate_gateway_policy_version ";

#[derive(Debug)]
pub struct Policy {
    http: Http,
}

impl Policy {
    pub fn new() -> Self {
        Self { http: Http::new() }
    }
}

impl Workload for Policy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn policy(&self, _deployment: &Deployment) -> String {
        manifest(INITIAL)
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let http = self.http.clone();
        Box::pin(async move {
            let nodes = Nodes::new(&context.deployment, Via::Unary);
            read_versions_until_known(&context, &nodes.all()).await?;
            let appliers = join_all((0..APPLIERS).map(|number| apply(context.clone(), number)));
            let requests = join_all(
                (0..context.clients.div_ceil(2))
                    .map(|number| ask(context.clone(), http.clone(), random(&context, 100 + number as u64))),
            );
            let reservations = join_all(
                (0..context.clients.div_ceil(2))
                    .map(|number| reserve(context.clone(), random(&context, 200 + number as u64))),
            );
            let rollouts = gateway_looks::watch(&context, NAME, ROLLOUT, ROLLOUT_EVERY, running);
            tokio::join!(appliers, requests, reservations, rollouts);
            Ok(())
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let nodes = Nodes::new(&context.deployment, Via::Unary);
            read_versions_until_known(&context, &nodes.all()).await
        })
    }

    fn check(&self, history: &History) -> Verdict {
        policy_check::check(history)
    }
}

fn manifest(limit: u64) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {BUDGET}}}\nspec:\n  tenant: {NAME}\n  \
         limit: {{tokens: {limit}}}\n  window: Second\n"
    )
}

fn random(context: &Context, number: u64) -> StdRng {
    StdRng::seed_from_u64(context.seed ^ (0x9011 << 32) ^ number)
}

async fn read_versions(recorder: &Recorder, node: &NodeClient) -> Option<Versions> {
    let pending = recorder.invoke(NAME, recorder.process(), VERSIONS, &node.node());
    let list = async |mut client: AdminClient<Channel>, request| client.list_policy_versions(request).await;
    let ending = node.read(ListPolicyVersionsRequest::default(), CALL, list).await;
    ending.record(pending, |read| {
        let log_index = read.value.read_point.map_or(0, |point| point.log_index);
        let latest = read.value.versions.into_iter().take(VERSIONS_SHOWN);
        Versions { log_index, versions: latest.map(|one| (one.version, one.comment)).collect() }
    })
}

async fn read_versions_until_known(context: &Context, nodes: &[Arc<NodeClient>]) -> Result<()> {
    for turn in 0..nodes.len() * 10 {
        if read_versions(&context.recorder, &nodes[turn % nodes.len()]).await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    anyhow::bail!("{NAME}: no node lists the policy's versions")
}

/// Reads the version in force, and changes it, unless somebody else was faster.
async fn apply(context: Context, number: u64) {
    let mut random = random(&context, number);
    let nodes = Nodes::new(&context.deployment, Via::Unary);
    let mut turn = 0;
    while !context.stop.is_cancelled() {
        let pause = random.random_range(APPLY_PAUSE_MS / 2..APPLY_PAUSE_MS * 3 / 2);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Some(node) = nodes.any(&mut random) else { return };
        let Some(known) = read_versions(&context.recorder, &node).await else { continue };
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        turn += 1;
        let marker = format!("{NAME}-{number}-{turn}");
        let ours = |(_, comment): &&(u64, String)| comment.starts_with(NAME);
        let earlier = known.versions.iter().skip(1).filter(ours).map(|(version, _)| *version).next();
        let back = earlier.filter(|_| random.random_bool(0.2));
        let expected = known.versions.first().map(|(version, _)| *version);
        let call = Apply {
            marker,
            // Never the same twice, so that it tells its version.
            limit: random.random_range(1..6) * 100_000 + turn * APPLIERS + number + 1,
            back_to: back,
            expected: expected.filter(|_| back.is_none() && random.random_bool(0.8)),
        };
        let addresses = context.deployment.node_addresses();
        let place = random.random_range(0..addresses.len().max(1));
        let Some(address) = addresses.get(place) else { return };
        change(&context.recorder, address, &call).await;
    }
}

async fn change(recorder: &Recorder, address: &str, call: &Apply) {
    let pending = recorder.invoke(NAME, recorder.process(), APPLY, call);
    let channel = match quorate_rpc::endpoint(address) {
        Ok(endpoint) => tokio::time::timeout(CONNECT_WITHIN, endpoint.connect()).await,
        Err(error) => return pending.fail(&error.to_string()),
    };
    let channel = match channel {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return pending.fail(&error.to_string()),
        Err(_) => return pending.fail("no connection in time"),
    };
    match tokio::time::timeout(APPLY_WITHIN, send(AdminClient::new(channel), call)).await {
        Ok(Ok(applied)) => pending.ok(&Applied { version: Some(applied.version), changed: applied.changed }),
        Ok(Err(status)) => match status.code() {
            // Somebody else was faster: nothing was changed.
            Code::Aborted => pending.ok(&Applied { version: None, changed: false }),
            Code::InvalidArgument | Code::NotFound => pending.fail(status.message()),
            _ => pending.unknown(&format!("{:?}: {}", status.code(), status.message())),
        },
        Err(_) => pending.unknown("no answer in time"),
    }
}

async fn send(mut client: AdminClient<Channel>, call: &Apply) -> Result<ApplyPolicyResponse, Status> {
    let comment = call.marker.clone();
    let answer = match call.back_to {
        Some(version) => {
            client.rollback_policy(RollbackPolicyRequest { version, dry_run: false, comment }).await?
        }
        None => {
            let request = ApplyPolicyRequest {
                document: manifest(call.limit),
                expected_version: call.expected,
                comment,
                ..Default::default()
            };
            client.apply_policy(request).await?
        }
    };
    Ok(answer.into_inner())
}

/// Through a gateway, whose answer names the limit.
async fn ask(context: Context, http: Http, mut random: StdRng) {
    let mut process = context.recorder.process();
    let mut turn = 0;
    while !context.stop.is_cancelled() {
        turn += 1;
        let gateways = context.deployment.gateway_addresses();
        let number = random.random_range(0..gateways.len().max(1));
        let Some(gateway) = gateways.get(number) else { return };
        let body = json!({
            "model": "gpt-4o", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello there!"}],
        });
        let marker = format!("{NAME}-{process}-{turn}");
        let headers = [("x-tenant-id", NAME), ("x-request-id", marker.as_str())];
        let pending = context.recorder.invoke(NAME, process, CHAT, &number);
        if !http.chat(gateway, &headers, &body, None).await.record(pending) {
            process = context.recorder.process();
        }
        let pause = random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Straight from a node, each sent once; what is granted is settled in full.
async fn reserve(context: Context, mut random: StdRng) {
    let nodes = Nodes::new(&context.deployment, Via::Unary);
    let ids = Ids::follow(&context.deployment);
    let recorder = &context.recorder;
    let mut process = recorder.process();
    while !context.stop.is_cancelled() {
        let pause = random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Some(node) = nodes.any(&mut random) else { return };
        let id = ids.next(&mut random);
        let tokens: u64 = random.random_range(10_000..150_000);
        let Ok(amount) = Amount::from_units(tokens) else { return };
        let (budget, subject) = (BUDGET.to_owned(), String::new());
        let charges = vec![Charge { budget, subject, amount, at_least: amount }];
        let tenant = NAME.to_owned();
        let command = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms: 2_000, wait: false };
        let pending = recorder.invoke(NAME, process, RESERVE, &(tokens * MICROS));
        let granted = match node.execute(&command, CALL).await {
            Ending::Ok(executed) => {
                let decision = decision(&executed.outcome, executed.log_index);
                pending.ok(&decision);
                decision.granted
            }
            Ending::Fail(reason) => {
                pending.fail(&reason);
                continue;
            }
            Ending::Unknown(reason) => {
                pending.unknown(&reason);
                process = recorder.process();
                continue;
            }
        };
        if granted {
            let command = Command::Settle { tenant, id, actual: vec![amount], estimated: false };
            let pending = recorder.invoke(NAME, process, SETTLE, &(tokens * MICROS));
            match node.execute(&command, CALL).await {
                Ending::Ok(executed) => pending.ok(&executed.log_index),
                Ending::Fail(reason) => pending.fail(&reason),
                Ending::Unknown(reason) => {
                    pending.unknown(&reason);
                    process = recorder.process();
                }
            }
        }
    }
}

fn decision(outcome: &Outcome, log_index: u64) -> Decision {
    let (granted, balance) = match outcome {
        Outcome::Granted(grant) => (true, grant.balances.first()),
        Outcome::Denied(denial) => (false, Some(&denial.account)),
        _ => (false, None),
    };
    Decision {
        granted,
        log_index,
        limit: balance.map(|balance| balance.limit.micros()),
        taken: balance.map_or(0, |balance| balance.spent.micros() + balance.reserved.micros()),
        other: if balance.is_none() { format!("{outcome:?}") } else { String::new() },
    }
}

fn running(metrics: &str, life: u64) -> Result<Running, String> {
    let version = metrics.lines().find_map(|line| line.strip_prefix(METRIC)?.trim().parse().ok());
    version
        .map(|version| Running { life, version })
        .ok_or_else(|| "the metrics name no policy version".to_owned())
}
