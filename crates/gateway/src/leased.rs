//! What of a request is taken from slices that this gateway holds, for budgets with `enforcement: Lease`: nothing of that is
//! asked of the cluster, neither before the call nor after it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use quorate_ledger::{Amount, Balance, Charge, Command, Enforcement, Outcome, ReservationId, TimestampMs};
use quorate_policy::runtime::BudgetMatch;
use quorate_rpc::lease::{Hold, Leases, Lender, NotDecided, Want};

use crate::{
    budget::{BudgetKeeper, KeeperError},
    plan::Plan,
    policy::PolicyReceiver,
};

pub(crate) fn is_leased(found: &BudgetMatch) -> bool {
    found.budget.rule.enforcement == Enforcement::Lease
}

/// The lines of one request that slices hold; the others are reserved in the cluster.
#[derive(Debug)]
pub(crate) struct Leased {
    hold: Hold,
    /// Held for each match; `None`: not from a slice.
    amounts: Vec<Option<Amount>>,
    plan: Arc<Plan>,
}

impl Leased {
    /// The whole worst case of every leased budget, or nothing. Waits for slices where nothing else is asked of the cluster.
    ///
    /// # Errors
    /// The cluster did not decide on slices within `within`. Nothing is held.
    pub(crate) async fn take(
        leases: &Leases,
        plan: &Arc<Plan>,
        charges: &[Charge],
        within: Duration,
    ) -> Result<Option<Self>, NotDecided> {
        if !plan.matches.iter().any(is_leased) {
            return Ok(None);
        }
        let places = plan.matches.iter().zip(charges);
        let amounts: Vec<_> =
            places.map(|(found, charge)| is_leased(found).then_some(charge.amount)).collect();
        let (version, tenant) = (plan.policy.version, &plan.who.identity.tenant);
        let wants = wants(plan, &amounts);
        let hold = match amounts.iter().all(Option::is_some) && !within.is_zero() {
            true => leases.take_or_wait(version, tenant, &wants, within).await?,
            false => leases.take(version, tenant, &wants),
        };
        Ok(hold.map(|hold| Self { hold, amounts, plan: Arc::clone(plan) }))
    }

    /// Nothing is left to ask the cluster for.
    pub(crate) fn is_all(&self) -> bool {
        self.amounts.iter().all(Option::is_some)
    }

    /// Of one thing for each match, those that the cluster reserves.
    pub(crate) fn rest<T: Clone>(&self, of_all: &[T]) -> Vec<T> {
        let places = of_all.iter().zip(&self.amounts);
        places.filter(|(_, amount)| amount.is_none()).map(|(one, _)| one.clone()).collect()
    }

    /// One balance for each match: `rest` are the cluster's.
    pub(crate) fn granted(&self, rest: Vec<Balance>) -> Vec<Balance> {
        merged(&self.amounts, self.hold.balances(&wants(&self.plan, &self.amounts)), rest)
    }

    /// `used`: one amount for each match. The leased accounts afterwards, to be completed with the others.
    pub(crate) fn settle(self, leases: &Leases, used: &[Amount], estimated: bool) -> Settled {
        let places = used.iter().zip(&self.amounts);
        let own: Vec<Amount> = places.filter(|(_, amount)| amount.is_some()).map(|(used, _)| *used).collect();
        let balances = self.hold.balances_after(&wants(&self.plan, &self.amounts), &own);
        let Self { hold, amounts, .. } = self;
        leases.settle(hold, &own, estimated);
        Settled { amounts, balances }
    }

    pub(crate) fn give_back(self, leases: &Leases) {
        leases.give_back(self.hold);
    }
}

/// The leased part of a settlement.
#[derive(Debug)]
pub(crate) struct Settled {
    amounts: Vec<Option<Amount>>,
    balances: Vec<Balance>,
}

impl Settled {
    /// In the order of the matches; `rest` are the cluster's.
    pub(crate) fn with(self, rest: Vec<Balance>) -> Vec<Balance> {
        merged(&self.amounts, self.balances, rest)
    }
}

fn merged(amounts: &[Option<Amount>], leased: Vec<Balance>, rest: Vec<Balance>) -> Vec<Balance> {
    let (mut leased, mut rest) = (leased.into_iter(), rest.into_iter());
    let next = |amount: &Option<Amount>| if amount.is_some() { leased.next() } else { rest.next() };
    amounts.iter().filter_map(next).collect()
}

/// Tells slices of every policy that comes into force.
pub(crate) async fn follow_policy(mut policies: PolicyReceiver, leases: Leases) {
    while policies.changed().await.is_ok() {
        let version = policies.borrow_and_update().as_ref().map(|policy| policy.version);
        version.into_iter().for_each(|version| leases.under(version));
    }
}

fn wants<'p>(plan: &'p Plan, amounts: &[Option<Amount>]) -> Vec<Want<'p>> {
    let places = plan.matches.iter().zip(amounts);
    let want = |(found, amount): (&'p BudgetMatch, &Option<Amount>)| {
        Some(Want { rule: &found.budget.rule, subject: &found.subject, amount: (*amount)? })
    };
    places.filter_map(want).collect()
}

/// Slices are taken and returned as everything else is.
#[derive(Debug)]
pub(crate) struct KeeperLends(pub(crate) Arc<dyn BudgetKeeper>);

impl Lender for KeeperLends {
    fn new_id(&self) -> ReservationId {
        self.0.new_id()
    }

    fn now(&self) -> TimestampMs {
        self.0.now()
    }

    fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, NotDecided>> {
        Box::pin(async move {
            self.0.execute(command, timeout).await.map_err(|error| match error {
                KeeperError::Unavailable { message, .. } => NotDecided::NothingHappened(message),
                KeeperError::Unknown { message } => NotDecided::Unknown(message),
            })
        })
    }
}
