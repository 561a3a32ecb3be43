//! Charges to the cluster what was used while it was away. A debt goes into the window in which it is charged; where
//! nothing is left there it waits for the next one.
//!
//! Each debt is charged once: where it is not known whether a reservation was made for it, the same one is sent again,
//! under the same id, until the cluster says.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Amount, Charge, Command, Outcome, Refusal, TTL_MAX_MS};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{BudgetKeeper, KeeperError},
    metrics::Metrics,
    spare::{Debt, Spare},
};

const EVERY: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(5);
/// The settlement follows at once, or when the cluster is back. As long as a reservation is open, its id is known, however
/// old: so one that is refused as stale meanwhile was never made.
const TTL_MS: u64 = TTL_MAX_MS;

/// Everything that a debt needs to become a charge.
#[derive(Debug)]
pub(crate) struct Repayer {
    pub(crate) spare: Arc<Spare>,
    pub(crate) keeper: Arc<dyn BudgetKeeper>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

impl Repayer {
    /// Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>) {
        while self.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            if !self.spare.is_lost() {
                for debt in self.spare.debts() {
                    // Those that are left are for later, or for `finish`.
                    match self.stop.is_cancelled() || self.spare.is_lost() {
                        true => self.spare.give_back(debt),
                        false => self.repay(debt).await,
                    }
                }
            }
        }
    }

    /// The last debts, when nobody makes new ones any more. What is not charged by `deadline` is lost, and counted.
    pub(crate) async fn finish(&self, deadline: Instant) {
        let mut debts = self.spare.debts().into_iter();
        // Also where the cluster was lost a moment ago: it may be back.
        while Instant::now() < deadline {
            let Some(debt) = debts.next() else { break };
            self.repay(debt).await;
        }
        // Where nothing is left in an account, the debt has been given back.
        let lost = debts.len() + self.spare.debts().len();
        if lost > 0 {
            self.metrics.fail_open_lost.inc_by(lost as u64);
            tracing::error!(
                debts = lost,
                "this gateway stops, and what it admitted without the cluster is not charged"
            );
        }
    }

    /// Holds as much as there is and settles all of it: what is used is charged, also beyond a limit.
    async fn repay(&self, debt: Debt) {
        let id = self.keeper.new_id();
        let least = Amount::from_micros(1).unwrap_or(debt.amount);
        let charge = Charge {
            budget: debt.account.budget.clone(),
            subject: debt.account.subject.clone(),
            amount: debt.amount,
            at_least: least.min(debt.amount),
        };
        let tenant = debt.account.tenant.clone();
        let charges = vec![charge];
        let reserve = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms: TTL_MS, wait: false };
        match self.decided(reserve).await {
            Ok(Outcome::Granted(grant)) if grant.balances.iter().all(|to| to.unit == debt.account.unit) => {}
            Ok(Outcome::Granted(_)) => {
                let _ = self.decided(Command::Release { tenant, id }).await;
                return self.lost(&debt, "the budget counts in another unit now");
            }
            Ok(Outcome::Denied(_) | Outcome::Refused(Refusal::StaleId { .. } | Refusal::FutureId { .. })) => {
                return self.spare.give_back(debt);
            }
            Ok(outcome) => return self.lost(&debt, &format!("{outcome:?}")),
            Err(Undecided::NotMade) => return self.spare.give_back(debt),
            Err(Undecided::Unknown) => return self.lost(&debt, "its reservation may have been made"),
        }
        let settle = Command::Settle { tenant, id, actual: vec![debt.amount], estimated: debt.estimated };
        match self.decided(settle).await {
            Ok(Outcome::Settled(_)) => {
                self.metrics.fail_open_charged.inc();
                let Debt { account, amount, .. } = &debt;
                tracing::info!(budget = account.budget, tenant = account.tenant, %amount, "charged what was used while the cluster was away");
            }
            Ok(outcome) => self.lost(&debt, &format!("{outcome:?}")),
            // What could be held is charged when it expires.
            Err(_) => drop(self.metrics.unresolved.inc()),
        }
    }

    /// Sends the command until it is decided. Gives up when the gateway stops, and, as long as nothing can have happened,
    /// at once.
    async fn decided(&self, command: Command) -> Result<Outcome, Undecided> {
        let deadline = Instant::now() + Duration::from_millis(TTL_MS);
        let mut undecided = Undecided::NotMade;
        loop {
            match self.keeper.execute(command.clone(), WITHIN).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => {
                    tracing::warn!(%error, "a debt is not charged yet");
                    let made = !matches!(command, Command::Reserve { .. });
                    if made || matches!(error, KeeperError::Unknown { .. }) {
                        undecided = Undecided::Unknown;
                    }
                }
            }
            if undecided == Undecided::NotMade || Instant::now() >= deadline {
                return Err(undecided);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(undecided),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn lost(&self, debt: &Debt, why: &str) {
        self.metrics.fail_open_lost.inc();
        let Debt { account, amount, .. } = debt;
        tracing::error!(budget = account.budget, tenant = account.tenant, %amount, why, "a debt cannot be charged");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undecided {
    NotMade,
    Unknown,
}
