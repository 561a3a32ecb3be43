//! What goes on behind an answer: reservations are settled and given back, whether the proxy waits or not.
//!
//! All of it keeps the place of its call, so that `in_flight_max` bounds it too, also while the cluster is away.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Command, Outcome, Refusal, ReservationId};
use tokio::sync::OwnedSemaphorePermit;

use super::question::Settle;
use super::reservation::Reservation;
use crate::core::Core;
use crate::settle;

/// Of one call, among `in_flight_max`.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Settlements are tried longer than a proxy waits for an answer: what was used is known nowhere else.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// One try to give back.
const TRY: Duration = Duration::from_secs(5);
/// When to look for a reservation that may never have been made. The last is after the nodes' own deadline for it.
const LOOK_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(20)];

/// Envoy does not look at the answer of a call at the end of a stream.
pub(super) fn settle(core: &Arc<Core>, place: &Place, settle: Settle) {
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        let metrics = &task_core.metrics.rate_limit;
        let Settle { reservation: Reservation { id, tenant, lines }, amounts } = settle;
        if amounts.iter().any(Option::is_none) {
            metrics.kept.inc();
            tracing::warn!(
                reservation = %id, tenant,
                "what was used of some of its accounts is not said: the policy has changed since, or these are not the entries that it was made with; what was held is charged there"
            );
        }
        let said = amounts.iter().zip(&lines).map(|(said, line)| said.unwrap_or(line.held));
        let command = Command::Settle { tenant, id, actual: said.collect(), estimated: false };
        if charge(&task_core, id, command).await {
            metrics.settled.inc();
        }
    });
}

/// What was granted and answered, and whose settlement got lost.
pub(super) fn settle_again(core: &Arc<Core>, place: &Place, id: ReservationId, command: Command) {
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        charge(&task_core, id, command).await
    });
}

async fn charge(core: &Core, id: ReservationId, command: Command) -> bool {
    match core.keeper.execute_waiting(command, settle::IN_NO_HURRY, SETTLE_WITHIN).await {
        Ok(Outcome::Settled(_)) => return true,
        Ok(other) => tracing::warn!(reservation = %id, ?other, "a reservation was not settled"),
        Err(error) => {
            tracing::warn!(reservation = %id, %error, "a reservation was not settled: it expires as reserved");
        }
    }
    core.metrics.rate_limit.unsettled.inc();
    false
}

/// Releases a reservation that nobody will settle, also one of which it is not known whether it was ever made.
pub(super) fn give_back(core: &Arc<Core>, place: &Place, tenant: String, id: ReservationId) {
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        for pause in LOOK_AFTER {
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
