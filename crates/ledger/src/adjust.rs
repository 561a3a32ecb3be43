//! What operators change: the policy, an account; and what gateways report of providers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ledger::Ledger;
use crate::tenant::{Fingerprint, How, Line, Resolved};
use crate::{
    Adjustment, Amount, BudgetRule, Command, Outcome, ProviderReport, ProviderState, ProviderView, Refusal,
    TimestampMs, check,
};

/// A reason is cut at this many bytes.
const REASON_MAX_BYTES: usize = 512;
/// Backends the ledger keeps an opinion of.
const PROVIDERS_MAX: usize = 1_024;
const BUDGETS_MAX: usize = 1_024;

impl Ledger {
    pub(crate) fn put_policy(
        &mut self,
        expected: Option<u64>,
        rules: &[BudgetRule],
        document: &str,
    ) -> Outcome {
        let by_name = match index_rules(rules) {
            Ok(by_name) => by_name,
            Err(message) => return Outcome::Refused(Refusal::Invalid(message)),
        };
        if let Some(expected) = expected.filter(|expected| *expected != self.policy_version) {
            return Outcome::Refused(Refusal::VersionConflict { expected, actual: self.policy_version });
        }
        let changed = self.policy_version == 0 || self.rules != by_name || self.document != document;
        if changed {
            self.policy_version += 1;
            self.rules = by_name;
            document.clone_into(&mut self.document);
        }
        Outcome::PolicyPut { version: self.policy_version, changed }
    }

    pub(crate) fn adjust(&mut self, now: TimestampMs, command: &Command) -> Outcome {
        let Command::AdjustAccount { tenant, id, budget, subject, adjustment } = command else {
            return Outcome::Refused(Refusal::Invalid("not an adjustment".to_owned()));
        };
        let names = check::name("tenant", tenant)
            .and_then(|()| check::name("budget", budget))
            .and_then(|()| check::subject(subject));
        if let Err(message) = names {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let fingerprint = fingerprint(budget, subject, adjustment);
        if let Some(state) = self.tenant_state(tenant) {
            if let Some(known) = state.resolved.get(id) {
                let line = known
                    .lines
                    .first()
                    .filter(|_| matches!(known.how, How::Adjusted) && known.fingerprint == fingerprint);
                let balance = line.and_then(|line| state.balance(line, Amount::ZERO));
                return balance.map_or(Outcome::Refused(Refusal::IdReused { id: *id }), Outcome::Adjusted);
            }
            if state.open.contains_key(id) {
                return Outcome::Refused(Refusal::IdReused { id: *id });
            }
        }
        if let Err(refusal) = check::id_time(*id, now) {
            return Outcome::Refused(refusal);
        }
        let rule = match self.rule_for(tenant, budget) {
            Ok(rule) => rule.clone(),
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let (key, account) = match self.account_rolled(now, tenant, budget, subject) {
            Ok(found) => found,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        match adjustment {
            Adjustment::TopUp(amount) => {
                account.present.topped_up =
                    account.present.topped_up.checked_add(*amount).unwrap_or(Amount::MAX);
            }
            Adjustment::Reset => {
                account.present.spent = Amount::ZERO;
                account.present.overdraft = Amount::ZERO;
                account.present.resets += 1;
            }
            Adjustment::OverrideLimit(limit) => account.limit_override = Some(*limit),
            Adjustment::ClearOverride => account.limit_override = None,
        }
        account.roll(&rule, now);
        account.present.references += 1;
        let (span, resets) = (account.present.span, account.present.resets);
        let balance = account.present.balance(&key, Amount::ZERO);
        let line = Line { account: Arc::new(key), span, held: Amount::ZERO, charged: Amount::ZERO, resets };
        let resolved = Resolved {
            fingerprint,
            how: How::Adjusted,
            deadline: now,
            lines: Box::new([line]),
            forget_at: TimestampMs(0),
        };
        self.remember(now, tenant, *id, resolved);
        Outcome::Adjusted(balance)
    }

    pub(crate) fn report_provider(&mut self, now: TimestampMs, report: &ProviderReport) -> Outcome {
        if let Err(message) =
            check::name("backend", &report.backend).and_then(|()| check::subject(&report.reporter))
        {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let known = self.providers.get(&report.backend);
        if known.is_none() && self.providers.len() >= PROVIDERS_MAX {
            return Outcome::Refused(Refusal::Invalid(format!(
                "the ledger keeps at most {PROVIDERS_MAX} backends"
            )));
        }
        let same_state = known.filter(|known| known.state == report.state);
        let until = (report.state != ProviderState::Healthy && report.retry_after_ms > 0)
            .then(|| now.saturating_add(report.retry_after_ms));
        let view = ProviderView {
            backend: report.backend.clone(),
            state: report.state,
            since: same_state.map_or(now, |known| known.since),
            // The latest request to be left alone counts, and a later one never shortens it.
            until: until.max(same_state.and_then(|known| known.until)),
            reason: cut(&report.reason),
            reporter: report.reporter.clone(),
        };
        let changed = known != Some(&view);
        self.providers.insert(report.backend.clone(), view);
        Outcome::ProviderReported { changed }
    }
}

fn index_rules(rules: &[BudgetRule]) -> Result<BTreeMap<String, BudgetRule>, String> {
    if rules.len() > BUDGETS_MAX {
        return Err(format!("a policy has at most {BUDGETS_MAX} budgets, not {}", rules.len()));
    }
    let mut by_name = BTreeMap::new();
    for rule in rules {
        check::name("budget", &rule.name)?;
        if let Some(tenant) = &rule.tenant {
            check::name("tenant", tenant)?;
        }
        if by_name.insert(rule.name.clone(), rule.clone()).is_some() {
            return Err(format!("budget {} stands twice in the policy", rule.name));
        }
    }
    Ok(by_name)
}

fn fingerprint(budget: &str, subject: &str, adjustment: &Adjustment) -> u64 {
    let mut hash = Fingerprint::new(b"adjust");
    hash.text(budget);
    hash.text(subject);
    let (kind, amount) = match adjustment {
        Adjustment::TopUp(amount) => (0, *amount),
        Adjustment::Reset => (1, Amount::ZERO),
        Adjustment::OverrideLimit(amount) => (2, *amount),
        Adjustment::ClearOverride => (3, Amount::ZERO),
    };
    hash.number(kind);
    hash.number(amount.micros());
    hash.finish()
}

fn cut(reason: &str) -> String {
    let end =
        (0..=reason.len().min(REASON_MAX_BYTES)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason[..end].to_owned()
}
