//! Reservations that slices of this process hold: made and settled without asking the cluster, where proxies settle here what
//! they reserved here (`hold_from_leases`).
//!
//! One that lasts is handed over: made in the cluster under the same id, and only then given back here, so that it is never
//! held less than once. From then on any gateway can settle it, and it outlives this process. Where the account has no room
//! for both, or the cluster does not answer, it stays here and is tried again, as long as its id is young enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_ledger::{Amount, Charge, Command, Outcome, RETENTION_MS, ReservationId, TimestampMs};
use quorate_rpc::lease::Hold;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::reservation::Reservation;
use crate::budget::KeeperError;
use crate::core::Core;
use crate::settle;

/// As old as this it is handed over. Most requests have ended by then.
pub(super) const HANDED_OVER_MS: u64 = 20_000;
/// The cluster makes none of an older id; this leaves time for the last try.
const TRIED_MS: u64 = RETENTION_MS - 10_000;
/// One try, and all of a round.
const WITHIN: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(500);
/// Those that could not be handed over.
const AGAIN: Duration = Duration::from_secs(5);
/// Before the tries of a gateway that stops: room may still be on its way back from its slices.
const FINISH_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(500)];
const AT_ONCE: usize = 256;
/// Ends that wait for other gateways to hand over.
const AWAITED_MAX: usize = 4_096;

#[derive(Debug)]
struct LocalHold {
    reservation: Reservation,
    /// The same in the cluster, whole.
    charges: Vec<Charge>,
    /// One line for each charge.
    hold: Hold,
    tried: bool,
    /// The cluster may have it by now.
    unheard: bool,
}

/// All of a process.
#[derive(Debug)]
pub(crate) struct LocalHolds {
    /// Ids order by the time in them.
    by_id: Mutex<BTreeMap<ReservationId, LocalHold>>,
    /// By one at a time: nothing is charged here while it is being handed over.
    handing_over: tokio::sync::Mutex<()>,
    pub(super) awaited: Semaphore,
}

impl Default for LocalHolds {
    fn default() -> Self {
        let (by_id, handing_over) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { by_id, handing_over, awaited: Semaphore::new(AWAITED_MAX) }
    }
}

/// Which are to be handed over.
#[derive(Debug, Clone, Copy)]
struct Due {
    made_before: TimestampMs,
    /// Those too that could not be before.
    again: bool,
}

impl LocalHolds {
    pub(super) fn keep(&self, reservation: Reservation, charges: Vec<Charge>, hold: Hold) {
        let id = reservation.id;
        let local = LocalHold { reservation, charges, hold, tried: false, unheard: false };
        self.by_id.lock().insert(id, local);
    }

    /// Charges what was used, one amount for each line. False: it is not here.
    pub(super) fn settle(&self, core: &Arc<Core>, name: &Reservation, used: &[Amount]) -> bool {
        let local = {
            let mut by_id = self.by_id.lock();
            let is_named = by_id.get(&name.id).is_some_and(|local| local.reservation == *name);
            if is_named { by_id.remove(&name.id) } else { None }
        };
        local.map(|local| local.end(core, used, false)).is_some()
    }

    /// Nothing comes of it. False: it is not here.
    pub(super) fn give_back(&self, core: &Arc<Core>, id: ReservationId) -> bool {
        let local = self.by_id.lock().remove(&id);
        local.map(|local| local.end(core, &[], false)).is_some()
    }

    /// Until the gateway stops.
    pub(super) async fn run(core: Arc<Core>, reservation_ms: u64) {
        let mut tried_again = Instant::now();
        while core.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let again = tried_again.elapsed() >= AGAIN;
            if again {
                tried_again = Instant::now();
            }
            let ago = |ms| TimestampMs(core.keeper.now().0.saturating_sub(ms));
            let due = Due { made_before: ago(HANDED_OVER_MS), again };
            let one = core.local_holds.handing_over.lock().await;
            core.local_holds.hand_over(&core, due, reservation_ms, Instant::now() + WITHIN).await;
            core.local_holds.expire(&core, ago(reservation_ms));
            drop(one);
        }
    }

    /// When no proxy asks any more. What cannot be handed over is charged as it was held.
    pub(crate) async fn finish(&self, core: &Arc<Core>) {
        let Some(section) = &core.config.rate_limit else { return };
        let all = TimestampMs(u64::MAX);
        let _one = self.handing_over.lock().await;
        let until = Instant::now() + WITHIN;
        for pause in FINISH_PAUSES {
            sleep(pause).await;
            let due = Due { made_before: all, again: true };
            self.hand_over(core, due, section.reservation_ms, until).await;
            if self.by_id.lock().is_empty() {
                return;
            }
        }
        let left = self.expire(core, all);
        core.metrics.rate_limit.unsettled.inc_by(left as u64);
        tracing::warn!(
            reservations = left,
            "what proxies reserved here could not be handed over to the cluster; it is charged as it was held"
        );
    }

    /// One round. What there is no time for is left for the next; the rounds of a stop are its own.
    async fn hand_over(&self, core: &Arc<Core>, due: Due, reservation_ms: u64, until: Instant) {
        let of_stop = core.stop.is_cancelled();
        for ids in self.due(due, core.keeper.now()).chunks(AT_ONCE) {
            if Instant::now() >= until || core.stop.is_cancelled() != of_stop {
                return;
            }
            let each = ids.iter().map(|id| self.hand_over_one(core, *id, reservation_ms, until));
            join_all(each).await;
        }
    }

    fn due(&self, due: Due, now: TimestampMs) -> Vec<ReservationId> {
        let by_id = self.by_id.lock();
        let old_enough = by_id.iter().take_while(|(id, _)| id.timestamp() < due.made_before);
        let is_due = |id: &ReservationId, local: &LocalHold| {
            now.since(id.timestamp()) < TRIED_MS && (due.again || !local.tried)
        };
        old_enough.filter(|(id, local)| is_due(id, local)).map(|(id, _)| *id).collect()
    }

    /// Sends the same command each time: the cluster may remember what came of it, also that it was denied.
    async fn hand_over_one(&self, core: &Arc<Core>, id: ReservationId, ttl_ms: u64, until: Instant) {
        let Some((tenant, charges)) = self.by_id.lock().get_mut(&id).map(LocalHold::tried) else { return };
        let command = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms, wait: false };
        let metrics = &core.metrics.rate_limit;
        match core.keeper.execute(command, until.saturating_duration_since(Instant::now())).await {
            Ok(Outcome::Granted(_)) => {
                let local = self.by_id.lock().remove(&id);
                match local {
                    Some(local) => {
                        core.leases.give_back(local.hold);
                        metrics.handed_over.inc();
                    }
                    // It has ended here meanwhile.
                    None => settle::abandon(core, tenant, id),
                }
            }
            Err(KeeperError::Unknown { message }) => {
                metrics.not_handed_over.inc();
                tracing::warn!(reservation = %id, tenant, message, "nobody knows whether it is handed over");
                let is_here = self.by_id.lock().get_mut(&id).map(|local| local.unheard = true).is_some();
                if !is_here {
                    settle::abandon(core, tenant, id);
                }
            }
            other => {
                metrics.not_handed_over.inc();
                tracing::debug!(reservation = %id, tenant, ?other, "not handed over to the cluster");
            }
        }
    }

    /// Charges those that were made before as they were held.
    fn expire(&self, core: &Arc<Core>, time: TimestampMs) -> usize {
        let mut expired = 0;
        while let Some(local) = self.oldest_made_before(time) {
            let held: Vec<Amount> = local.reservation.lines.iter().map(|line| line.held).collect();
            local.end(core, &held, true);
            expired += 1;
        }
        expired
    }

    fn oldest_made_before(&self, time: TimestampMs) -> Option<LocalHold> {
        let mut by_id = self.by_id.lock();
        let oldest = by_id.first_entry()?;
        (oldest.key().timestamp() < time).then(|| oldest.remove())
    }
}

impl LocalHold {
    /// Whose it is, and the same in the cluster.
    fn tried(&mut self) -> (String, Vec<Charge>) {
        self.tried = true;
        (self.reservation.tenant.clone(), self.charges.clone())
    }

    fn end(self, core: &Arc<Core>, used: &[Amount], estimated: bool) {
        core.leases.settle(self.hold, used, estimated);
        if self.unheard {
            settle::abandon(core, self.reservation.tenant, self.reservation.id);
        }
    }
}

#[cfg(test)]
impl LocalHolds {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.lock().is_empty()
    }

    /// All of them, however young.
    pub(crate) async fn hand_over_all(&self, core: &Arc<Core>) {
        let all = Due { made_before: TimestampMs(u64::MAX), again: true };
        let _one = self.handing_over.lock().await;
        self.hand_over(core, all, 660_000, Instant::now() + WITHIN).await;
    }
}
