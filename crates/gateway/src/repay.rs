//! Charges to the cluster what was used while it was away. A debt goes into the window in which it is charged; where
//! nothing is left there it waits for the next one.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Amount, Charge, Command, Outcome};
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{BudgetKeeper, KeeperError},
    metrics::Metrics,
    spare::{Debt, Spare},
};

const EVERY: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(5);
/// Long enough for the settlement that follows at once.
const TTL_MS: u64 = 60_000;
/// Of the settlement, until its reservation expires.
const SETTLE_TRIES: usize = 10;

/// Runs until `stop`, and then once more.
pub(crate) async fn run(
    spare: Arc<Spare>,
    keeper: Arc<dyn BudgetKeeper>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        if !spare.is_lost() {
            for debt in spare.debts() {
                repay(&spare, keeper.as_ref(), &metrics, debt).await;
            }
        }
        if stop.is_cancelled() {
            let lost = spare.debts().len();
            if lost > 0 {
                metrics.fail_open_lost.inc_by(lost as u64);
                tracing::error!(
                    accounts = lost,
                    "this gateway stops, and what it admitted without the cluster is not charged"
                );
            }
            return;
        }
    }
}

/// Holds as much as there is and settles all of it: what is used is charged, also beyond a limit.
async fn repay(spare: &Spare, keeper: &dyn BudgetKeeper, metrics: &Metrics, debt: Debt) {
    let id = keeper.new_id();
    let Debt { account, amount } = &debt;
    let least = Amount::from_micros(1).unwrap_or(*amount);
    let charge = Charge {
        budget: account.budget.clone(),
        subject: account.subject.clone(),
        amount: *amount,
        at_least: least.min(*amount),
    };
    let reserve = Command::Reserve {
        tenant: account.tenant.clone(),
        id,
        charges: vec![charge],
        ttl_ms: TTL_MS,
        wait: false,
    };
    match keeper.execute(reserve, WITHIN).await {
        Ok(Outcome::Granted(_)) => {}
        Ok(Outcome::Denied(_)) | Err(KeeperError::Unavailable { .. }) => return spare.give_back(debt),
        Ok(outcome) => {
            metrics.fail_open_lost.inc();
            tracing::error!(budget = account.budget, tenant = account.tenant, ?outcome, %amount, "a debt cannot be charged");
            return;
        }
        Err(KeeperError::Unknown { .. }) => {
            // If it was made, it must not be charged twice.
            let release = Command::Release { tenant: account.tenant.clone(), id };
            // Where this fails too, it expires: charged as held.
            let _ = keeper.execute(release, WITHIN).await;
            return spare.give_back(debt);
        }
    }
    let settle = Command::Settle { tenant: account.tenant.clone(), id, actual: vec![*amount] };
    for _ in 0..SETTLE_TRIES {
        match keeper.execute(settle.clone(), WITHIN).await {
            Ok(_) => {
                metrics.fail_open_charged.inc();
                tracing::info!(budget = account.budget, tenant = account.tenant, %amount, "charged what was used while the cluster was away");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a debt is not settled yet");
                tokio::time::sleep(EVERY).await;
            }
        }
    }
    metrics.unresolved.inc();
}
