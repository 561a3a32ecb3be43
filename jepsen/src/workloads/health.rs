//! Workload `health`: two backends of one model fail and recover at random while requests come through every gateway.
//! Beside it the ledger's opinion is read, and what each gateway has seen of it. What must hold is in `health_check`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::{BoxFuture, join_all};
use hyper::Method;
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{ListProvidersRequest, ListProvidersResponse};
use quorate_rpc::budget::ProviderState;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::health_check::{self, CHAT, CIRCUITS, Call, Circuit, Circuits, SEEN, SeenRevision, State};
use super::http::Http;
use super::provider_record::ProviderRecord;
use super::{Context, Workload, gateway_looks};
use crate::check::Verdict;
use crate::client::{CALL, NodeClient, Nodes, Via};
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

pub const NAME: &str = "health";
const MODEL: &str = "gpt-4o-mini";
const BACKENDS: [&str; 2] = ["health-a", "health-b"];
/// Between two requests of a client, on average.
const PAUSE_MS: u64 = 120;
const CIRCUITS_EVERY: Duration = Duration::from_millis(150);
const SEEN_EVERY: Duration = Duration::from_millis(200);
const METRIC: &str = "quorate_gateway_provider_revision{";

#[derive(Debug)]
pub struct Health {
    http: Http,
    records: [ProviderRecord; 2],
}

impl Health {
    pub fn new() -> Self {
        let http = Http::new();
        Self { records: BACKENDS.map(|backend| ProviderRecord::new(NAME, backend, http.clone())), http }
    }
}

impl Workload for Health {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Where a policy has routes, they decide for all: so there is one for the other model too.
    fn policy(&self, _deployment: &Deployment) -> String {
        let backend = |name: &str| {
            format!(
                "apiVersion: aigateway.envoyproxy.io/v1alpha1\nkind: AIBackend\nmetadata: {{name: {name}}}\n\
                 spec: {{provider: OpenAI}}\n---\n"
            )
        };
        let backends: String = ["steady", "health-a", "health-b"].into_iter().map(backend).collect();
        let rule = |model: &str, backends: &str| {
            format!(
                "    - matches: [{{headers: [{{name: x-ai-eg-model, value: {model}}}]}}]\n      backendRefs: [{backends}]\n"
            )
        };
        let first_then_second = "{name: health-a, priority: 0}, {name: health-b, priority: 1}";
        format!(
            "{backends}apiVersion: aigateway.envoyproxy.io/v1alpha1\nkind: AIGatewayRoute\n\
             metadata: {{name: health-route}}\nspec:\n  rules:\n{}{}---\n\
             apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: health-all}}\nspec:\n  tenant: {NAME}\n  \
             limit: {{tokens: 1000000000}}\n  window: Lifetime\n",
            rule(MODEL, first_then_second),
            rule("gpt-4o", "{name: steady}"),
        )
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (http, records) = (self.http.clone(), self.records.clone());
        Box::pin(async move {
            let addresses = addresses(&context.deployment)?;
            let follow = |(record, address): (ProviderRecord, String)| {
                let context = context.clone();
                async move { record.follow(&context.recorder, &address, &context.stop).await }
            };
            let following = join_all(records.into_iter().zip(addresses.clone()).map(follow));
            let clients = join_all((0..context.clients.max(1)).map(|number| {
                let random = random(&context, number as u64);
                Client { number, random, http: http.clone() }.run(context.clone())
            }));
            let seen = gateway_looks::watch(&context, NAME, SEEN, SEEN_EVERY, |metrics, life| {
                Ok(health_check::Seen { life, revisions: revisions(metrics) })
            });
            let switched = break_and_mend(&context, &http, &addresses);
            let (_, _, (), (), switched) =
                tokio::join!(following, clients, seen, watch_circuits(&context), switched);
            switched
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (http, records) = (self.http.clone(), self.records.clone());
        Box::pin(async move {
            let addresses = addresses(&context.deployment)?;
            for (record, address) in records.iter().zip(&addresses) {
                mend(&http, address).await?;
                record.drain(&context.recorder, address).await?;
            }
            Ok(())
        })
    }

    fn check(&self, history: &History) -> Verdict {
        health_check::check(history)
    }
}

fn addresses(deployment: &Deployment) -> Result<Vec<String>> {
    let address = |backend: &&str| {
        deployment.provider_address(backend).with_context(|| format!("there is no provider {backend}"))
    };
    BACKENDS.iter().map(address).collect()
}

fn random(context: &Context, number: u64) -> StdRng {
    StdRng::seed_from_u64(context.seed ^ (0x4ea1 << 32) ^ number)
}

struct Client {
    number: usize,
    random: StdRng,
    http: Http,
}

impl Client {
    async fn run(mut self, context: Context) {
        let mut process = context.recorder.process();
        let mut turn = 0;
        while !context.stop.is_cancelled() {
            turn += 1;
            if !self.ask(&context, process, turn).await {
                process = context.recorder.process();
            }
            let pause = self.random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// False if the process is used up.
    async fn ask(&mut self, context: &Context, process: u64, turn: u64) -> bool {
        let gateways = context.deployment.gateway_addresses();
        let number = self.random.random_range(0..gateways.len().max(1));
        let Some(gateway) = gateways.get(number) else { return true };
        let call = Call { marker: format!("{NAME}-{}-{turn}", self.number), gateway: number as u64 };
        let body = json!({
            "model": MODEL, "max_tokens": 20, "stream": self.random.random_bool(0.3),
            "messages": [{"role": "user", "content": "Hello there!"}],
        });
        let headers = [("x-tenant-id", NAME), ("x-request-id", call.marker.as_str())];
        let pending = context.recorder.invoke(NAME, process, CHAT, &call);
        self.http.chat(gateway, &headers, &body, None).await.record(pending)
    }
}

/// Trouble of one backend after the other, mostly of the first: it limits or fails, then it answers slowly or not at all, so
/// that probes take a while, then it is well. Failed probes make the rests longer: most pass.
async fn break_and_mend(context: &Context, http: &Http, addresses: &[String]) -> Result<()> {
    let mut random = random(context, u64::MAX);
    while !context.stop.is_cancelled() {
        let number = usize::from(random.random_bool(0.3)) % addresses.len();
        let trouble = match random.random_range(0..5) {
            0 => json!({"status": 500}),
            1 => json!({"hang": true}),
            // One gateway meets it, and tells the others.
            2 => json!({"status": 429, "retry-after": random.random_range(1..3), "times": 1}),
            _ => json!({"status": 429, "retry-after": random.random_range(1..3)}),
        };
        let probes =
            if random.random_bool(0.9) { json!({"latency-ms": 1_200}) } else { json!({"hang": true}) };
        for (behaviour, least_ms) in [(trouble, 300), (probes, 1_500), (Value::Null, 300)] {
            context.recorder.info(
                NAME,
                "switch",
                &json!({"backend": BACKENDS[number], "behaviour": behaviour}),
            );
            mend(http, &addresses[number]).await?;
            if !behaviour.is_null() {
                http.json(Method::POST, &addresses[number], "/mock/behaviour", &behaviour).await?;
            }
            let pause = Duration::from_millis(random.random_range(least_ms..least_ms + 1_000));
            tokio::select! {
                () = context.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    Ok(())
}

async fn mend(http: &Http, address: &str) -> Result<()> {
    http.json(Method::DELETE, address, "/mock/behaviour", &Value::Null).await.map(|_| ())
}

/// Through each node: while one of them is down, the others still tell.
async fn watch_circuits(context: &Context) {
    let nodes = &Nodes::new(&context.deployment, Via::Unary);
    let watch = async |place: usize| {
        while !context.stop.is_cancelled() {
            if let Some(node) = nodes.all().get(place) {
                read_circuits(&context.recorder, node).await;
            }
            tokio::time::sleep(CIRCUITS_EVERY).await;
        }
    };
    join_all((0..nodes.all().len()).map(watch)).await;
}

async fn read_circuits(recorder: &Recorder, node: &NodeClient) {
    let pending = recorder.invoke(NAME, recorder.process(), CIRCUITS, &node.node());
    let list = async |mut client: AdminClient<Channel>, request| client.list_providers(request).await;
    let ending = node.read(ListProvidersRequest::default(), CALL, list).await;
    ending.record(pending, |read| circuits(&read.value));
}

fn circuits(answer: &ListProvidersResponse) -> Circuits {
    let circuit = |health: &quorate_rpc::budget::ProviderHealth| Circuit {
        backend: health.backend.clone(),
        model: health.model.clone(),
        state: match health.state() {
            ProviderState::Open => State::Open,
            ProviderState::HalfOpen => State::HalfOpen,
            ProviderState::Closed | ProviderState::Unspecified => State::Closed,
        },
        revision: health.revision,
        until_ms: health.until_ms,
        holder: health.holder.clone(),
    };
    let of_ours = |circuit: &Circuit| BACKENDS.iter().any(|backend| circuit.backend.ends_with(backend));
    let log_index = answer.read_point.map_or(0, |point| point.log_index);
    Circuits { log_index, circuits: answer.providers.iter().map(circuit).filter(of_ours).collect() }
}

/// Of the lines `quorate_gateway_provider_revision{backend="…",model="…"} 12`.
fn revisions(metrics: &str) -> Vec<SeenRevision> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let read = |line: &str| {
        let (labels, revision) = line.strip_prefix(METRIC)?.rsplit_once(' ')?;
        Some(SeenRevision {
            backend: label(labels, "backend")?,
            model: label(labels, "model")?,
            revision: revision.trim().parse().ok()?,
        })
    };
    metrics.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_among_other_metrics() {
        let metrics = "# TYPE quorate_gateway_provider_revision gauge\n\
             quorate_gateway_provider_revision{backend=\"default/health-a\",model=\"gpt-4o-mini\"} 12\n\
             quorate_gateway_provider_revision{backend=\"default/health-b\",model=\"\"} 7\n\
             quorate_gateway_provider_state{backend=\"default/health-b\",model=\"\"} 1\n";
        let seen = |backend: &str, model: &str, revision| SeenRevision {
            backend: backend.to_owned(),
            model: model.to_owned(),
            revision,
        };
        let expected = [seen("default/health-a", "gpt-4o-mini", 12), seen("default/health-b", "", 7)];
        assert_eq!(revisions(metrics), expected);
    }
}
