//! Workload `proxies`: whoever asks Envoy's rate limit service to hold a worst case and tells it afterwards what was used: mostly
//! at once, sometimes so late that its gateway has handed the reservation over, sometimes at another gateway, and sometimes
//! never. What must hold is in `proxies_check`.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::{BoxFuture, join_all};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use quorate_rpc::rls::rate_limit_response::Code;
use quorate_rpc::rls::rate_limit_service_client::RateLimitServiceClient;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use quorate_rpc::tls::Security;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::proxies_check::{self, Answer, HOLD, Hold, LIFE, TELL, Tell};
use super::{Context, LEASED, Workload, account_reads, budget};
use crate::check::Verdict;
use crate::deploy::Deployment;
use crate::history::{History, Recorder};

pub const NAME: &str = "proxies";
/// Few, so that each account is asked for often enough to be leased.
const USERS: u64 = 2;
const PAUSE_MS: u64 = 60;
/// What a filter waits for.
const ASK_WITHIN: Duration = Duration::from_secs(2);
const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);
/// Reservations end after `reservation_ms`, slices up to a minute later.
const RESOLVED_WITHIN: Duration = Duration::from_secs(110);
const RESERVATION: &str = "quorate_reservation";

#[derive(Debug)]
pub struct Proxies;

impl Workload for Proxies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn policy(&self, _deployment: &Deployment) -> String {
        let budget =
            |(name, tokens, window): (&str, u64, &str)| budget(NAME, name, "user", tokens, window, LEASED);
        // The second is near its limit now and then.
        [(LIFE, 100_000_000, "Lifetime"), ("proxies-minute", 60_000, "Minute")].map(budget).join("---\n")
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let addresses = context.deployment.rate_limit_addresses();
            let doors = addresses.iter().map(|address| quorate_rpc::channel(address, &Security::Plain));
            let doors = doors.map(|channel| channel.map(Door)).collect::<Result<Vec<_>, _>>()?;
            let clients = (0..context.clients.max(1) as u64).map(|number| {
                let random = StdRng::seed_from_u64(context.seed ^ (0x9c0e << 32) ^ number);
                Client { number, random, doors: doors.clone() }.run(context.clone())
            });
            tokio::join!(join_all(clients), account_reads::watch(&context, NAME, ACCOUNTS_EVERY));
            Ok(())
        })
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            account_reads::wait_until_resolved(&context.deployment, NAME, RESOLVED_WITHIN).await?;
            account_reads::last(&context, NAME).await
        })
    }

    fn check(&self, history: &History) -> Verdict {
        proxies_check::check(history)
    }
}

/// The rate limit service of one gateway.
#[derive(Debug, Clone)]
struct Door(Channel);

impl Door {
    /// Error: anything may have happened.
    async fn ask(&self, user: &str, reservation: &str, tokens: u64) -> Result<RateLimitResponse, String> {
        let entry = |(key, value): (&str, &str)| Entry { key: key.to_owned(), value: value.to_owned() };
        let descriptor = RateLimitDescriptor {
            entries: [("tenant", NAME), ("user", user), (RESERVATION, reservation)].map(entry).to_vec(),
            hits_addend: Some(tokens),
            ..RateLimitDescriptor::default()
        };
        let request =
            RateLimitRequest { domain: "quorate".to_owned(), descriptors: vec![descriptor], hits_addend: 0 };
        let mut client = RateLimitServiceClient::new(self.0.clone());
        match tokio::time::timeout(ASK_WITHIN, client.should_rate_limit(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => Err(format!("no answer within {} s", ASK_WITHIN.as_secs())),
        }
    }
}

struct Client {
    number: u64,
    random: StdRng,
    doors: Vec<Door>,
}

impl Client {
    async fn run(mut self, context: Context) {
        let mut process = context.recorder.process();
        let mut telling = JoinSet::new();
        let mut turn = 0;
        while !context.stop.is_cancelled() {
            turn += 1;
            let home = self.number as usize % self.doors.len().max(1);
            let Some(door) = self.doors.get(home) else { return };
            let call = Hold {
                marker: format!("{NAME}-{}-{turn}", self.number),
                user: user(self.random.random_range(0..USERS)),
                gateway: home as u64,
                held: self.random.random_range(20..200),
            };
            let pending = context.recorder.invoke(NAME, process, HOLD, &call);
            match door.ask(&call.user, "hold", call.held).await {
                Ok(response) => {
                    let passes = response.overall_code() == Code::Ok;
                    pending.ok(&Answer { status: if passes { 200 } else { 429 } });
                    let name = response.request_headers_to_add.first().map(|header| header.value.clone());
                    if let Some(name) = name.filter(|_| passes) {
                        self.tell_later(&context, call, name, &mut telling);
                    }
                }
                Err(reason) => {
                    pending.unknown(&reason);
                    process = context.recorder.process();
                }
            }
            while telling.try_join_next().is_some() {}
            let pause = self.random.random_range(PAUSE_MS / 2..PAUSE_MS * 3 / 2);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        // Whoever still runs is told now.
        while telling.join_next().await.is_some() {}
    }

    /// When the request has ended, if it ever says so.
    fn tell_later(&mut self, context: &Context, call: Hold, name: String, telling: &mut JoinSet<()>) {
        // What those are charged can be told exactly, as long as their gateways live.
        let is_exact = call.user == user(0);
        let lasts_ms = match self.random.random_range(0..100) {
            0..75 => self.random.random_range(0..300),
            75..95 => self.random.random_range(1_000..6_000),
            95..98 => self.random.random_range(19_000..24_000),
            _ if is_exact => 0,
            _ => return,
        };
        let elsewhere = usize::from(!is_exact && self.random.random_bool(0.05));
        let gateway = (call.gateway as usize + elsewhere) % self.doors.len();
        let Some(door) = self.doors.get(gateway).cloned() else { return };
        let Hold { marker, user, held, .. } = call;
        let tell = Tell { marker, gateway: gateway as u64, used: self.random.random_range(0..=held) };
        let (recorder, stop) = (context.recorder.clone(), context.stop.clone());
        telling.spawn(async move {
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(lasts_ms))).await;
            say(&recorder, &door, &user, &name, &tell).await;
        });
    }
}

fn user(number: u64) -> String {
    format!("{NAME}-{number}")
}

async fn say(recorder: &Recorder, door: &Door, user: &str, name: &str, tell: &Tell) {
    let pending = recorder.invoke(NAME, recorder.process(), TELL, tell);
    match door.ask(user, name, tell.used).await {
        Ok(_) => pending.ok(&()),
        Err(reason) => pending.unknown(&reason),
    }
}
