//! Safety properties of the sums. Registered in `invariant`.

use std::collections::BTreeMap;

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::period::Period;
use crate::{Amount, Ledger, TimestampMs};

pub(crate) fn never_overspent(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, key, account) in accounts(ledger) {
        for period in account.periods() {
            let used = micros(period.spent) + micros(period.reserved);
            if period.sliding_ms == 0 && is_beyond([period])
                || used > micros(Amount::MAX)
                || period.overdraft > period.spent
            {
                found.push(format!("tenant {tenant}, {key:?}: {period:?}"));
            }
            let slices = stretch(account, period, ledger.time);
            if is_beyond(slices.iter().copied()) {
                found.push(format!("tenant {tenant}, {key:?}: {slices:?}"));
            }
        }
    }
}

/// The slices from `first` on that count at `now` in its sliding window.
fn stretch<'a>(account: &'a Account, first: &Period, now: TimestampMs) -> Vec<&'a Period> {
    let counted = account.counted(first.sliding_ms, first.unit, now);
    let later = counted.filter(|slice| first.sliding_ms > 0 && slice.span >= first.span);
    if first.is_over(now) { Vec::new() } else { later.collect() }
}

fn is_beyond<'a>(periods: impl IntoIterator<Item = &'a Period>) -> bool {
    let (mut used, mut ceiling, mut over) = (0, 0, 0);
    for period in periods {
        used += micros(period.spent) + micros(period.reserved);
        ceiling = ceiling.max(micros(period.ceiling));
        over += micros(period.overdraft) + micros(period.excess());
    }
    used > ceiling + over
}

pub(crate) fn estimate_spent(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, key, account) in accounts(ledger) {
        for period in account.periods().filter(|period| period.estimated() > period.spent) {
            found.push(format!("tenant {tenant}, {key:?}: {period:?}"));
        }
    }
}

pub(crate) fn excess_explained(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, key, account) in accounts(ledger) {
        for period in account.periods().filter(|period| !period.unbound) {
            if !period.excess().is_zero() || period.shadow_denied() > 0 {
                found.push(format!("tenant {tenant}, {key:?}: {period:?}"));
            }
        }
    }
}

pub(crate) fn all_or_nothing(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        let mut held = BTreeMap::new();
        for line in state.open.iter().flat_map(|(_, open)| open.lines.iter()) {
            *held.entry((&line.account, line.window)).or_insert(0_u128) += micros(line.reserved());
        }
        for (key, account) in state.accounts.iter() {
            for period in account.periods() {
                let held = held.remove(&(key, period.number)).unwrap_or(0);
                if held != micros(period.reserved) {
                    found.push(format!("tenant {tenant}, {key:?}: {held} micros are held, {period:?}"));
                }
            }
        }
        found.extend(held.keys().map(|key| format!("tenant {tenant}: {key:?} is held on no account")));
    }
}

pub(crate) fn conserved(ledger: &Ledger, found: &mut Vec<String>) {
    for (tenant, state) in ledger.tenants.iter() {
        let totals = &state.totals;
        let sum = |part: fn(&Period) -> Amount| -> u128 {
            let periods = state.accounts.iter().flat_map(|(_, account)| account.periods());
            periods.map(|period| micros(part(period))).sum()
        };
        let (reserved, spent) = (sum(|period| period.reserved), sum(|period| period.spent));
        if reserved + totals.freed_micros != totals.held_micros {
            found.push(format!("tenant {tenant}: {reserved} micros are reserved, {totals:?}"));
        }
        let gone = totals.taken_back_micros + totals.forgiven_micros + totals.dropped_micros;
        if spent + gone != totals.charged_micros {
            found.push(format!("tenant {tenant}: {spent} micros are spent, {totals:?}"));
        }
    }
}

pub(crate) fn accounts(ledger: &Ledger) -> impl Iterator<Item = (&str, &AccountKey, &Account)> {
    ledger.tenants.iter().flat_map(|(tenant, state)| {
        state.accounts.iter().map(move |(key, account)| (tenant.as_ref(), key, account))
    })
}

fn micros(amount: Amount) -> u128 {
    u128::from(amount.micros())
}
