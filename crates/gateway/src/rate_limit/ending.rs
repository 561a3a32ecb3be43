//! What goes on behind an answer: reservations are settled, whether the proxy waits or not.
//!
//! All of it keeps the place of its call, so that `in_flight_max` bounds it too, also while the cluster is away.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Command, Outcome, ReservationId};
use tokio::sync::OwnedSemaphorePermit;

use super::question::Settle;
use super::reservation::Reservation;
use crate::core::Core;
use crate::settle;

/// Of one call, among `in_flight_max`.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Settlements are tried longer than a proxy waits for an answer: what was used is known nowhere else.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
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
