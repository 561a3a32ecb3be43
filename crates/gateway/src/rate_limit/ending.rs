//! What goes on behind an answer: reservations are settled, whether the proxy waits or not.
//!
//! All of it keeps the place of its call, so that `in_flight_max` bounds it too, also while the cluster is away; but for what
//! waits for another gateway, which has a bound of its own.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Command, Outcome, RETENTION_MS, Refusal, ReservationId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::local_holds::HANDED_OVER_MS;
use super::question::Settle;
use super::reservation::Reservation;
use crate::budget::KeeperError;
use crate::core::Core;
use crate::settle;

/// Of one call, among `in_flight_max`.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Settlements are tried longer than a proxy waits for an answer: what was used is known nowhere else.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// What another gateway holds from leases is looked for when it can have been handed over, and so often after that,
const FIRST_LOOK_MS: u64 = HANDED_OVER_MS + 1_000;
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// until nobody can make it in the cluster any more.
const LOOKED_FOR_MS: u64 = RETENTION_MS;

/// Envoy does not look at the answer of a call at the end of a stream.
pub(super) fn settle(core: &Arc<Core>, place: &Place, settle: Settle) {
    let Settle { reservation, amounts } = settle;
    let (id, metrics) = (reservation.id, &core.metrics.rate_limit);
    if amounts.iter().any(Option::is_none) {
        metrics.kept.inc();
        tracing::warn!(
            reservation = %id, tenant = reservation.tenant,
            "what was used of some of its accounts is not said: the policy has changed since, or these are not the entries that it was made with; what was held is charged there"
        );
    }
    let said = amounts.iter().zip(&reservation.lines).map(|(said, line)| said.unwrap_or(line.held));
    let actual: Vec<_> = said.collect();
    if reservation.leased && core.local_holds.settle(core, &reservation, &actual) {
        metrics.settled.inc();
        return;
    }
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let Reservation { id, tenant, leased, .. } = reservation;
        let command = Command::Settle { tenant, id, actual, estimated: false };
        let mut settled = execute(&task_core, &command).await;
        if leased && is_missing(&settled) {
            // Elsewhere: it is waited for without a place.
            drop(place);
            settled = when_handed_over(&task_core, id, &command).await.unwrap_or(settled);
        }
        if is_charged(&task_core, id, settled) {
            task_core.metrics.rate_limit.settled.inc();
        }
    });
}

/// Nothing comes of it.
pub(super) fn give_back(core: &Arc<Core>, reservation: Reservation) {
    let Reservation { id, tenant, .. } = reservation;
    if !core.local_holds.give_back(core, id) {
        settle::abandon(core, tenant, id);
    }
}

/// What was granted and answered, and whose settlement got lost.
pub(super) fn settle_again(core: &Arc<Core>, place: &Place, id: ReservationId, command: Command) {
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        let settled = execute(&task_core, &command).await;
        is_charged(&task_core, id, settled)
    });
}

type Settled = Result<Outcome, KeeperError>;

async fn execute(core: &Core, command: &Command) -> Settled {
    core.keeper.execute_waiting(command.clone(), settle::IN_NO_HURRY, SETTLE_WITHIN).await
}

/// It may come yet.
fn is_missing(settled: &Settled) -> bool {
    matches!(settled, Err(_) | Ok(Outcome::Refused(Refusal::UnknownReservation { .. })))
}

/// Looks for a reservation until whoever holds it from leases has handed it over. `None`: it is too old for that, or too many
/// are waited for.
async fn when_handed_over(core: &Core, id: ReservationId, command: &Command) -> Option<Settled> {
    core.metrics.rate_limit.held_elsewhere.inc();
    let _one = core.local_holds.awaited.try_acquire().ok()?;
    let until = |age_ms| {
        let then = id.timestamp().saturating_add(age_ms);
        // A name can say anything.
        Duration::from_millis(then.since(core.keeper.now()).min(age_ms))
    };
    let left = until(LOOKED_FOR_MS);
    if left.is_zero() {
        return None;
    }
    let (deadline, mut pause) = (Instant::now() + left, until(FIRST_LOOK_MS));
    loop {
        let goes_on = core.cut.run_until_cancelled(sleep(pause)).await.is_some();
        let settled = execute(core, command).await;
        if !is_missing(&settled) || !goes_on || Instant::now() >= deadline {
            return Some(settled);
        }
        pause = LOOK_EVERY;
    }
}

fn is_charged(core: &Core, id: ReservationId, settled: Settled) -> bool {
    match settled {
        Ok(Outcome::Settled(_)) => return true,
        Ok(other) => tracing::warn!(reservation = %id, ?other, "a reservation was not settled"),
        Err(error) => {
            tracing::warn!(reservation = %id, %error, "a reservation was not settled: it expires as reserved");
        }
    }
    core.metrics.rate_limit.unsettled.inc();
    false
}
