//! Reservations that slices of this process hold: made and settled without asking the cluster, where proxies settle here what
//! they reserved here (`hold_from_leases`).
//!
//! One that lasts is handed over: made in the cluster under the same id, and only then given back here, so that it is never
//! held less than once. From then on any gateway can settle it, and it outlives this process. Where the account has no room
//! for both, or the cluster does not answer, it stays here and is tried again, as long as its id is young enough. Where nobody
//! knows whether the cluster has it, it is not charged before that is known.

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
const TRIED_UNTIL_MS: u64 = RETENTION_MS - 10_000;
/// What could not be handed over is tried again after so long.
const AGAIN_MS: u64 = 5_000;
const EVERY: Duration = Duration::from_millis(500);
/// All tries of a round; the last ones have a second of it at least.
const WITHIN: Duration = Duration::from_secs(5);
const LAST_WITHIN: Duration = Duration::from_secs(1);
/// For room that other reservations hold. What waited is not denied for good; briefly, since others stand behind it.
const WAIT: Duration = Duration::from_millis(20);
/// Of a gateway that stops: what its slices had free is on its way back.
const WAIT_STOPPING: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 256;
/// More are held by the cluster.
const MOST: usize = 262_144;
/// Ends that wait for other gateways to hand over.
const AWAITED_MAX: usize = 4_096;

#[derive(Debug)]
struct LocalHold {
    reservation: Reservation,
    /// The same in the cluster, whole.
    charges: Vec<Charge>,
    /// One line for each charge.
    hold: Hold,
    /// By the ledger's clock, as the ids.
    next_try: TimestampMs,
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

impl LocalHolds {
    pub(super) fn keep(&self, reservation: Reservation, charges: Vec<Charge>, hold: Hold) {
        let id = reservation.id;
        let next_try = id.timestamp().saturating_add(HANDED_OVER_MS);
        let local = LocalHold { reservation, charges, hold, next_try, unheard: false };
        self.by_id.lock().insert(id, local);
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_id.lock().len() >= MOST
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
        let holds = &core.local_holds;
        while core.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let _one = holds.handing_over.lock().await;
            holds.hand_over(&core, reservation_ms, false).await;
            let made_before = TimestampMs(core.keeper.now().0.saturating_sub(reservation_ms));
            holds.expire(&core, made_before, false);
        }
    }

    /// When no proxy asks any more. What cannot be handed over is charged as it was held.
    pub(crate) async fn finish(&self, core: &Arc<Core>) {
        let Some(section) = &core.config.rate_limit else { return };
        let _one = self.handing_over.lock().await;
        self.hand_over(core, section.reservation_ms, true).await;
        let left = self.expire(core, TimestampMs(u64::MAX), true);
        if left > 0 {
            core.metrics.rate_limit.unsettled.inc_by(left as u64);
            tracing::warn!(
                reservations = left,
                "what proxies reserved here could not be handed over to the cluster; it is charged as it was held"
            );
        }
    }

    /// One round, of all or of those whose time it is. What there is no time for is left for the next; those of a stop are not
    /// those of before.
    async fn hand_over(&self, core: &Arc<Core>, ttl_ms: u64, all: bool) {
        let until = Instant::now() + WITHIN;
        let of_stop = core.stop.is_cancelled();
        for ids in self.due(core.keeper.now(), all).chunks(AT_ONCE) {
            if Instant::now() + LAST_WITHIN >= until || core.stop.is_cancelled() != of_stop {
                return;
            }
            let each = ids.iter().map(|id| self.hand_over_one(core, *id, ttl_ms, until));
            join_all(each).await;
        }
    }

    fn due(&self, now: TimestampMs, all: bool) -> Vec<ReservationId> {
        let by_id = self.by_id.lock();
        let is_its_time = |id: &ReservationId| all || now.since(id.timestamp()) >= HANDED_OVER_MS;
        let is_due = |id: &ReservationId, local: &LocalHold| {
            // What the cluster has it tells, however old.
            let can_be = local.unheard || now.since(id.timestamp()) < TRIED_UNTIL_MS;
            can_be && (all || local.next_try <= now)
        };
        let old_enough = by_id.iter().take_while(|(id, _)| is_its_time(id));
        old_enough.filter(|(id, local)| is_due(id, local)).map(|(id, _)| *id).collect()
    }

    /// Sends the same command each time, which is recognised by its id.
    async fn hand_over_one(&self, core: &Arc<Core>, id: ReservationId, ttl_ms: u64, until: Instant) {
        let now = core.keeper.now();
        let Some((tenant, charges)) = self.by_id.lock().get_mut(&id).map(|local| {
            local.next_try = now.saturating_add(AGAIN_MS);
            (local.reservation.tenant.clone(), local.charges.clone())
        }) else {
            return;
        };
        let command = Command::Reserve { tenant: tenant.clone(), id, charges, ttl_ms, wait: true };
        let wait = if core.stop.is_cancelled() { WAIT_STOPPING } else { WAIT };
        let within = until.saturating_duration_since(Instant::now());
        let reserved = core.keeper.execute_waiting(command, wait, within).await;
        let metrics = &core.metrics.rate_limit;
        if let Ok(Outcome::Granted(_)) = reserved {
            let local = self.by_id.lock().remove(&id);
            match local {
                Some(local) => {
                    core.leases.give_back(local.hold);
                    metrics.handed_over.inc();
                }
                // It has ended here meanwhile.
                None => settle::abandon(core, tenant, id),
            }
            return;
        }
        metrics.not_handed_over.inc();
        tracing::debug!(reservation = %id, tenant, ?reserved, "not handed over to the cluster");
        let unheard = match reserved {
            Err(KeeperError::Unknown { .. }) => true,
            // Whatever was sent before.
            Err(KeeperError::Unavailable { .. }) => return,
            // It was never made.
            Ok(_) => false,
        };
        let is_here = self.by_id.lock().get_mut(&id).map(|local| local.unheard = unheard).is_some();
        if unheard && !is_here {
            settle::abandon(core, tenant, id);
        }
    }

    /// Charges those that were made before as they were held; how many there were. `all`: also those that the cluster may have.
    fn expire(&self, core: &Arc<Core>, made_before: TimestampMs, all: bool) -> usize {
        let over: Vec<LocalHold> = {
            let mut by_id = self.by_id.lock();
            let old = by_id.iter().take_while(|(id, _)| id.timestamp() < made_before);
            let old: Vec<_> = old.filter(|(_, local)| all || !local.unheard).map(|(id, _)| *id).collect();
            old.iter().filter_map(|id| by_id.remove(id)).collect()
        };
        let count = over.len();
        for local in over {
            let held: Vec<Amount> = local.reservation.lines.iter().map(|line| line.held).collect();
            local.end(core, &held, true);
        }
        count
    }
}

impl LocalHold {
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
        let _one = self.handing_over.lock().await;
        self.hand_over(core, 660_000, true).await;
    }
}
