//! Reserve: granted on all accounts or on none.

use std::sync::Arc;

use crate::account::{Account, AccountKey, Period};
use crate::ledger::Ledger;
use crate::tenant::{Fingerprint, How, Line, Open, Resolved, Tenant};
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
    Grant(Vec<Amount>),
    Deny(Denial),
}

impl Ledger {
    pub(crate) fn reserve(&mut self, now: TimestampMs, request: Request<'_>) -> Outcome {
        match self.consider(now, request) {
            Err(known) => known,
            Ok(Decision::Deny(denial)) => {
                self.remember_denial(now, request, &denial);
                Outcome::Denied(denial)
            }
            Ok(Decision::Grant(amounts)) => self.grant(now, request, &amounts),
        }
    }

    /// See [`Ledger::would_deny`].
    pub(crate) fn consider_denial(&self, now: TimestampMs, request: Request<'_>) -> Option<Denial> {
        match self.consider(now, request) {
            Ok(Decision::Deny(denial)) => Some(denial),
            _ => None,
        }
    }

    /// The decision, or in `Err` what needs none: a replay's first outcome or a refusal.
    fn consider(&self, now: TimestampMs, request: Request<'_>) -> Result<Decision, Outcome> {
        validate(request).map_err(|refusal| Outcome::Refused(Refusal::Invalid(refusal)))?;
        let tenant = self.tenant_state(request.tenant);
        if let Some(outcome) = tenant.and_then(|tenant| replay(tenant, request)) {
            return Err(outcome);
        }
        check::id_time(request.id, now).map_err(Outcome::Refused)?;
        self.decide(now, request, tenant).map_err(Outcome::Refused)
    }

    fn decide(
        &self,
        now: TimestampMs,
        request: Request<'_>,
        tenant: Option<&Tenant>,
    ) -> Result<Decision, Refusal> {
        let mut positions = Vec::with_capacity(request.charges.len());
        for charge in request.charges {
            let rule = self.rule_for(request.tenant, &charge.budget)?;
            positions.push(position(tenant, rule, charge, now));
        }
        for (charge, period) in request.charges.iter().zip(&positions) {
            if period.available() < charge.at_least {
                return Ok(Decision::Deny(denial(tenant, charge, period, now)));
            }
        }
        let share =
            request.charges.iter().zip(&positions).map(|(charge, period)| Share::of(charge, period)).min();
        let share = share.unwrap_or(Share::WHOLE);
        Ok(Decision::Grant(request.charges.iter().map(|charge| share.amount(charge)).collect()))
    }

    fn grant(&mut self, now: TimestampMs, request: Request<'_>, amounts: &[Amount]) -> Outcome {
        let mut lines = Vec::with_capacity(amounts.len());
        let mut balances = Vec::with_capacity(amounts.len());
        for (charge, amount) in request.charges.iter().zip(amounts) {
            let (key, period) =
                match self.account_rolled(now, request.tenant, &charge.budget, &charge.subject) {
                    Ok((key, account)) => (key, &mut account.present),
                    Err(refusal) => return Outcome::Refused(refusal),
                };
            period.reserved = period.reserved.checked_add(*amount).unwrap_or(Amount::MAX);
            period.ceiling = period.ceiling.max(period.limit);
            period.references += 1;
            balances.push(period.balance(&key, *amount));
            let (span, resets) = (period.span, period.resets);
            lines.push(Line { account: Arc::new(key), span, held: *amount, charged: Amount::ZERO, resets });
        }
        let deadline = now.saturating_add(request.ttl_ms);
        let open = Open {
            fingerprint: Fingerprint::of_reserve(request.charges, request.ttl_ms),
            first_deadline: deadline,
            deadline,
            made_at: now,
            lines: lines.into(),
        };
        self.tenant_mut(request.tenant).open_reservation(request.id, open);
        Outcome::Granted(Grant { deadline, balances })
    }

    fn remember_denial(&mut self, now: TimestampMs, request: Request<'_>, denial: &Denial) {
        let resolved = Resolved {
            fingerprint: Fingerprint::of_reserve(request.charges, request.ttl_ms),
            how: How::Denied(Box::new(denial.clone())),
            deadline: now,
            lines: Box::default(),
            forget_at: TimestampMs(0),
        };
        self.tenant_mut(request.tenant).totals.denied += 1;
        self.remember(now, request.tenant, request.id, resolved);
    }
}

/// The first decision on this id, or the refusal of other fields under it.
fn replay(tenant: &Tenant, request: Request<'_>) -> Option<Outcome> {
    let fingerprint = Fingerprint::of_reserve(request.charges, request.ttl_ms);
    let (known, outcome) = if let Some(open) = tenant.open.get(&request.id) {
        (open.fingerprint, granted(tenant, open.first_deadline, &open.lines))
    } else {
        let resolved = tenant.resolved.get(&request.id)?;
        let outcome = match &resolved.how {
            How::Denied(denial) => Outcome::Denied(denial.as_ref().clone()),
            _ => granted(tenant, resolved.deadline, &resolved.lines),
        };
        (resolved.fingerprint, outcome)
    };
    let same = known == fingerprint;
    Some(if same { outcome } else { Outcome::Refused(Refusal::IdReused { id: request.id }) })
}

fn granted(tenant: &Tenant, deadline: TimestampMs, lines: &[Line]) -> Outcome {
    let balances = lines.iter().filter_map(|line| tenant.balance(line, line.held)).collect();
    Outcome::Granted(Grant { deadline, balances })
}

/// The account's present window as it would stand at `now`.
fn position(tenant: Option<&Tenant>, rule: &BudgetRule, charge: &Charge, now: TimestampMs) -> Period {
    let key = AccountKey::new(&charge.budget, &charge.subject);
    match tenant.and_then(|tenant| tenant.accounts.get(&key)) {
        Some(account) => account.present_at(rule, now),
        None => Account::new(rule, now).present,
    }
}

fn denial(tenant: Option<&Tenant>, charge: &Charge, period: &Period, now: TimestampMs) -> Denial {
    let asked = charge.at_least;
    let fits_unspent = period.spent.checked_add(asked).is_some_and(|sum| sum <= period.limit);
    let fits_fresh_window = asked <= period.limit;
    let window_end = period.span.end.filter(|_| fits_fresh_window).map(|end| end.since(now));
    let next_deadline = tenant.and_then(Tenant::next_deadline).filter(|_| fits_unspent);
    let deadline = next_deadline.map(|deadline| deadline.since(now).max(1));
    let key = AccountKey::new(&charge.budget, &charge.subject);
    Denial {
        account: period.balance(&key, Amount::ZERO),
        asked,
        available: period.available(),
        retry_after_ms: [window_end, deadline].into_iter().flatten().min(),
        held_by_reservations: fits_unspent,
    }
}

/// The part of (amount - at_least) that is granted, as an exact fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    numerator: u64,
    denominator: u64,
}

impl Share {
    const WHOLE: Self = Self { numerator: 1, denominator: 1 };

    fn of(charge: &Charge, period: &Period) -> Self {
        let denominator = charge.amount.saturating_sub(charge.at_least).micros();
        let numerator = period.available().saturating_sub(charge.at_least).micros();
        if numerator >= denominator { Self::WHOLE } else { Self { numerator, denominator } }
    }

    fn amount(self, charge: &Charge) -> Amount {
        let span = u128::from(charge.amount.saturating_sub(charge.at_least).micros());
        let part = span * u128::from(self.numerator) / u128::from(self.denominator);
        let part = u64::try_from(part).ok().and_then(|micros| Amount::from_micros(micros).ok());
        charge.at_least.checked_add(part.unwrap_or_default()).unwrap_or(charge.amount)
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let left = u128::from(self.numerator) * u128::from(other.denominator);
        left.cmp(&(u128::from(other.numerator) * u128::from(self.denominator)))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn validate(request: Request<'_>) -> Result<(), String> {
    check::name("tenant", request.tenant)?;
    check::ttl(request.ttl_ms)?;
    if request.charges.is_empty() || request.charges.len() > CHARGES_MAX {
        return Err(format!("a reservation has 1 to {CHARGES_MAX} charges, not {}", request.charges.len()));
    }
    for (index, charge) in request.charges.iter().enumerate() {
        check::name("budget", &charge.budget)?;
        check::subject(&charge.subject)?;
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
