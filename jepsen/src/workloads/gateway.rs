//! Workload `gateway`: whole HTTP requests of several users, whole answers and streams, which some users leave half-way: what
//! the others are charged can be told exactly.
//! Workload `leases`: the same of few users, whose budgets the gateways spend from slices. What must hold of them is in
//! `gateway_check`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::gateway_check::{self, Call, MODEL};
use super::http::Http;
use super::provider_record::ProviderRecord;
use super::{Context, LEASED, Workload, account_reads, budget};
use crate::check::Verdict;
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

/// Which budgets requests meet, and who makes them.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub name: &'static str,
    /// The budget of each user that never starts again: everything is in it.
    pub life: &'static str,
    /// Name, subject, tokens and window of the others.
    budgets: &'static [(&'static str, &'static str, u64, &'static str)],
    pub leases: bool,
    users: u64,
    /// Between two requests of a client, on average.
    pause_ms: u64,
}

pub const PLAIN: Variant = Variant {
    name: "gateway",
    life: "gateway-life",
    budgets: &[
        ("gateway-minute", "user", 6_000, "Minute"),
        ("gateway-sliding", "user", 600, "{sliding: 5s}"),
        ("gateway-second", "", 1_500, "Second"),
    ],
    leases: false,
    users: 6,
    pause_ms: 120,
};
/// Few users and short pauses, so that each account is asked for often enough; windows that end while slices are held.
pub const LEASES: Variant = Variant {
    name: "leases",
    life: "leases-life",
    budgets: &[("leases-minute", "user", 60_000, "Minute"), ("leases-second", "", 2_500, "Second")],
    leases: true,
    users: 2,
    pause_ms: 40,
};
const BACKEND: &str = "steady";
const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);
/// Reservations of killed gateways end by their deadlines: `total_ms` and `settle_ms` of the gateways together; slices up to a
/// minute later.
const RESOLVED_WITHIN: Duration = Duration::from_secs(100);

#[derive(Debug)]
pub struct Gateway {
    variant: &'static Variant,
    http: Http,
    record: ProviderRecord,
}

impl Gateway {
    pub fn new(variant: &'static Variant) -> Self {
        let http = Http::new();
        Self { variant, record: ProviderRecord::new(variant.name, BACKEND, http.clone()), http }
    }
}

impl Workload for Gateway {
    fn name(&self) -> &'static str {
        self.variant.name
    }

    fn policy(&self, _deployment: &Deployment) -> String {
        let Variant { name: tenant, life, budgets, leases, .. } = *self.variant;
        let enforcement = if leases { LEASED } else { "" };
        let budget = |(name, subject, tokens, window): &(&str, &str, u64, &str)| {
            budget(tenant, name, subject, *tokens, window, enforcement)
        };
        let all = [(life, "user", 100_000_000, "Lifetime")];
        all.iter().chain(budgets).map(budget).collect::<Vec<_>>().join("---\n")
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (http, record, variant) = (self.http.clone(), self.record.clone(), self.variant);
        Box::pin(async move {
            let provider = provider(&context.deployment)?;
            let clients = (0..context.clients.max(1)).map(|number| {
                let client = Client {
                    variant,
                    number: number as u64,
                    random: StdRng::seed_from_u64(context.seed ^ (0x6a7e << 32) ^ number as u64),
                    http: http.clone(),
                };
                client.run(context.clone())
            });
            tokio::join!(
                futures_util::future::join_all(clients),
                record.follow(&context.recorder, &provider, &context.stop),
                account_reads::watch(&context, variant.name, ACCOUNTS_EVERY),
            );
            Ok(())
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (record, name) = (self.record.clone(), self.variant.name);
        Box::pin(async move {
            account_reads::wait_until_resolved(&context.deployment, name, RESOLVED_WITHIN).await?;
            record.drain(&context.recorder, &provider(&context.deployment)?).await?;
            account_reads::last(&context, name).await
        })
    }

    fn check(&self, history: &History) -> Verdict {
        gateway_check::check(history, self.variant)
    }
}

struct Client {
    variant: &'static Variant,
    number: u64,
    random: StdRng,
    http: Http,
}

impl Client {
    async fn run(mut self, context: Context) {
        let mut process = context.recorder.process();
        let mut turn = 0;
        while !context.stop.is_cancelled() {
            turn += 1;
            if !self.ask(&context.deployment, &context.recorder, process, turn).await {
                process = context.recorder.process();
            }
            let pause_ms = self.variant.pause_ms;
            let pause = Duration::from_millis(self.random.random_range(pause_ms / 2..pause_ms * 3 / 2));
            tokio::time::sleep(pause).await;
        }
    }

    /// False if the process is used up.
    async fn ask(&mut self, deployment: &Deployment, recorder: &Recorder, process: u64, turn: u64) -> bool {
        let gateways = deployment.gateway_addresses();
        let number = self.random.random_range(0..gateways.len().max(1));
        let Some(gateway) = gateways.get(number) else { return true };
        let stream = self.random.random_bool(0.6);
        let tokens: u64 = self.random.random_range(1..80);
        // A third says more than it may: the provider stops at the limit.
        let max_tokens = if self.random.random_bool(0.3) { tokens.div_ceil(2) } else { tokens + 8 };
        let Variant { name, users, .. } = *self.variant;
        let user = self.random.random_range(0..users);
        // What a stream is charged that was left cannot be told exactly: half of the users leave none.
        let leaves = user >= users / 2;
        let leave_after = (stream && leaves && self.random.random_bool(0.3))
            .then(|| self.random.random_range(1..=max_tokens.min(tokens)));
        let slow = self.random.random_bool(0.3) || leave_after.is_some();
        let text = format!("mock:tokens={tokens} mock:chunk-ms={} say it", if slow { 10 } else { 0 });
        let call = Call {
            marker: format!("{name}-{}-{turn}", self.number),
            user: format!("{name}-{user}"),
            gateway: number as u64,
            stream,
            prompt_bytes: text.len() as u64,
            max_tokens,
            leave_after,
        };
        let mut body = json!({
            "model": MODEL, "stream": stream, "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": text}],
        });
        if stream && self.random.random_bool(0.5) {
            body["stream_options"] = json!({"include_usage": true});
        }
        let headers = [
            ("x-tenant-id", name),
            ("x-user-id", call.user.as_str()),
            ("x-request-id", call.marker.as_str()),
        ];
        let pending = recorder.invoke(name, process, gateway_check::CHAT, &call);
        self.http.chat(gateway, &headers, &body, leave_after).await.record(pending)
    }
}

fn provider(deployment: &Arc<Deployment>) -> Result<String> {
    deployment.provider_address(BACKEND).with_context(|| format!("there is no provider {BACKEND}"))
}
