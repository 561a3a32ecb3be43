//! One question: may this request have its worst case? Asked of the slices that this gateway holds, of its allowance while
//! the cluster is away, and of the cluster.

use std::time::Duration;

use quorate_ledger::{Balance, Charge, Command, Denial, Grant, Outcome, ReservationId, TimestampMs};
use tokio::time::Instant;

use crate::{
    budget::KeeperError,
    leased::{Leased, is_leased},
    refusal::Refusal,
    reserve::Reserving,
    settle,
    spare::Taken,
};

/// When somebody who got no slice asks again.
const SLICE_RETRY_MS: u64 = 1_000;

pub(crate) enum Answer {
    /// What the cluster said, or a grant of slices alone.
    Decided(Decided),
    /// The cluster is away, and the budgets let this gateway go on for a while.
    Spare(ReservationId, Taken),
}

pub(crate) struct Decided {
    /// Where all is leased, no reservation has it.
    pub(crate) id: ReservationId,
    pub(crate) outcome: Box<Outcome>,
    /// What of a grant comes from slices.
    pub(crate) leased: Option<Leased>,
}

impl Reserving<'_> {
    pub(crate) async fn ask(&mut self, charges: &[Charge], wait: Duration) -> Result<Answer, Refusal> {
        let began = Instant::now();
        let answer = self.ask_once(charges, wait).await?;
        let Answer::Decided(Decided { outcome, .. }) = &answer else { return Ok(answer) };
        let Outcome::Denied(denial) = outcome.as_ref() else { return Ok(answer) };
        // Perhaps what stands in the way is held here, and nobody uses it.
        match self.made_room(denial).await {
            true => self.ask_once(charges, wait.saturating_sub(began.elapsed())).await,
            false => Ok(answer),
        }
    }

    async fn made_room(&self, denial: &Denial) -> bool {
        let account = &denial.account;
        let mut matches = self.plan.matches.iter();
        denial.held_by_reservations
            && matches.any(|found| found.budget.rule.name == account.budget && is_leased(found))
            && {
                let (leases, tenant) = (&self.call.core.leases, &self.plan.who.identity.tenant);
                leases.make_room(tenant, &account.budget, &account.subject).await
            }
    }

    async fn ask_once(&mut self, charges: &[Charge], wait: Duration) -> Result<Answer, Refusal> {
        let (call, id) = (self.call, self.call.core.keeper.new_id());
        let leases = &call.core.leases;
        // While the cluster is away nobody waits for a slice.
        let within = match call.core.spare.is_lost() {
            true => Duration::ZERO,
            false => Duration::from_millis(call.core.config.timeouts.reserve_ms),
        };
        let leased = match Leased::take(leases, &self.plan, charges, within).await {
            Ok(Some(leased)) => leased,
            Ok(None) => return self.ask_cluster(id, charges, charges.to_vec(), wait).await,
            Err(error) => {
                tracing::warn!(%error, "no decision on a slice");
                return self.without_cluster(id, charges, SLICE_RETRY_MS);
            }
        };
        if leased.is_all() {
            return Ok(granted(id, leased, Vec::new()));
        }
        let asked = self.ask_cluster(id, charges, leased.rest(charges), wait).await;
        if let Ok(Answer::Decided(Decided { outcome, .. })) = &asked
            && let Outcome::Granted(grant) = outcome.as_ref()
        {
            return Ok(granted(id, leased, grant.balances.clone()));
        }
        leased.give_back(leases);
        asked
    }

    /// `rest`: what no slice has room for.
    async fn ask_cluster(
        &mut self,
        id: ReservationId,
        charges: &[Charge],
        rest: Vec<Charge>,
        wait: Duration,
    ) -> Result<Answer, Refusal> {
        let call = self.call;
        let core = &call.core;
        if core.spare.is_lost()
            && let Some(taken) = core.spare.take(&self.plan, charges, core.keeper.now())
        {
            core.metrics.fail_open.inc();
            return Ok(Answer::Spare(id, taken));
        }
        let tenant = self.plan.who.identity.tenant.clone();
        let command = Command::Reserve {
            tenant: tenant.clone(),
            id,
            charges: rest,
            ttl_ms: core.config.timeouts.reservation_ms(),
            wait: !wait.is_zero(),
        };
        let within = Duration::from_millis(core.config.timeouts.reserve_ms) + wait;
        let started = Instant::now();
        let deciding = core.keeper.execute_waiting(command, wait, within);
        let decided = match wait.is_zero() {
            true => Ok(deciding.await),
            false => self.while_wanted(deciding).await,
        };
        // It is in the queue, or was granted a moment ago: others wait for that.
        let decided = decided.inspect_err(|_| settle::abandon(core, tenant.clone(), id))?;
        core.metrics.reserve_seconds.observe(started.elapsed().as_secs_f64());
        let error = match decided {
            Ok(outcome) => {
                self.saw(&outcome);
                let outcome = Box::new(outcome);
                return Ok(Answer::Decided(Decided { id, outcome, leased: None }));
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "no decision on a reservation");
        let retry_after_ms = match error {
            KeeperError::Unavailable { retry_after_ms, .. } => retry_after_ms,
            KeeperError::Unknown { .. } => {
                // It may have been made all the same: nothing may stay held for a request that is not served.
                settle::abandon(core, tenant, id);
                1000
            }
        };
        self.without_cluster(id, charges, retry_after_ms)
    }

    /// It is away: from the allowance, if the budgets let this gateway.
    fn without_cluster(
        &self,
        id: ReservationId,
        charges: &[Charge],
        retry_after_ms: u64,
    ) -> Result<Answer, Refusal> {
        let core = &self.call.core;
        core.spare.lost();
        match core.spare.take(&self.plan, charges, core.keeper.now()) {
            Some(taken) => {
                core.metrics.fail_open.inc();
                Ok(Answer::Spare(id, taken))
            }
            None => Err(Refusal::ClusterUnavailable { retry_after_ms }),
        }
    }

    /// Slices are sized by what the cluster says.
    fn saw(&self, outcome: &Outcome) {
        if !self.plan.matches.iter().any(is_leased) {
            return;
        }
        let (leases, tenant) = (&self.call.core.leases, &self.plan.who.identity.tenant);
        match outcome {
            Outcome::Granted(grant) => leases.saw(tenant, &grant.balances),
            Outcome::Denied(denial) => leases.saw(tenant, std::slice::from_ref(&denial.account)),
            _ => {}
        }
    }
}

fn granted(id: ReservationId, leased: Leased, rest: Vec<Balance>) -> Answer {
    let grant = Grant { deadline: TimestampMs(0), balances: leased.granted(rest) };
    Answer::Decided(Decided { id, outcome: Box::new(Outcome::Granted(grant)), leased: Some(leased) })
}
