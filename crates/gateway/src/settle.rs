//! The last stage: ends a reservation with what was really used, or with nothing. Runs to its end whatever becomes of the
//! client; if this process dies first, the reservation expires and is charged as it was made.
//!
//! An answer waits for it, unless the config says that it does not. It is on its way before the answer all the same, so what
//! the client asks next of this gateway comes behind it, and until it is decided the worst case stays held.

use std::{sync::Arc, task::Poll, time::Duration};

use futures_util::poll;
use quorate_ledger::{Amount, Balance, Command, Outcome, ReservationId};
use quorate_rpc::lease::Unheard;
use tokio::{sync::oneshot, time::Instant};

use crate::{core::Core, leased::KeeperLends, reserve::Held};

/// One try; the client repeats the operation inside of it.
const TRY: Duration = Duration::from_secs(5);
/// How long an end that nobody waits for may wait for another operation to share its place in the log.
pub(crate) const IN_NO_HURRY: Duration = Duration::from_millis(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How a reservation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was used: in each budget's unit, and in tokens; `estimated`: as counted here.
    Settle { amounts: Vec<Amount>, tokens: u64, estimated: bool },
    /// Nothing was used.
    Release,
}

/// Starts ending the reservation; waits a bounded time for it where the config says so. The accounts afterwards, one for
/// each match: as decided, or else as they will be if nobody else spends meanwhile.
pub(crate) async fn end(core: &Arc<Core>, mut held: Held, mut ending: Ending) -> Vec<Balance> {
    note_overdraft(core, &held, &ending);
    let Some(leased) = held.leased.take() else { return end_reserved(core, held, ending).await };
    let is_all = leased.is_all();
    let settled = match &mut ending {
        Ending::Settle { amounts, estimated, .. } => {
            let rest = leased.rest(amounts);
            held.balances = leased.rest(&held.balances);
            let settled = leased.settle(&core.leases, amounts, *estimated);
            *amounts = rest;
            Some(settled)
        }
        Ending::Release => {
            leased.give_back(&core.leases);
            None
        }
    };
    let rest = if is_all { Vec::new() } else { end_reserved(core, held, ending).await };
    settled.map_or_else(Vec::new, |settled| settled.with(rest))
}

/// The part of it that is in the cluster, or in this gateway's own allowance.
async fn end_reserved(core: &Arc<Core>, mut held: Held, ending: Ending) -> Vec<Balance> {
    if let Some(taken) = &held.spare {
        match &ending {
            Ending::Settle { amounts, estimated, .. } => core.spare.settle(taken, amounts, *estimated),
            Ending::Release => core.spare.settle(taken, &[], false),
        }
        return held.balances;
    }
    let expected = expected(std::mem::take(&mut held.balances), &ending);
    let wait = Duration::from_millis(core.config.timeouts.settle_wait_ms);
    let delay = if wait.is_zero() { IN_NO_HURRY } else { Duration::ZERO };
    let task_core = Arc::clone(core);
    // Boxed, as tasks are moved several times before they run.
    let mut running = Box::pin(async move { run(&task_core, &held, ending, delay).await });
    // Sent by now, and so before whatever the client asks next.
    if let Poll::Ready(balances) = poll!(&mut running) {
        return balances.unwrap_or(expected);
    }
    let (done, waiting) = oneshot::channel();
    core.tasks.spawn(async move {
        // Nobody waits any more: fine.
        let _ = done.send(running.await);
    });
    if wait.is_zero() {
        return expected;
    }
    match tokio::time::timeout(wait, waiting).await {
        Ok(Ok(balances)) => balances.unwrap_or(expected),
        _ => expected,
    }
}

/// `balances`: as they were when the reservation was made.
fn expected(mut balances: Vec<Balance>, ending: &Ending) -> Vec<Balance> {
    for (number, balance) in balances.iter_mut().enumerate() {
        let used = match ending {
            Ending::Settle { amounts, .. } => amounts.get(number).copied().unwrap_or(Amount::ZERO),
            Ending::Release => Amount::ZERO,
        };
        balance.reserved = balance.reserved.saturating_sub(balance.amount);
        balance.spent = balance.spent.checked_add(used).unwrap_or(Amount::MAX);
        balance.amount = used;
    }
    balances
}

fn note_overdraft(core: &Core, held: &Held, ending: &Ending) {
    let Ending::Settle { amounts, tokens, .. } = ending else { return };
    let beyond = held.plan.matches.iter().enumerate().any(|(number, found)| {
        found.budget.binds() && amounts.get(number).is_some_and(|amount| *amount > held.amount(number))
    });
    if beyond {
        let reserved = held.input.saturating_add(held.output);
        core.metrics.overdrafts.inc();
        core.metrics.overdraft_tokens.inc_by(tokens.saturating_sub(reserved));
        tracing::warn!(
            reservation = %held.id, tenant = held.tenant, reserved, used = tokens,
            "the backend used more than was reserved; all of it is charged"
        );
    }
}

/// `None`: released, or given up.
async fn run(core: &Core, held: &Held, ending: Ending, delay: Duration) -> Option<Vec<Balance>> {
    let tenant = held.tenant.clone();
    let command = match &ending {
        Ending::Settle { amounts, estimated, .. } => {
            Command::Settle { tenant, id: held.id, actual: amounts.clone(), estimated: *estimated }
        }
        Ending::Release => Command::Release { tenant, id: held.id },
    };
    let started = Instant::now();
    while Instant::now() < held.expires {
        match core.keeper.execute_waiting(command.clone(), delay, TRY).await {
            Ok(outcome) => {
                core.metrics.resolve_seconds.observe(started.elapsed().as_secs_f64());
                return concluded(core, held, outcome);
            }
            Err(error) => tracing::warn!(reservation = %held.id, %error, "cannot end a reservation yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = core.give_up.cancelled() => break,
        }
    }
    core.metrics.unresolved.inc();
    tracing::error!(
        reservation = %held.id, tenant = held.tenant, ?ending,
        "reservation was not ended in time; it expires and is charged as it was made"
    );
    None
}

fn concluded(core: &Core, held: &Held, outcome: Outcome) -> Option<Vec<Balance>> {
    match outcome {
        Outcome::Settled(settlement) => Some(settlement.balances),
        Outcome::Released => None,
        other => {
            core.metrics.unresolved.inc();
            tracing::error!(reservation = %held.id, tenant = held.tenant, ?other, "reservation could not be ended");
            None
        }
    }
}

/// Releases a reservation of which it is not known whether it was ever made.
pub(crate) fn abandon(core: &Arc<Core>, tenant: String, id: ReservationId) {
    // The first of an outage are the ones most likely to be there: none of them is given up for another one.
    let Ok(place) = Arc::clone(&core.unheard).try_acquire_owned() else {
        core.metrics.unresolved.inc();
        return tracing::debug!(reservation = %id, tenant, "too many reservations are looked for already");
    };
    let task_core = Arc::clone(core);
    core.tasks.spawn(async move {
        let core = task_core;
        let lender = KeeperLends(Arc::clone(&core.keeper));
        let unheard = Unheard { tenant: tenant.clone(), id, ttl: core.config.reservation_longest() };
        if !unheard.release(&lender, core.stop.cancelled(), core.give_up.cancelled()).await {
            core.metrics.unresolved.inc();
            tracing::error!(
                reservation = %id, tenant,
                "no word of a reservation; if it was made it expires and is charged as it was made"
            );
        }
        drop(place);
    });
}
