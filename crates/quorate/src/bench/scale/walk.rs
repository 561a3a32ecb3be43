//! Reserves and settles on one account after the other, of any number of tenants, subjects and budgets.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use quorate_ledger::{Amount, Charge, Command, Outcome, ReservationId};
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig};
use tokio::task::JoinSet;

use crate::bench::cluster::Cluster;
use crate::bench::load::Work;

const TIMEOUT: Duration = Duration::from_secs(20);
const RESERVED_UNITS: u64 = 100;
const SPENT_UNITS: u64 = 60;
/// Of reservations that are settled at once, and of those that stay.
const TTL_MS: u64 = 60_000;
const TTL_LONG_MS: u64 = 3_600_000;
const EXTENDED_AT_ONCE: u64 = 256;
/// A settled reservation is remembered for 70 s; then any command takes three off.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(73);
const FORGOTTEN_PER_COMMAND: u64 = 3;

/// Account n is of tenant `n % tenants`, and there of subject `n / tenants`.
#[derive(Debug)]
pub struct Walk {
    clients: Vec<Client>,
    budgets: Vec<String>,
    tenants: u64,
    subjects: u64,
    next: AtomicU64,
}

/// An open reservation.
#[derive(Debug, Clone)]
pub struct Held {
    tenant: String,
    id: ReservationId,
    /// Whose session it was made over.
    session: usize,
}

impl Walk {
    /// One session is one stream and one task at either end: what one gateway has.
    pub fn new(cluster: &Cluster, sessions: usize, budgets: Vec<String>) -> Self {
        let clients =
            (0..sessions.max(1)).map(|number| client(cluster, &format!("bench-{number}"))).collect();
        Self { clients, budgets, tenants: 1, subjects: 1, next: AtomicU64::new(0) }
    }

    #[must_use]
    pub fn over(mut self, tenants: u64, subjects: u64) -> Self {
        (self.tenants, self.subjects) = (tenants.max(1), subjects.max(1));
        self
    }

    async fn execute(&self, session: usize, command: Command) -> Result<Outcome, String> {
        let executed = self.clients[session].execute(command, TIMEOUT).await;
        executed.map(|executed| executed.outcome).map_err(|error| error.to_string())
    }

    async fn reserve(&self, number: u64, ttl_ms: u64) -> Result<Held, String> {
        let number = number % (self.tenants * self.subjects);
        let tenant = format!("tenant-{}", number % self.tenants);
        let subject =
            if self.subjects == 1 { String::new() } else { format!("user-{}", number / self.tenants) };
        let session = usize::try_from(number).unwrap_or(0) % self.clients.len();
        let amount = units(RESERVED_UNITS)?;
        let charge = |budget: &String| Charge {
            budget: budget.clone(),
            subject: subject.clone(),
            amount,
            at_least: amount,
        };
        let charges = self.budgets.iter().map(charge).collect();
        let id = self.clients[session].new_id();
        let command = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms, wait: false };
        match self.execute(session, command).await? {
            Outcome::Granted(_) => Ok(Held { tenant, id, session }),
            other => Err(format!("a reservation was not granted: {other:?}")),
        }
    }

    /// A reservation on account `number` that stays open.
    pub async fn hold(&self, number: u64) -> Result<Held, String> {
        self.reserve(number, TTL_LONG_MS).await
    }

    pub async fn settle(&self, held: Held) -> Result<(), String> {
        let Held { tenant, id, session } = held;
        let actual = vec![units(SPENT_UNITS)?; self.budgets.len()];
        match self.execute(session, Command::Settle { tenant, id, actual, estimated: false }).await? {
            Outcome::Settled(_) => Ok(()),
            other => Err(format!("a reservation was not settled: {other:?}")),
        }
    }

    async fn extend(&self, held: &Held) -> Result<(), String> {
        let command = Command::Extend { tenant: held.tenant.clone(), id: held.id, ttl_ms: TTL_LONG_MS };
        match self.execute(held.session, command).await? {
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            _ => Ok(()),
        }
    }

    /// Uses account `number` once.
    pub async fn touch(&self, number: u64) -> Result<(), String> {
        let held = self.reserve(number, TTL_MS).await?;
        self.settle(held).await
    }

    /// Uses each of these accounts once, so many at the same time.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub async fn touch_all(self: &Arc<Self>, accounts: Range<u64>, at_once: u64) -> Result<()> {
        let work = self.clone();
        for_each(accounts, at_once, move |number| {
            let work = work.clone();
            async move { work.touch(number).await }
        })
        .await
    }

    /// Operations that go through the log like all others and leave nothing behind: what is bounded gets its size.
    ///
    /// # Errors
    /// One of them fails.
    pub async fn extend_one(self: &Arc<Self>, operations: u64) -> Result<()> {
        let held = self.hold(0).await.map_err(anyhow::Error::msg)?;
        let work = self.clone();
        for_each(0..operations, EXTENDED_AT_ONCE, move |_| {
            let (work, held) = (work.clone(), held.clone());
            async move { work.extend(&held).await }
        })
        .await
    }

    /// Until so many settled reservations are no longer remembered.
    ///
    /// # Errors
    /// An operation fails.
    pub async fn wait_until_forgotten(self: &Arc<Self>, records: u64) -> Result<()> {
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        self.extend_one(records / FORGOTTEN_PER_COMMAND + EXTENDED_AT_ONCE).await
    }
}

impl Work for Walk {
    type Client = Option<Held>;

    fn client(&self, _number: usize) -> Self::Client {
        None
    }

    async fn step(&self, holds: &mut Self::Client) -> Result<(), String> {
        match holds.take() {
            Some(held) => self.settle(held).await,
            None => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                *holds = Some(self.reserve(number, TTL_MS).await?);
                Ok(())
            }
        }
    }
}

pub fn client(cluster: &Cluster, name: &str) -> Client {
    Client::connect(ClientConfig {
        name: name.to_owned(),
        nodes: cluster.nodes.clone(),
        operation_timeout_ms: 10_000,
        security: Security::Plain,
    })
}

/// A budget of each name, too large to be exhausted; `spec` is what else it says.
pub fn policy<'a>(names: impl IntoIterator<Item = &'a str>, spec: &str) -> String {
    let one = |name: &str| {
        format!(
            "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\n\
             spec: {{limit: {{tokens: 900000000000}}, {spec}}}\n"
        )
    };
    names.into_iter().map(one).collect::<Vec<_>>().join("---\n")
}

/// Does it for every number, so many at the same time; the first error ends it.
///
/// # Errors
/// That error.
pub async fn for_each<F, D>(numbers: Range<u64>, at_once: u64, todo: F) -> Result<()>
where
    F: Fn(u64) -> D + Clone + Send + 'static,
    D: Future<Output = Result<(), String>> + Send,
{
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (todo, next) = (todo.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok(());
                }
                todo(number).await?;
            }
        });
    }
    while let Some(worked) = workers.join_next().await {
        worked?.map_err(|error: String| anyhow!(error))?;
    }
    Ok(())
}

fn units(units: u64) -> Result<Amount, String> {
    Amount::from_units(units).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_number_is_done_once_and_an_error_is_told() {
        let sum = Arc::new(AtomicU64::new(0));
        let seen = sum.clone();
        let add = move |number| {
            let seen = seen.clone();
            async move {
                seen.fetch_add(number, Ordering::Relaxed);
                Ok(())
            }
        };
        for_each(10..20, 3, add).await.unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), (10..20).sum::<u64>());
        let failed =
            for_each(0..5, 2, async |number| if number == 3 { Err("three".to_owned()) } else { Ok(()) });
        assert_eq!(failed.await.unwrap_err().to_string(), "three");
    }

    #[test]
    fn policies_name_their_budgets() {
        let policy = policy(["a", "b"], "window: Year");
        assert_eq!(policy.matches("kind: Budget").count(), 2);
        assert!(policy.contains("name: b}\nspec: {limit: {tokens: 900000000000}, window: Year}"), "{policy}");
    }
}
