//! Reserve: granted on all accounts or on none.

use crate::account_key::AccountKey;
use crate::fingerprint::Fingerprint;
use crate::ledger::Ledger;
use crate::period::Period;
use crate::share::Share;
use crate::tenant::{How, Line, Open, Resolved, Tenant};
use crate::{
    Amount, BudgetRule, CHARGES_MAX, Charge, Denial, Grant, Outcome, Refusal, ReservationId, TimestampMs,
    check,
};

/// A Reserve as asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub tenant: &'a str,
    pub id: ReservationId,
    pub charges: &'a [Charge],
    pub ttl_ms: u64,
}

enum Decision {
    /// A replay's first outcome, or a refusal.
    Known(Outcome),
    Deny(Denial),
    Grant(Vec<Amount>),
}

impl Ledger {
    pub(crate) fn reserve(&mut self, now: TimestampMs, request: Request<'_>) -> Outcome {
        match self.consider(now, request) {
            Decision::Known(outcome) => outcome,
            Decision::Deny(denial) => {
                self.remember_denial(now, request, &denial);
                Outcome::Denied(denial)
            }
            Decision::Grant(amounts) => match self.grant(now, request, &amounts) {
                Ok(grant) => Outcome::Granted(grant),
                Err(refusal) => Outcome::Refused(refusal),
            },
        }
    }

    /// See [`Ledger::would_deny`].
    pub(crate) fn consider_denial(&self, now: TimestampMs, request: Request<'_>) -> Option<Denial> {
        match self.consider(now, request) {
            Decision::Deny(denial) => Some(denial),
            Decision::Known(_) | Decision::Grant(_) => None,
        }
    }

    /// In the order of precedence that [`Refusal`] documents.
    fn consider(&self, now: TimestampMs, request: Request<'_>) -> Decision {
        if let Err(message) = validate(request) {
            return Decision::Known(Outcome::Refused(Refusal::Invalid(message)));
        }
        if let Some(outcome) = self.decided_before(now, request) {
            return Decision::Known(outcome);
        }
        let decision = check::id_time(request.id, now).and_then(|()| self.decide(now, request));
        decision.unwrap_or_else(|refusal| Decision::Known(Outcome::Refused(refusal)))
    }

    /// The first decision on this id, or the refusal of other fields under it.
    fn decided_before(&self, now: TimestampMs, request: Request<'_>) -> Option<Outcome> {
        let tenant = self.tenant_state(request.tenant)?;
        let (known, deadline, lines, denial) = match tenant.open.get(&request.id) {
            Some(open) => (open.fingerprint, open.first_deadline, &open.lines, None),
            None => {
                let resolved = tenant.resolved.get(&request.id)?;
                let denial = if let How::Denied(denial) = &resolved.how { Some(denial) } else { None };
                (resolved.fingerprint, resolved.deadline, &resolved.lines, denial)
            }
        };
        if known != Fingerprint::of_reserve(request.charges, request.ttl_ms) {
            return Some(Outcome::Refused(Refusal::IdReused { id: request.id }));
        }
        if let Some(denial) = denial {
            return Some(Outcome::Denied(denial.as_ref().clone()));
        }
        let balances = self.balances(now, request.tenant, tenant, lines, |line| line.held);
        Some(Outcome::Granted(Grant { deadline, balances }))
    }

    fn decide(&self, now: TimestampMs, request: Request<'_>) -> Result<Decision, Refusal> {
        let mut positions = Vec::with_capacity(request.charges.len());
        for charge in request.charges {
            let rule = self.policy.rule_or_refusal(request.tenant, &charge.budget)?;
            positions.push((rule, self.position(now, request.tenant, rule, &charge.subject)));
        }
        let mut share = Share::WHOLE;
        for (charge, (rule, period)) in request.charges.iter().zip(&positions) {
            if period.available() < charge.at_least {
                return Ok(Decision::Deny(self.denial(now, request.tenant, charge, rule, period)));
            }
            share = share.min(Share::of(charge, period.available()));
        }
        Ok(Decision::Grant(request.charges.iter().map(|charge| share.amount(charge)).collect()))
    }

    fn denial(
        &self,
        now: TimestampMs,
        tenant: &str,
        charge: &Charge,
        rule: &BudgetRule,
        period: &Period,
    ) -> Denial {
        let asked = charge.at_least;
        let held = period.spent.checked_add(asked).is_some_and(|sum| sum <= period.limit);
        let key = AccountKey::from_text(&AccountKey::text(&charge.budget, &charge.subject));
        let state = self.tenant_state(tenant);
        let account = state.and_then(|state| state.accounts.get(&key));
        // A top-up is for the present window only.
        let fresh_limit = account.map_or(rule.limit, |account| account.limit_of_fresh_window(rule));
        let window_end = period.span.end.filter(|_| asked <= fresh_limit).map(|end| end.since(now));
        // Where only reservations are in the way, one of them may be settled any time, and is gone at its deadline.
        let deadline = state.and_then(Tenant::next_deadline).filter(|_| held);
        let deadline = deadline.map(|deadline| deadline.since(now).max(1));
        Denial {
            account: period.balance(&key, period.limit, Amount::ZERO),
            asked,
            available: period.available(),
            retry_after_ms: window_end.into_iter().chain(deadline).min(),
            held_by_reservations: held,
        }
    }

    /// All lookups of rules have succeeded in [`Ledger::decide`]: nothing is left half done.
    fn grant(
        &mut self,
        now: TimestampMs,
        request: Request<'_>,
        amounts: &[Amount],
    ) -> Result<Grant, Refusal> {
        let mut lines = Vec::with_capacity(amounts.len());
        let mut balances = Vec::with_capacity(amounts.len());
        for (charge, amount) in request.charges.iter().zip(amounts) {
            let (_, touched) = self.touch(now, request.tenant, &charge.budget, &charge.subject)?;
            let period = &mut touched.account.present;
            period.hold(*amount);
            balances.push(period.balance(&touched.key, period.limit, *amount));
            lines.push(Line {
                account: touched.key,
                window: period.number,
                resets: period.resets,
                held: *amount,
                charged: Amount::ZERO,
            });
        }
        let deadline = now.saturating_add(request.ttl_ms);
        let open = Open {
            fingerprint: Fingerprint::of_reserve(request.charges, request.ttl_ms),
            first_deadline: deadline,
            deadline,
            made_at: now,
            lines: lines.into(),
        };
        self.tenant_mut(request.tenant).1.open_reservation(request.id, open);
        Ok(Grant { deadline, balances })
    }

    fn remember_denial(&mut self, now: TimestampMs, request: Request<'_>, denial: &Denial) {
        let resolved = Resolved {
            fingerprint: Fingerprint::of_reserve(request.charges, request.ttl_ms),
            how: How::Denied(Box::new(denial.clone())),
            deadline: now,
            lines: Box::default(),
            forget_at: TimestampMs(0),
        };
        self.tenant_mut(request.tenant).1.totals.denied += 1;
        self.remember(now, request.tenant, request.id, resolved);
    }
}

fn validate(request: Request<'_>) -> Result<(), String> {
    check::name("tenant", request.tenant)?;
    check::ttl(request.ttl_ms)?;
    if request.charges.is_empty() || request.charges.len() > CHARGES_MAX {
        return Err(format!("a reservation has 1 to {CHARGES_MAX} charges, not {}", request.charges.len()));
    }
    for (index, charge) in request.charges.iter().enumerate() {
        check::name("budget", &charge.budget).map_err(|error| format!("charges[{index}]: {error}"))?;
        check::subject(&charge.subject).map_err(|error| format!("charges[{index}]: {error}"))?;
        if charge.at_least > charge.amount {
            return Err(format!(
                "charges[{index}]: at_least {} is above amount {}",
                charge.at_least, charge.amount
            ));
        }
        let twin = |other: &Charge| other.budget == charge.budget && other.subject == charge.subject;
        if request.charges[..index].iter().any(twin) {
            return Err(format!(
                "charges[{index}]: budget {} and subject {:?} stand there twice",
                charge.budget, charge.subject
            ));
        }
    }
    Ok(())
}
