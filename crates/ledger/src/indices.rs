//! Safety properties of the records and of the indices over them. Registered in `invariant`.

use std::collections::BTreeMap;

use crate::books::accounts;
use crate::tenant::{How, Tenant};
use crate::{ALERTS_MAX, AUDIT_MAX, KEYS_MAX, Ledger, TENANT_ACCOUNTS_MAX};

pub(crate) fn resolved_once(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        for (id, _) in state.open.iter().filter(|(id, _)| state.resolved.contains_key(id)) {
            found.push(format!("tenant {tenant}: reservation {id} is open and resolved"));
        }
        let totals = &state.totals;
        let ended = totals.settled + totals.released + totals.expired;
        if totals.granted + totals.corrected != state.open.len() as u64 + ended {
            found.push(format!("tenant {tenant}: {} open, {totals:?}", state.open.len()));
        }
    }
}

pub(crate) fn indexed(ledger: &Ledger, found: &mut Vec<String>) {
    let (mut remembered, mut looked_at) = (0, 0);
    for (tenant, state) in ledger.tenants.iter() {
        remembered += state.resolved.len();
        if !deadlines_agree(state) {
            found.push(format!("tenant {tenant}: the index of deadlines differs from the open reservations"));
        }
        for (id, resolved) in state.resolved.iter() {
            if !ledger.forgetting.contains_key(&(resolved.forget_at, tenant.clone(), *id)) {
                found.push(format!("tenant {tenant}: {id} would never be forgotten"));
            }
        }
        for (key, account) in state.accounts.iter() {
            let Some(at) = account.look_at else {
                if account.idle_at().is_some() {
                    found.push(format!("tenant {tenant}: {key:?} would never be looked at"));
                }
                continue;
            };
            looked_at += 1;
            if !ledger.looks.contains_key(&(at, tenant.clone(), key.clone())) {
                found.push(format!("tenant {tenant}: {key:?} is not found at {at:?}"));
            }
        }
    }
    let (forgetting, looks) = (ledger.forgetting.len(), ledger.looks.len());
    if remembered != forgetting || looked_at != looks {
        found.push(format!(
            "{remembered} records, {forgetting} to forget; {looked_at} accounts, {looks} looks"
        ));
    }
}

pub(crate) fn bounded(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        let mut counts = BTreeMap::new();
        for (key, _) in state.accounts.iter() {
            *counts.entry(key.budget()).or_insert(0_u32) += 1;
        }
        let counted = state.accounts_by_budget.iter().map(|(budget, count)| (&**budget, *count));
        if !counts.into_iter().eq(counted) || state.accounts.len() > TENANT_ACCOUNTS_MAX {
            found.push(format!("tenant {tenant}: {:?}", state.accounts_by_budget));
        }
    }
    let kept = [
        ("alerts", ledger.alerts.kept.len(), ALERTS_MAX),
        ("audit records", ledger.audit.kept.len(), AUDIT_MAX),
        ("keys", ledger.keys.records.len(), KEYS_MAX),
    ];
    let too_many = kept.iter().filter(|(_, count, max)| count > max);
    found.extend(too_many.map(|(what, count, _)| format!("{count} {what}")));
    let dropping = ledger.keys.records.iter().filter_map(|(id, key)| Some((key.drop_at()?, id.clone())));
    let mut dropping: Vec<_> = dropping.collect();
    dropping.sort();
    if !dropping.iter().eq(ledger.keys.dropping.iter().map(|(key, ())| key)) {
        found.push(format!("keys to drop: {:?}", ledger.keys.dropping));
    }
}

fn deadlines_agree(state: &Tenant) -> bool {
    state.open.len() == state.deadlines.len()
        && state.open.iter().all(|(id, open)| state.deadlines.contains_key(&(open.deadline, *id)))
}

pub(crate) fn referenced(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        let mut references = BTreeMap::new();
        let open = state.open.iter().flat_map(|(_, open)| open.lines.iter());
        let resolved = state.resolved.iter().flat_map(|(_, resolved)| resolved.lines.iter());
        for line in open.chain(resolved) {
            *references.entry((&line.account, line.window)).or_insert(0_u32) += 1;
        }
        for (key, account) in state.accounts.iter() {
            for period in account.periods() {
                let counted = references.remove(&(key, period.number)).unwrap_or(0);
                if counted != period.references {
                    found.push(format!("tenant {tenant}, {key:?}: {counted} refer to {period:?}"));
                }
            }
        }
        found.extend(references.keys().map(|key| format!("tenant {tenant}: {key:?} is gone")));
    }
}

pub(crate) fn time_monotone(ledger: &Ledger, found: &mut Vec<String>) {
    let time = ledger.time;
    for (tenant, state) in ledger.tenants.iter() {
        for (id, open) in state.open.iter() {
            if open.made_at > time
                || open.deadline < open.first_deadline
                || open.first_deadline < open.made_at
            {
                found.push(format!("tenant {tenant}, {id} at {time:?}: {open:?}"));
            }
        }
        for (id, resolved) in state.resolved.iter() {
            // An expiry is never before the first deadline.
            if matches!(resolved.how, How::Expired) && resolved.deadline > time {
                found.push(format!("tenant {tenant}, {id} at {time:?}: {resolved:?}"));
            }
        }
    }
    for (tenant, key, account) in accounts(ledger) {
        let begins_late = account.periods().any(|period| period.span.start > time);
        if begins_late || account.closed.iter().any(|period| period.number == account.present.number) {
            found.push(format!("tenant {tenant}, {key:?} at {time:?}: {account:?}"));
        }
    }
}
