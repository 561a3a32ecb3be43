//! Reserve: granted on all accounts or on none.

use crate::denial::Place;
use crate::fingerprint::Fingerprint;
use crate::ledger::Ledger;
use crate::share::Share;
use crate::tenant::{How, Line, Open, Resolved};
use crate::{
    Amount, CHARGES_MAX, Charge, Denial, Enforcement, Grant, Outcome, Refusal, ReservationId, TimestampMs,
    check,
};

/// A Reserve as asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub tenant: &'a str,
    pub id: ReservationId,
    pub charges: &'a [Charge],
    pub ttl_ms: u64,
    pub wait: bool,
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
                if !(request.wait && denial.held_by_reservations) {
                    self.remember_denial(now, request, &denial);
                }
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
        let mut rules = Vec::with_capacity(request.charges.len());
        for charge in request.charges {
            rules.push(self.policy.rule_or_refusal(request.tenant, &charge.budget)?);
        }
        let charges = request.charges.iter().zip(rules);
        let places: Vec<Place<'_>> =
            charges.map(|(charge, rule)| self.place(now, request.tenant, charge, rule)).collect();
        self.check_new_accounts(request, &places)?;
        let mut share = Share::WHOLE;
        for place in &places {
            if place.is_short() {
                return Ok(Decision::Deny(place.denial(now, self.tenant_state(request.tenant))));
            }
            if place.rule.enforcement.binds() {
                share = share.min(Share::of(place.charge, place.standing.available()));
            }
        }
        let amounts: Vec<Amount> = request.charges.iter().map(|charge| share.amount(charge)).collect();
        places.iter().zip(&amounts).try_for_each(|(place, amount)| countable(place, *amount))?;
        Ok(Decision::Grant(amounts))
    }

    fn check_new_accounts(&self, request: Request<'_>, places: &[Place<'_>]) -> Result<(), Refusal> {
        let is_new = |place: &&Place<'_>| place.account.is_none();
        for (index, place) in places.iter().enumerate().filter(|(_, place)| is_new(place)) {
            let so_far = places[..=index].iter().filter(is_new);
            let of_budget = so_far.clone().filter(|other| other.rule.name == place.rule.name).count();
            self.check_room(request.tenant, place.rule, of_budget, so_far.count())?;
        }
        Ok(())
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
            let (rule, touched) = self.touch(now, request.tenant, &charge.budget, &charge.subject)?;
            let (enforcement, account) = (rule.enforcement, touched.account);
            let window = account.present.number;
            if enforcement == Enforcement::Shadow {
                let available = account.rolled_standing(now).available();
                account.present.pass_shadow(charge.at_least, *amount, available);
            }
            account.present.take(*amount, enforcement);
            balances.push(account.rolled_standing(now).balance(&touched.key, *amount));
            lines.push(Line {
                account: touched.key,
                window,
                resets: account.present.resets,
                enforcement,
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

/// What no limit bounds must still be counted exactly.
fn countable(place: &Place<'_>, amount: Amount) -> Result<(), Refusal> {
    let used = place.standing.spent.checked_add(place.standing.reserved);
    if place.rule.enforcement == Enforcement::Shadow
        && used.and_then(|used| used.checked_add(amount)).is_none()
    {
        return Err(Refusal::Invalid(format!(
            "{amount}: account {} {:?} cannot count beyond {}",
            place.charge.budget,
            place.charge.subject,
            Amount::MAX
        )));
    }
    Ok(())
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
