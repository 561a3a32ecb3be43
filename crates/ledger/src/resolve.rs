//! How a reservation ends: Settle, Release, Expire; and Extend, which puts the end off.

use crate::account::Period;
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
        let Some(tenant) = self.tenant_existing(tenant) else { return unknown(id) };
        let Some(open) = tenant.open.get_mut(&id) else { return ended(tenant, id) };
        let before = open.deadline;
        let deadline = before.max(now.saturating_add(ttl_ms));
        open.deadline = deadline;
        tenant.deadlines.remove(&(before, id));
        tenant.deadlines.insert((deadline, id), ());
        Outcome::Extended { deadline }
    }

    pub(crate) fn settle(
        &mut self,
        now: TimestampMs,
        tenant: &str,
        id: ReservationId,
        actual: &[Amount],
    ) -> Outcome {
        let name = tenant;
        if let Err(message) = check::name("tenant", name) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let Some(tenant) = self.tenant_existing(name) else { return unknown(id) };
        let lines = match (tenant.open.get(&id), tenant.resolved.get(&id)) {
            (Some(open), _) => open.lines.clone(),
            (None, Some(resolved)) if matches!(resolved.how, How::Expired) => resolved.lines.clone(),
            (None, Some(resolved)) if resolved.is_settled_as(actual) => {
                return settled(tenant, &resolved.lines);
            }
            _ => return ended(tenant, id),
        };
        if let Err(message) = chargeable(tenant, &lines, actual) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let outcome = self.resolve(now, name, id, How::Settled, |line, index| {
            actual.get(index).copied().unwrap_or(line.held)
        });
        outcome.unwrap_or_else(|| unknown(id))
    }

    /// Of an open reservation, or of one that expired: a gateway that learns late that nothing was used.
    pub(crate) fn release(&mut self, now: TimestampMs, tenant: &str, id: ReservationId) -> Outcome {
        let name = tenant;
        if let Err(message) = check::name("tenant", name) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let Some(tenant) = self.tenant_existing(name) else { return unknown(id) };
        match tenant.resolved.get(&id).map(|resolved| &resolved.how) {
            Some(How::Released) => return Outcome::Released,
            Some(How::Expired) | None => {}
            Some(_) => return ended(tenant, id),
        }
        match self.resolve(now, name, id, How::Released, |_, _| Amount::ZERO) {
            Some(_) => Outcome::Released,
            None => unknown(id),
        }
    }

    /// Charges what was reserved, of those that are due.
    pub(crate) fn expire(&mut self, now: TimestampMs, tenant: &str, ids: &[ReservationId]) -> Outcome {
        let due = |ledger: &Self, id: &ReservationId| {
            let open = ledger.tenant_state(tenant).and_then(|state| state.open.get(id));
            open.is_some_and(|open| open.deadline <= now)
        };
        let mut expired = Vec::new();
        for id in ids {
            if due(self, id) && self.resolve(now, tenant, *id, How::Expired, |line, _| line.held).is_some() {
                expired.push(*id);
            }
        }
        Outcome::Expired { ids: expired }
    }

    /// Books `charge(line, index)` on every line of an open or expired reservation. `None` if there is none.
    fn resolve(
        &mut self,
        now: TimestampMs,
        name: &str,
        id: ReservationId,
        how: How,
        charge: impl Fn(&Line, usize) -> Amount,
    ) -> Option<Outcome> {
        let tenant = self.tenant_existing(name)?;
        let (was_open, open) = match tenant.close_reservation(id) {
            Some(open) => (true, open),
            None => (false, tenant.resolved.get(&id)?.reopened()),
        };
        let Open { fingerprint, first_deadline, mut lines, .. } = open;
        for (index, line) in lines.iter_mut().enumerate() {
            let amount = charge(line, index);
            if let Some(period) =
                tenant.accounts.get_mut(&line.account).and_then(|account| account.period_mut(line.span))
            {
                book(period, line, amount, was_open);
            }
        }
        match how {
            How::Settled => tenant.totals.settled += 1,
            How::Released => tenant.totals.released += 1,
            _ => tenant.totals.expired += 1,
        }
        if !was_open {
            tenant.totals.corrected += 1;
        }
        let outcome = settled(tenant, &lines);
        let resolved =
            Resolved { fingerprint, how, deadline: first_deadline, lines, forget_at: TimestampMs(0) };
        self.remember(now, name, id, resolved);
        Some(outcome)
    }
}

impl Resolved {
    fn is_settled_as(&self, actual: &[Amount]) -> bool {
        matches!(self.how, How::Settled)
            && self.lines.iter().map(|line| line.charged).eq(actual.iter().copied())
    }

    /// An expired reservation as the late settlement finds it.
    fn reopened(&self) -> Open {
        Open {
            fingerprint: self.fingerprint,
            first_deadline: self.deadline,
            deadline: self.deadline,
            made_at: self.deadline,
            lines: self.lines.clone(),
        }
    }
}

/// Moves what the line holds, or has charged, to `amount` charged. Never takes back what a reset has forgiven.
fn book(period: &mut Period, line: &mut Line, amount: Amount, was_open: bool) {
    let over_before = line.charged.saturating_sub(line.held);
    let before = if line.resets == period.resets { line.charged } else { Amount::ZERO };
    let forgiven = line.charged.saturating_sub(before);
    if was_open {
        period.reserved = period.reserved.saturating_sub(line.held);
    }
    let due = amount.saturating_sub(forgiven);
    period.spent = period.spent.saturating_sub(before).checked_add(due).unwrap_or(Amount::MAX);
    let over = amount.saturating_sub(line.held).saturating_sub(over_before);
    period.overdraft = period.overdraft.checked_add(over).unwrap_or(Amount::MAX);
    line.charged = amount;
    line.resets = period.resets;
}

/// Would every account hold what is to be charged? Checked before anything changes.
fn chargeable(tenant: &Tenant, lines: &[Line], actual: &[Amount]) -> Result<(), String> {
    if lines.len() != actual.len() {
        return Err(format!(
            "the reservation has {} charges, the settlement {} amounts",
            lines.len(),
            actual.len()
        ));
    }
    for (line, amount) in lines.iter().zip(actual) {
        let period = tenant.accounts.get(&line.account).and_then(|account| account.period(line.span));
        if period.is_some_and(|period| period.spent.checked_add(*amount).is_none()) {
            return Err(format!(
                "account {} {:?} cannot count beyond {}",
                line.account.budget,
                line.account.subject,
                Amount::MAX
            ));
        }
    }
    Ok(())
}

fn settled(tenant: &Tenant, lines: &[Line]) -> Outcome {
    Outcome::Settled(Settlement {
        balances: lines.iter().filter_map(|line| tenant.balance(line, line.charged)).collect(),
        overdraft: lines.iter().map(|line| line.charged.saturating_sub(line.held)).collect(),
    })
}

fn unknown(id: ReservationId) -> Outcome {
    Outcome::Refused(Refusal::UnknownReservation { id })
}

fn ended(tenant: &Tenant, id: ReservationId) -> Outcome {
    match tenant.resolved.get(&id) {
        Some(resolved) => {
            Outcome::Refused(Refusal::AlreadyResolved { id, how: resolved.how.word().to_owned() })
        }
        None => unknown(id),
    }
}
