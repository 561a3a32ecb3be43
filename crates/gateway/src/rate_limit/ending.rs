//! What goes on behind an answer: reservations are settled, whether the proxy waits or not.
//!
//! All of it keeps the place of its call, so that `in_flight_max` bounds it too, also while the cluster is away.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Command, Outcome, Refusal, ReservationId};
use tokio::sync::OwnedSemaphorePermit;

use super::here::HANDED_OVER_MS;
use super::question::Settle;
use super::reservation::Reservation;
use crate::core::Core;
use crate::settle;

/// Of one call, among `in_flight_max`.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Settlements are tried longer than a proxy waits for an answer: what was used is known nowhere else.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// From its age on, until whoever held it from leases has handed it over.
const HANDING_OVER_MS: u64 = 6_000;

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
    if reservation.leased && core.held_here.settle(&core.leases, &reservation, &actual) {
        metrics.settled.inc();
        return;
    }
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        let Reservation { id, tenant, leased, .. } = reservation;
        let command = Command::Settle { tenant, id, actual, estimated: false };
        if charge(&task_core, id, command, leased).await {
            task_core.metrics.rate_limit.settled.inc();
        }
    });
}

/// Nothing comes of it.
pub(super) fn give_back(core: &Arc<Core>, reservation: Reservation) {
    let Reservation { id, tenant, .. } = reservation;
    if !core.held_here.give_back(&core.leases, id) {
        settle::abandon(core, tenant, id);
    }
}

/// What was granted and answered, and whose settlement got lost.
pub(super) fn settle_again(core: &Arc<Core>, place: &Place, id: ReservationId, command: Command) {
    let (task_core, place) = (Arc::clone(core), Arc::clone(place));
    core.tasks.spawn(async move {
        let _place = place;
        charge(&task_core, id, command, false).await
    });
}

async fn charge(core: &Core, id: ReservationId, command: Command, leased: bool) -> bool {
    let execute = || core.keeper.execute_waiting(command.clone(), settle::IN_NO_HURRY, SETTLE_WITHIN);
    let mut settled = execute().await;
    if leased && matches!(settled, Ok(Outcome::Refused(Refusal::UnknownReservation { .. }))) {
        core.metrics.rate_limit.held_elsewhere.inc();
        let there = id.timestamp().saturating_add(HANDED_OVER_MS + HANDING_OVER_MS);
        let until = Duration::from_millis(there.since(core.keeper.now()));
        core.stop.run_until_cancelled(tokio::time::sleep(until)).await;
        settled = execute().await;
    }
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
