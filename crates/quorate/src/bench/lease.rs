//! Operations on one hot account through leases: each client takes, then settles what it took, as a gateway does it. What no
//! slice has room for goes to the cluster. In the end the ledger is asked whether its account shows the sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use quorate_ledger::{
    Amount, BudgetRule, Charge, Command, Enforcement, Outcome, ReservationId, Unit, Window,
};
use quorate_rpc::lease::{Hold, LeaseSettings, Leases, Want};
use quorate_rpc::{Client, ClientConfig, admin};
use serde::Serialize;

use crate::bench::Place;
use crate::bench::load::Work;

/// The hot one.
pub const TENANT: &str = "bench-hot";
/// Its budget, in the policy of the benchmark's cluster.
pub const BUDGET: &str = "bench-lease";
const TIMEOUT: Duration = Duration::from_secs(10);
const HOLD_MS: u64 = 60_000;
const HELD_UNITS: u64 = 100;
const SPENT_UNITS: u64 = 60;

/// What the ledger says of the account when everything is returned.
#[derive(Debug, Serialize)]
pub struct LeaseCheck {
    /// Operations through slices, and those that went to the cluster.
    pub local: u64,
    pub direct: u64,
    /// Slices that were granted.
    pub slices: u64,
    /// What the clients settled, and what the account shows, in tokens.
    pub settled_units: u64,
    pub spent_units: u64,
    pub reserved_units: u64,
}

impl LeaseCheck {
    pub fn is_exact(&self) -> bool {
        self.settled_units == self.spent_units && self.reserved_units == 0
    }
}

#[derive(Debug)]
pub struct LeaseWork {
    client: Client,
    leases: Leases,
    rule: BudgetRule,
    held: Amount,
    spent: Amount,
    /// Tokens that were settled, by whichever way.
    settled: AtomicU64,
    /// Reservations of clients that ended while they had one.
    left: Mutex<Vec<ReservationId>>,
}

/// One client of the load, and what it holds.
#[derive(Debug)]
pub struct Spender {
    work: Arc<LeaseWork>,
    holds: Option<Holds>,
}

#[derive(Debug)]
enum Holds {
    Local(Hold),
    Direct(ReservationId),
}

impl LeaseWork {
    /// # Errors
    /// An amount is none, which is a mistake of the benchmark.
    pub fn new(place: &Place) -> Result<Arc<Self>> {
        let client = Client::connect(ClientConfig {
            name: "bench-lease".to_owned(),
            nodes: place.nodes.clone(),
            operation_timeout_ms: 10_000,
            security: place.security.clone(),
        });
        let leases = Leases::start(Arc::new(client.clone()), LeaseSettings::new(HOLD_MS));
        let rule = BudgetRule::new(BUDGET, Unit::Tokens, Amount::MAX, Window::Year);
        Ok(Arc::new(Self {
            client,
            leases,
            rule: BudgetRule { enforcement: Enforcement::Lease, ..rule },
            held: Amount::from_units(HELD_UNITS)?,
            spent: Amount::from_units(SPENT_UNITS)?,
            settled: AtomicU64::new(0),
            left: Mutex::default(),
        }))
    }

    fn want(&self) -> Want<'_> {
        Want { rule: &self.rule, subject: "", amount: self.held }
    }

    async fn take(&self) -> Result<Holds, String> {
        if let Some(hold) = self.leases.take(0, TENANT, &[self.want()]) {
            return Ok(Holds::Local(hold));
        }
        let id = self.client.new_id();
        let (budget, subject) = (BUDGET.to_owned(), String::new());
        let charges = vec![Charge { budget, subject, amount: self.held, at_least: self.held }];
        let tenant = TENANT.to_owned();
        let reserve = Command::Reserve { tenant, id, charges, ttl_ms: HOLD_MS, wait: false };
        match self.execute(reserve).await? {
            Outcome::Granted(grant) => {
                self.leases.saw(TENANT, &grant.balances);
                Ok(Holds::Direct(id))
            }
            other => Err(format!("not granted: {other:?}")),
        }
    }

    async fn settle(&self, holds: Holds) -> Result<(), String> {
        match holds {
            Holds::Local(hold) => self.leases.settle(hold, &[self.spent], false),
            Holds::Direct(id) => {
                let (tenant, actual) = (TENANT.to_owned(), vec![self.spent]);
                match self.execute(Command::Settle { tenant, id, actual, estimated: false }).await? {
                    Outcome::Settled(settlement) => self.leases.saw(TENANT, &settlement.balances),
                    other => return Err(format!("not settled: {other:?}")),
                }
            }
        }
        self.settled.fetch_add(SPENT_UNITS, Ordering::Relaxed);
        Ok(())
    }

    async fn execute(&self, command: Command) -> Result<Outcome, String> {
        let executed = self.client.execute(command, TIMEOUT).await.map_err(|error| error.to_string())?;
        Ok(executed.outcome)
    }

    /// Returns everything, and compares.
    ///
    /// # Errors
    /// Something could not be returned, or the account cannot be read.
    pub async fn finish(&self) -> Result<LeaseCheck> {
        let left = std::mem::take(&mut *self.left.lock());
        for id in left {
            let release = Command::Release { tenant: TENANT.to_owned(), id };
            self.execute(release).await.map_err(anyhow::Error::msg)?;
        }
        if !self.leases.stop(TIMEOUT).await {
            bail!("not all slices could be returned within {} s", TIMEOUT.as_secs());
        }
        let request = admin::ListAccountsRequest { tenant: TENANT.to_owned(), ..Default::default() };
        let accounts = self.client.admin().list_accounts(request).await?.accounts;
        let account = accounts.into_iter().find(|account| account.budget == BUDGET);
        let account = account.context("the hot account is not there")?;
        let leases = self.leases.by_budget().remove(BUDGET).unwrap_or_default();
        Ok(LeaseCheck {
            local: leases.local,
            direct: leases.direct,
            slices: leases.granted,
            settled_units: self.settled.load(Ordering::Relaxed),
            spent_units: account.spent_micros / 1_000_000,
            reserved_units: account.reserved_micros / 1_000_000,
        })
    }
}

/// What clients share: each keeps it alive.
#[derive(Debug, Clone)]
pub struct SharedLeaseWork(pub Arc<LeaseWork>);

impl Work for SharedLeaseWork {
    type Client = Spender;

    fn client(&self, _number: usize) -> Spender {
        Spender { work: Arc::clone(&self.0), holds: None }
    }

    async fn step(&self, spender: &mut Spender) -> Result<(), String> {
        // Nothing here waits: others want the thread now and then.
        tokio::task::coop::consume_budget().await;
        match spender.holds.take() {
            Some(holds) => self.0.settle(holds).await,
            None => {
                spender.holds = Some(self.0.take().await?);
                Ok(())
            }
        }
    }
}

impl Drop for Spender {
    fn drop(&mut self) {
        match self.holds.take() {
            Some(Holds::Local(hold)) => self.work.leases.give_back(hold),
            Some(Holds::Direct(id)) => self.work.left.lock().push(id),
            None => {}
        }
    }
}
