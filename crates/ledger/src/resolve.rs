//! How a reservation ends: Settle, Release, Expire; and Extend, which puts the end off.
//!
//! An expiry charges what was held, because the money may be gone; it is the only end that a later word corrects, a late
//! Settle to what was used, a late Release to nothing. Every other end is final.

use std::sync::Arc;

use crate::ledger::Ledger;
use crate::tenant::{How, Line, Open, Resolved, Tenant};
use crate::{Amount, Outcome, Refusal, ReservationId, Settlement, TimestampMs, check};

impl Ledger {
    pub(crate) fn extend(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        id: ReservationId,
        ttl_ms: u64,
    ) -> Outcome {
        if let Err(message) = check::name("tenant", tenant).and_then(|()| check::ttl(ttl_ms)) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let Some(tenant) = self.tenant_existing(tenant) else { return refused(unknown(id)) };
        let Some(open) = tenant.open.get_mut(&id) else { return refused(ended(tenant, id)) };
        let before = open.deadline;
        let deadline = before.max(now.saturating_add(ttl_ms));
        if deadline != before {
            open.deadline = deadline;
            tenant.deadlines.remove(&(before, id));
            tenant.deadlines.insert((deadline, id), ());
        }
        Outcome::Extended { deadline }
    }

    pub(crate) fn settle(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        id: ReservationId,
        actual: &[Amount],
        estimated: bool,
    ) -> Outcome {
        match self.settlement(now, tenant, id, actual, estimated) {
            Ok(settlement) => Outcome::Settled(settlement),
            Err(refusal) => refused(refusal),
        }
    }

    fn settlement(
        &mut self,
        now: TimestampMs,
        name: &str,
        id: ReservationId,
        actual: &[Amount],
        estimated: bool,
    ) -> Result<Settlement, Refusal> {
        check::name("tenant", name).map_err(Refusal::Invalid)?;
        let tenant = self.tenant_state(name).ok_or_else(|| unknown(id))?;
        let (open, resolved) = (tenant.open.get(&id), tenant.resolved.get(&id));
        let granted = resolved.filter(|resolved| resolved.how.was_granted());
        let lines = open.map(|open| &open.lines).or(granted.map(|resolved| &resolved.lines));
        let lines = lines.ok_or_else(|| ended(tenant, id))?;
        as_many(lines, actual)?;
        if let Some(resolved) = granted {
            if resolved.is_settled_as(actual) {
                return Ok(self.settled(now, name, tenant, lines));
            }
            if !matches!(resolved.how, How::Expired) {
                return Err(ended(tenant, id));
            }
        }
        countable(tenant, lines, actual, open.is_some())?;
        let charge = |line: &Line, index: usize| actual.get(index).copied().unwrap_or(line.held);
        if !self.resolve(now, name, id, How::Settled, estimated, charge) {
            return Err(unknown(id));
        }
        let tenant = self.tenant_state(name).ok_or_else(|| unknown(id))?;
        let resolved = tenant.resolved.get(&id).ok_or_else(|| unknown(id))?;
        Ok(self.settled(now, name, tenant, &resolved.lines))
    }

    /// Of an open reservation, or of one that expired: a gateway that learns late that nothing was used.
    pub(crate) fn release(&mut self, now: TimestampMs, name: &str, id: ReservationId) -> Outcome {
        if let Err(message) = check::name("tenant", name) {
            return refused(Refusal::Invalid(message));
        }
        let Some(tenant) = self.tenant_state(name) else { return refused(unknown(id)) };
        match tenant.resolved.get(&id).map(|resolved| &resolved.how) {
            Some(How::Released) => return Outcome::Released,
            Some(How::Expired) | None => {}
            Some(_) => return refused(ended(tenant, id)),
        }
        if self.resolve(now, name, id, How::Released, false, |_, _| Amount::ZERO) {
            Outcome::Released
        } else {
            refused(unknown(id))
        }
    }

    /// Charges what was reserved, of those that are due: an estimate, since nobody said what was used.
    pub(crate) fn expire(&mut self, now: TimestampMs, tenant: &str, ids: &[ReservationId]) -> Outcome {
        let due = |ledger: &Self, id: &ReservationId| {
            let open = ledger.tenant_state(tenant).and_then(|state| state.open.get(id));
            open.is_some_and(|open| open.deadline <= now)
        };
        let mut expired = Vec::new();
        for id in ids {
            if due(self, id) && self.resolve(now, tenant, *id, How::Expired, true, |line, _| line.held) {
                expired.push(*id);
            }
        }
        Outcome::Expired { ids: expired }
    }

    /// Books `charge(line, index)` on every line of an open or expired reservation. False if there is none.
    fn resolve(
        &mut self,
        now: TimestampMs,
        name: &str,
        id: ReservationId,
        how: How,
        estimated: bool,
        charge: impl Fn(&Line, usize) -> Amount,
    ) -> bool {
        let Some((name, tenant)) = self.tenants.get_key_value_mut(name) else { return false };
        let (name, tenant) = (name.clone(), Arc::make_mut(tenant));
        let (was_open, ending) = match tenant.close_reservation(id) {
            Some(open) => (true, Ending::from(open)),
            None => match tenant.resolved.get(&id) {
                Some(resolved) => (false, Ending::from(resolved.clone())),
                None => return false,
            },
        };
        let Ending { fingerprint, deadline, mut lines } = ending;
        for (index, line) in lines.iter_mut().enumerate() {
            let Some(account) = tenant.accounts.get_mut(&line.account) else { continue };
            let expirable = account.period(line.window).map(|period| period.expirable(line));
            let amount = match &how {
                How::Expired => expirable.unwrap_or(line.held),
                _ => charge(line, index),
            };
            let rule = self.policy.rule(&name, line.account.budget());
            let Some(effect) = account.book(line, amount, was_open, rule, now) else { continue };
            if let Some(period) = account.period_mut(line.window) {
                period.mark(effect.booked, estimated);
            }
            tenant.totals.charged_micros += u128::from(effect.booked.added.micros());
            tenant.totals.taken_back_micros += u128::from(effect.booked.taken_back.micros());
            self.alerts.give(now, &name, &line.account, &effect);
        }
        match how {
            How::Settled => tenant.totals.settled += 1,
            How::Released => tenant.totals.released += 1,
            _ => tenant.totals.expired += 1,
        }
        if !was_open {
            tenant.totals.corrected += 1;
        }
        let resolved = Resolved { fingerprint, how, deadline, lines, forget_at: TimestampMs(0) };
        self.remember(now, &name, id, resolved);
        true
    }

    fn settled(&self, now: TimestampMs, name: &str, tenant: &Tenant, lines: &[Line]) -> Settlement {
        Settlement {
            balances: self.balances(now, name, tenant, lines, |line| line.charged),
            overdraft: lines.iter().map(|line| line.charged.saturating_sub(line.held)).collect(),
        }
    }
}

/// What a reservation takes with it when it is resolved, for the first time or to correct an expiry.
struct Ending {
    fingerprint: u128,
    deadline: TimestampMs,
    lines: Box<[Line]>,
}

impl From<Open> for Ending {
    fn from(open: Open) -> Self {
        Self { fingerprint: open.fingerprint, deadline: open.first_deadline, lines: open.lines }
    }
}

impl From<Resolved> for Ending {
    fn from(resolved: Resolved) -> Self {
        Self { fingerprint: resolved.fingerprint, deadline: resolved.deadline, lines: resolved.lines }
    }
}

impl Resolved {
    fn is_settled_as(&self, actual: &[Amount]) -> bool {
        matches!(self.how, How::Settled)
            && self.lines.iter().map(|line| line.charged).eq(actual.iter().copied())
    }
}

fn as_many(lines: &[Line], actual: &[Amount]) -> Result<(), Refusal> {
    if lines.len() == actual.len() {
        return Ok(());
    }
    let (charges, amounts) = (lines.len(), actual.len());
    Err(Refusal::Invalid(format!("the reservation has {charges} charges, the settlement {amounts} amounts")))
}

/// Would every account count right? Checked before anything changes, so that no sum is ever cut.
fn countable(tenant: &Tenant, lines: &[Line], actual: &[Amount], was_open: bool) -> Result<(), Refusal> {
    for (line, amount) in lines.iter().zip(actual) {
        let account = tenant.accounts.get(&line.account);
        let period = account.and_then(|account| account.period(line.window));
        if period.is_some_and(|period| !period.can_book(line, *amount, was_open)) {
            return Err(Refusal::Invalid(format!(
                "actual {amount}: account {} {:?} cannot count beyond {}",
                line.account.budget(),
                line.account.subject(),
                Amount::MAX
            )));
        }
    }
    Ok(())
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn unknown(id: ReservationId) -> Refusal {
    Refusal::UnknownReservation { id }
}

fn ended(tenant: &Tenant, id: ReservationId) -> Refusal {
    match tenant.resolved.get(&id) {
        Some(resolved) => Refusal::AlreadyResolved { id, how: resolved.how.word().to_owned() },
        None => unknown(id),
    }
}
