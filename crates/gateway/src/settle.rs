//! The last stage: ends a reservation with what was really used, or with nothing. Runs to its end whatever becomes of the
//! client; if this process dies first, the reservation expires and is charged as it was made.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Amount, Command, Outcome, Refusal, ReservationId, Settlement};
use tokio::{sync::oneshot, time::Instant};

use crate::{core::Core, reserve::Held};

/// One try; the client repeats the operation inside of it.
const TRY: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// When to look for a reservation whose decision was never heard. The last is after the nodes' own deadline for it.
const ABANDON_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(20)];

/// How a reservation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was used: in each budget's unit, and in tokens; `estimated`: as counted here.
    Settle { amounts: Vec<Amount>, tokens: u64, estimated: bool },
    /// Nothing was used.
    Release,
}

/// Starts ending the reservation and waits a bounded time for it. `None`: released, or still on its way.
pub(crate) async fn end(core: &Arc<Core>, mut held: Held, mut ending: Ending) -> Option<Settlement> {
    note_overdraft(core, &held, &ending);
    let Some(leased) = held.leased.take() else { return end_reserved(core, held, ending).await };
    let is_all = leased.is_all();
    let settled = match &mut ending {
        Ending::Settle { amounts, estimated, .. } => {
            let rest = leased.rest(amounts);
            let settled = leased.settle(&core.leases, amounts, *estimated);
            *amounts = rest;
            Some(settled)
        }
        Ending::Release => {
            leased.give_back(&core.leases);
            None
        }
    };
    let rest = if is_all { None } else { end_reserved(core, held, ending).await };
    settled.and_then(|settled| settled.with(rest))
}

/// The part of it that is in the cluster, or in this gateway's own allowance.
async fn end_reserved(core: &Arc<Core>, held: Held, ending: Ending) -> Option<Settlement> {
    if let Some(taken) = &held.spare {
        match &ending {
            Ending::Settle { amounts, estimated, .. } => core.spare.settle(taken, amounts, *estimated),
            Ending::Release => core.spare.settle(taken, &[], false),
        }
        return None;
    }
    let (done, waiting) = oneshot::channel();
    let task_core = Arc::clone(core);
    // Boxed, as tasks are moved several times before they run.
    core.tasks.spawn(Box::pin(async move {
        let settlement = run(&task_core, &held, ending).await;
        // Nobody waits any more: fine.
        let _ = done.send(settlement);
    }));
    let wait = Duration::from_millis(core.config.timeouts.settle_wait_ms);
    match tokio::time::timeout(wait, waiting).await {
        Ok(Ok(settlement)) => settlement,
        _ => None,
    }
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

async fn run(core: &Core, held: &Held, ending: Ending) -> Option<Settlement> {
    let tenant = held.tenant.clone();
    let command = match &ending {
        Ending::Settle { amounts, estimated, .. } => {
            Command::Settle { tenant, id: held.id, actual: amounts.clone(), estimated: *estimated }
        }
        Ending::Release => Command::Release { tenant, id: held.id },
    };
    let started = Instant::now();
    while Instant::now() < held.expires {
        match core.keeper.execute(command.clone(), TRY).await {
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

fn concluded(core: &Core, held: &Held, outcome: Outcome) -> Option<Settlement> {
    match outcome {
        Outcome::Settled(settlement) => Some(settlement),
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
    let task_core = Arc::clone(core);
    core.tasks.spawn(async move {
        for pause in ABANDON_AFTER {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = task_core.stop.cancelled() => {}
            }
            let release = Command::Release { tenant: tenant.clone(), id };
            match task_core.keeper.execute(release, TRY).await {
                // Not made so far: it may still be on its way.
                Ok(Outcome::Refused(Refusal::UnknownReservation { .. })) => {}
                Ok(_) => return,
                Err(error) => tracing::debug!(reservation = %id, %error, "cannot look for a reservation"),
            }
            if task_core.stop.is_cancelled() {
                return;
            }
        }
    });
}
