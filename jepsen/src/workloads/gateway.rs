//! Workload `gateway`: whole HTTP requests of several users, whole answers and streams, some of which are left half-way.
//! What must hold of them is in `gateway_check`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::gateway_check::{self, Call, LIFE, MODEL};
use super::http::Http;
use super::provider_record::ProviderRecord;
use super::{Context, Workload, account_reads};
use crate::check::Verdict;
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

pub const NAME: &str = "gateway";
const BACKEND: &str = "steady";
const USERS: u64 = 6;
/// Between two requests of a client, on average.
const PAUSE_MS: u64 = 120;
const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);
/// Reservations of killed gateways end by their deadlines: `total_ms` and `settle_ms` of the gateways together.
const RESOLVED_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Gateway {
    http: Http,
    record: ProviderRecord,
}

impl Gateway {
    pub fn new() -> Self {
        let http = Http::new();
        Self { record: ProviderRecord::new(NAME, BACKEND, http.clone()), http }
    }
}

impl Workload for Gateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn policy(&self, _deployment: &Deployment) -> String {
        let budget = |name: &str, subject: &str, tokens: u64, window: &str| {
            format!(
                "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  tenant: {NAME}\n  \
                 subject: [{subject}]\n  limit: {{tokens: {tokens}}}\n  window: {window}\n"
            )
        };
        [
            budget(LIFE, "user", 100_000_000, "Lifetime"),
            budget("gateway-minute", "user", 6_000, "Minute"),
            budget("gateway-sliding", "user", 600, "{sliding: 5s}"),
            budget("gateway-second", "", 1_500, "Second"),
        ]
        .join("---\n")
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (http, record) = (self.http.clone(), self.record.clone());
        Box::pin(async move {
            let provider = provider(&context.deployment)?;
            let clients = (0..context.clients.max(1)).map(|number| {
                let client = Client {
                    number: number as u64,
                    random: StdRng::seed_from_u64(context.seed ^ (0x6a7e << 32) ^ number as u64),
                    http: http.clone(),
                };
                client.run(context.clone())
            });
            tokio::join!(
                futures_util::future::join_all(clients),
                record.follow(&context.recorder, &provider, &context.stop),
                account_reads::watch(&context, NAME, ACCOUNTS_EVERY),
            );
            Ok(())
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let record = self.record.clone();
        Box::pin(async move {
            account_reads::wait_until_resolved(&context.deployment, NAME, RESOLVED_WITHIN).await?;
            record.drain(&context.recorder, &provider(&context.deployment)?).await?;
            account_reads::last(&context, NAME).await
        })
    }

    fn check(&self, history: &History) -> Verdict {
        gateway_check::check(history)
    }
}

struct Client {
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
            let pause = Duration::from_millis(self.random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2));
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
        let leave_after = (stream && self.random.random_bool(0.15))
            .then(|| self.random.random_range(1..=max_tokens.min(tokens)));
        let slow = self.random.random_bool(0.3) || leave_after.is_some();
        let text = format!("mock:tokens={tokens} mock:chunk-ms={} say it", if slow { 10 } else { 0 });
        let call = Call {
            marker: format!("{NAME}-{}-{turn}", self.number),
            user: format!("{NAME}-{}", self.random.random_range(0..USERS)),
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
            ("x-tenant-id", NAME),
            ("x-user-id", call.user.as_str()),
            ("x-request-id", call.marker.as_str()),
        ];
        let pending = recorder.invoke(NAME, process, gateway_check::CHAT, &call);
        self.http.chat(gateway, &headers, &body, leave_after).await.record(pending)
    }
}

fn provider(deployment: &Arc<Deployment>) -> Result<String> {
    deployment.provider_address(BACKEND).with_context(|| format!("there is no provider {BACKEND}"))
}
