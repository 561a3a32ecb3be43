//! Reservations that slices of this process hold: made and settled without asking the cluster, where proxies settle here what
//! they reserved here (`hold_from_leases`).
//!
//! One that lasts is handed over: made in the cluster under the same id, and only then given back here, so that it is never
//! held less than once. From then on any gateway can settle it, and it outlives this process. Where the account has no room
//! for both it stays here.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_ledger::{Amount, Charge, Command, Outcome, RETENTION_MS, ReservationId, TimestampMs};
use quorate_rpc::lease::{Hold, Leases};
use tokio::time::Instant;

use super::reservation::Reservation;
use crate::budget::KeeperError;
use crate::core::Core;
use crate::settle;

/// As old as this it is handed over. Most requests have ended by then.
pub(super) const HANDED_OVER_MS: u64 = 20_000;
/// An id that is older is not made in the cluster any more.
const _: () = assert!(HANDED_OVER_MS + 2 * WITHIN.as_millis() as u64 <= RETENTION_MS);
const WITHIN: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 256;

#[derive(Debug)]
struct Here {
    reservation: Reservation,
    /// The same in the cluster.
    charges: Vec<Charge>,
    /// One line for each charge.
    hold: Hold,
}

/// By id, and so oldest first.
type ById = BTreeMap<ReservationId, Here>;

/// All of a process.
#[derive(Debug, Default)]
pub(crate) struct HeldHere {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    young: ById,
    /// They are being handed over, or could not be.
    old: ById,
}

impl Table {
    fn take(&mut self, id: ReservationId) -> Option<Here> {
        self.young.remove(&id).or_else(|| self.old.remove(&id))
    }

    /// If this is the name that was given.
    fn take_named(&mut self, name: &Reservation) -> Option<Here> {
        let here = self.young.get(&name.id).or_else(|| self.old.get(&name.id))?;
        if here.reservation == *name { self.take(name.id) } else { None }
    }
}

/// Takes out the oldest of those that were made before, so many at most.
fn before(time: TimestampMs, most: usize, held: &mut ById) -> ById {
    let mut next = || {
        let oldest = held.first_entry().filter(|oldest| oldest.key().timestamp() < time);
        oldest.map(OccupiedEntry::remove_entry)
    };
    std::iter::from_fn(next).take(most).collect()
}

impl HeldHere {
    pub(super) fn keep(&self, reservation: Reservation, charges: Vec<Charge>, hold: Hold) {
        self.table.lock().young.insert(reservation.id, Here { reservation, charges, hold });
    }

    /// Charges what was used, one amount for each line. False: it is not here.
    pub(super) fn settle(&self, leases: &Leases, reservation: &Reservation, used: &[Amount]) -> bool {
        let here = self.table.lock().take_named(reservation);
        here.map(|here| leases.settle(here.hold, used, false)).is_some()
    }

    /// Nothing comes of it. False: it is not here.
    pub(super) fn give_back(&self, leases: &Leases, id: ReservationId) -> bool {
        let here = self.table.lock().take(id);
        here.map(|here| leases.give_back(here.hold)).is_some()
    }

    /// Until the gateway stops.
    pub(super) async fn run(core: Arc<Core>) {
        let reservation_ms = core.config.rate_limit.as_ref().map_or(0, |section| section.reservation_ms);
        while core.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let ago = |ms| TimestampMs(core.keeper.now().0.saturating_sub(ms));
            core.held_here.hand_over(&core, ago(HANDED_OVER_MS)).await;
            core.held_here.expire(&core.leases, ago(reservation_ms));
        }
    }

    /// When no proxy asks any more. What cannot be handed over is charged as it was held.
    pub(crate) async fn finish(&self, core: &Arc<Core>) {
        let never = TimestampMs(u64::MAX);
        self.hand_over(core, never).await;
        let left = self.expire(&core.leases, never);
        if left > 0 {
            core.metrics.rate_limit.unsettled.inc_by(left as u64);
            tracing::warn!(
                reservations = left,
                "what proxies reserved here could not be handed over to the cluster; it is charged as it was held"
            );
        }
    }

    /// Those that were made before; what there is no time for now is left for the next time.
    pub(crate) async fn hand_over(&self, core: &Arc<Core>, time: TimestampMs) {
        let until = Instant::now() + WITHIN;
        while Instant::now() < until {
            let commands = self.due(core, time);
            if commands.is_empty() {
                return;
            }
            join_all(commands.into_iter().map(|command| self.hand_over_one(core, command))).await;
        }
    }

    fn due(&self, core: &Core, time: TimestampMs) -> Vec<Command> {
        let reservation_ms = core.config.rate_limit.as_ref().map_or(0, |section| section.reservation_ms);
        let now = core.keeper.now();
        let mut table = self.table.lock();
        let due = before(time, AT_ONCE, &mut table.young);
        let command = |(id, here): (&ReservationId, &Here)| Command::Reserve {
            tenant: here.reservation.tenant.clone(),
            id: *id,
            charges: here.charges.clone(),
            ttl_ms: reservation_ms.saturating_sub(now.since(id.timestamp())).max(1),
            wait: false,
        };
        let commands = due.iter().map(command).collect();
        table.old.extend(due);
        commands
    }

    async fn hand_over_one(&self, core: &Arc<Core>, command: Command) {
        let Command::Reserve { tenant, id, .. } = &command else { return };
        let (tenant, id) = (tenant.clone(), *id);
        match core.keeper.execute(command, WITHIN).await {
            Ok(Outcome::Granted(_)) => {
                if self.give_back(&core.leases, id) {
                    core.metrics.rate_limit.handed_over.inc();
                } else {
                    // It has ended here meanwhile.
                    settle::abandon(core, tenant, id);
                }
            }
            // It may be there. It is charged here.
            Err(KeeperError::Unknown { .. }) => settle::abandon(core, tenant, id),
            other => tracing::debug!(reservation = %id, tenant, ?other, "not handed over to the cluster"),
        }
    }

    /// Charges those that were made before as they were held.
    fn expire(&self, leases: &Leases, time: TimestampMs) -> usize {
        let due = {
            let mut table = self.table.lock();
            let mut due = before(time, usize::MAX, &mut table.old);
            due.append(&mut before(time, usize::MAX, &mut table.young));
            due
        };
        let count = due.len();
        for Here { reservation, hold, .. } in due.into_values() {
            let held: Vec<Amount> = reservation.lines.iter().map(|line| line.held).collect();
            leases.settle(hold, &held, true);
        }
        count
    }
}
