//! AdjustAccount: what an operator changes on one account, once per id.

use crate::account::Account;
use crate::fingerprint::Fingerprint;
use crate::tenant::{How, Line, Resolved, Totals};
use crate::{
    Adjustment, Amount, AuditAction, Balance, Ledger, Outcome, Refusal, ReservationId, TimestampMs, check,
};

/// An AdjustAccount as asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdjustRequest<'a> {
    pub tenant: &'a str,
    pub id: ReservationId,
    pub budget: &'a str,
    pub subject: &'a str,
    pub adjustment: &'a Adjustment,
    pub by: &'a str,
}

impl Ledger {
    pub(crate) fn adjust(&mut self, now: TimestampMs, request: AdjustRequest<'_>) -> Outcome {
        match self.try_adjust(now, request) {
            Ok(balance) => Outcome::Adjusted(balance),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn try_adjust(&mut self, now: TimestampMs, request: AdjustRequest<'_>) -> Result<Balance, Refusal> {
        validate(request).map_err(Refusal::Invalid)?;
        if let Some(known) = self.adjusted_before(now, request) {
            return known;
        }
        check::id_time(request.id, now)?;
        self.check_change(now, request)?;
        let fingerprint = Fingerprint::of_adjustment(request.budget, request.subject, request.adjustment);
        let (rule, touched) = self.touch(now, request.tenant, request.budget, request.subject)?;
        let (key, account) = (touched.key, touched.account);
        change(account, touched.totals, request.adjustment, now);
        touched.totals.dropped_micros += account.roll(rule, now);
        account.present.references += 1;
        let balance = account.rolled_standing(now).balance(&key, Amount::ZERO);
        let line = Line {
            account: key,
            window: account.present.number,
            resets: account.present.resets,
            enforcement: rule.enforcement,
            held: Amount::ZERO,
            charged: Amount::ZERO,
        };
        let resolved = Resolved {
            fingerprint,
            how: How::Adjusted,
            deadline: now,
            lines: Box::new([line]),
            forget_at: TimestampMs(0),
        };
        self.remember(now, request.tenant, request.id, resolved);
        let subject =
            format!("tenant {}, budget {}, subject {:?}", request.tenant, request.budget, request.subject);
        let detail = request.adjustment.to_string();
        self.audit.record(now, request.by, AuditAction::AdjustAccount, subject, detail);
        Ok(balance)
    }

    /// The answer to a replay, or the refusal of an id that was used for something else.
    fn adjusted_before(
        &self,
        now: TimestampMs,
        request: AdjustRequest<'_>,
    ) -> Option<Result<Balance, Refusal>> {
        let tenant = self.tenant_state(request.tenant)?;
        let reused = Some(Err(Refusal::IdReused { id: request.id }));
        if tenant.open.contains_key(&request.id) {
            return reused;
        }
        let known = tenant.resolved.get(&request.id)?;
        let print = Fingerprint::of_adjustment(request.budget, request.subject, request.adjustment);
        if !matches!(known.how, How::Adjusted) || known.fingerprint != print {
            return reused;
        }
        let line = known.lines.first()?;
        Some(Ok(self.balance(now, request.tenant, tenant, line, Amount::ZERO)?))
    }

    /// What could not be kept whole is refused: another account, a top-up, one more reset.
    fn check_change(&self, now: TimestampMs, request: AdjustRequest<'_>) -> Result<(), Refusal> {
        let rule = self.policy.rule_or_refusal(request.tenant, request.budget)?;
        let account = self.account_state(request.tenant, request.budget, request.subject);
        if account.is_none() {
            self.check_room(request.tenant, rule, 1, 1)?;
        }
        let limit = account.map_or(rule.limit, |account| account.standing(rule, now).limit);
        let resets = |account: &Account| account.periods().map(|period| period.resets).max();
        match request.adjustment {
            Adjustment::TopUp(amount) if limit.checked_add(*amount).is_none() => Err(Refusal::Invalid(
                format!("a top-up of {amount} raises the limit {limit} above {}", Amount::MAX),
            )),
            Adjustment::Reset if account.and_then(resets) == Some(u16::MAX) => {
                Err(Refusal::Invalid(format!("an account is reset at most {} times in a window", u16::MAX)))
            }
            _ => Ok(()),
        }
    }
}

fn validate(request: AdjustRequest<'_>) -> Result<(), String> {
    check::by(request.by)?;
    check::name("tenant", request.tenant)?;
    check::name("budget", request.budget)?;
    check::subject(request.subject)
}

fn change(account: &mut Account, totals: &mut Totals, adjustment: &Adjustment, now: TimestampMs) {
    match adjustment {
        Adjustment::TopUp(amount) => {
            let raised = account.present.topped_up.checked_add(*amount);
            account.present.topped_up = raised.unwrap_or(Amount::MAX);
        }
        Adjustment::Reset => {
            totals.forgiven_micros += account.reset(now);
        }
        Adjustment::OverrideLimit(limit) => account.limit_override = Some(*limit),
        Adjustment::ClearOverride => account.limit_override = None,
    }
}
