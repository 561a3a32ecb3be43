//! Sums that hold whatever the order was: never overspent, conserved, and each settlement charged exactly once.

use std::collections::BTreeMap;

use super::accounts::{Asked, Life};
use super::words::{self, Account, Answer, Decision, Line, Snapshot};
use super::{Verdict, Violation};
use crate::history::Outcome;

pub fn check(lives: &[Life]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut lines = Lines::default();
    let mut settled = 0;
    for life in lives {
        overspent(life, &mut lines, &mut verdict);
        settled += exactly_once(life, &mut verdict);
    }
    for (property, number) in [
        ("never overspent: balances", lines.balances),
        ("conserved: accounts in reads", lines.accounts),
        ("nothing stays reserved: accounts", settled),
        ("exactly once: accounts", settled),
    ] {
        verdict.checked.push((property.to_owned(), number));
    }
    verdict
}

/// What was looked at: everything that shows a balance, and of that what also says what is available.
#[derive(Debug, Default)]
struct Lines {
    balances: u64,
    accounts: u64,
}

fn overspent(life: &Life, lines: &mut Lines, verdict: &mut Verdict) {
    let over = overdrafts(life);
    for asked in &life.operations {
        let operation = &asked.operation;
        let mut wrong = |property: &str, detail: String| {
            let detail = format!("tenant {}: {detail}", life.tenant);
            let events = vec![operation.index];
            verdict.violations.push(Violation { property: property.to_owned(), detail, events });
        };
        if let Some(answer) = words::answer::<Answer>(operation) {
            for line in balances(&answer) {
                lines.balances += 1;
                let overdraft = over.get(&line.account).copied().unwrap_or(0);
                if line.spent.saturating_add(line.reserved) > line.limit.saturating_add(overdraft) {
                    wrong("never overspent", format!("{line:?}, where overdraft is at most {overdraft}"));
                }
            }
        } else if let Some(seen) = words::answer::<Snapshot>(operation) {
            for account in &seen.accounts {
                lines.balances += 1;
                lines.accounts += 1;
                let Account { limit, spent, reserved, overdraft, .. } = account;
                let used = spent.saturating_add(*reserved);
                if used > limit.saturating_add(*overdraft) {
                    wrong("never overspent", format!("{account:?}"));
                }
                if account.available != limit.saturating_sub(used) {
                    wrong("conserved", format!("{account:?}"));
                }
            }
        }
    }
}

fn balances(answer: &Answer) -> Vec<&Line> {
    match &answer.decision {
        Decision::Granted { balances, .. } | Decision::Settled { balances, .. } => balances.iter().collect(),
        Decision::Denied(denied) => vec![&denied.short],
        Decision::Released | Decision::Extended { .. } | Decision::Refused { .. } => Vec::new(),
    }
}

/// What is known of one reservation, without knowing the order of anything.
#[derive(Debug, Default)]
struct Known<'a> {
    charges: &'a [words::Charge],
    held: Option<Vec<u64>>,
    /// It may have been made.
    maybe_made: bool,
    settled: Option<&'a [u64]>,
    released: bool,
    /// Ends of which no answer is known.
    maybe_settled: Vec<&'a [u64]>,
    maybe_released: bool,
}

fn known(life: &Life) -> BTreeMap<&str, Known<'_>> {
    let mut known: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for Asked { operation, call } in &life.operations {
        if call.id.is_empty() || operation.outcome == Outcome::Fail {
            continue;
        }
        let one = known.entry(&call.id).or_default();
        let answer: Option<Answer> = words::answer(operation);
        match (operation.f.as_str(), answer.map(|answer| answer.decision)) {
            (words::RESERVE, None) => (one.charges, one.maybe_made) = (&call.charges, true),
            (words::RESERVE, Some(Decision::Granted { balances, .. })) => {
                one.charges = &call.charges;
                one.held = Some(balances.iter().map(|line| line.amount).collect());
            }
            (words::SETTLE, None) => one.maybe_settled.push(&call.actual),
            (words::SETTLE, Some(Decision::Settled { .. })) => one.settled = Some(&call.actual),
            (words::RELEASE, None) => one.maybe_released = true,
            (words::RELEASE, Some(Decision::Released)) => one.released = true,
            _ => {}
        }
    }
    known
}

/// The most that settlements may have charged beyond what was held, for each account.
fn overdrafts(life: &Life) -> BTreeMap<String, u64> {
    let mut over: BTreeMap<String, u64> = BTreeMap::new();
    for one in known(life).values() {
        for actual in one.settled.iter().chain(&one.maybe_settled) {
            for (place, charge) in one.charges.iter().enumerate() {
                let held = one.held.as_ref().and_then(|held| held.get(place)).copied();
                let beyond = actual.get(place).map_or(0, |actual| actual.saturating_sub(held.unwrap_or(0)));
                *over.entry(charge.account.clone()).or_default() += beyond;
            }
        }
    }
    over
}

/// The least and the most that a reservation may have charged in the end, at one of its places.
fn bounds(one: &Known<'_>, place: usize) -> (u64, u64) {
    let at = |amounts: &[u64]| amounts.get(place).copied().unwrap_or(0);
    if let Some(actual) = one.settled {
        return (at(actual), at(actual));
    }
    if one.released {
        return (0, 0);
    }
    let maybe = one.maybe_settled.iter().map(|actual| at(actual));
    let (least, most) = (maybe.clone().min(), maybe.max().unwrap_or(0));
    match &one.held {
        // Nobody ended it: it expired, or an end without an answer came first.
        Some(held) => {
            let least = least.map_or(at(held), |least| least.min(at(held)));
            (if one.maybe_released { 0 } else { least }, most.max(at(held)))
        }
        None if one.maybe_made => (0, most.max(one.charges.get(place).map_or(0, |charge| charge.amount))),
        None => (0, 0),
    }
}

/// After the end of everything, what is spent is the sum of what was acknowledged, and of some of what was not.
fn exactly_once(life: &Life, verdict: &mut Verdict) -> u64 {
    let last = life.operations.iter().rev().find_map(|asked| {
        let is_last = asked.operation.f == words::FINAL_READ;
        words::answer::<Snapshot>(&asked.operation).filter(|_| is_last).map(|seen| (asked, seen))
    });
    let Some((asked, seen)) = last else {
        verdict.not_shown.push(format!("exactly once: tenant {} has no last read", life.tenant));
        return 0;
    };
    let known = known(life);
    for limit in &life.limits {
        let (mut least, mut most) = (0_u64, 0_u64);
        for one in known.values() {
            let places = one.charges.iter().enumerate().filter(|(_, charge)| charge.account == limit.account);
            for (place, _) in places {
                let bounds = bounds(one, place);
                (least, most) = (least.saturating_add(bounds.0), most.saturating_add(bounds.1));
            }
        }
        let account = seen.accounts.iter().find(|account| account.account == limit.account);
        let account = account.cloned().unwrap_or_default();
        let property = if account.reserved > 0 { "nothing stays reserved" } else { "exactly once" };
        if account.reserved > 0 || !(least..=most).contains(&account.spent) {
            let (tenant, name) = (&life.tenant, &limit.account);
            let (spent, reserved) = (account.spent, account.reserved);
            verdict.violations.push(Violation {
                property: property.to_owned(),
                detail: format!(
                    "tenant {tenant}, {name}: acknowledged are {least} to {most}; {spent} are spent, {reserved} reserved"
                ),
                events: vec![asked.operation.index],
            });
        }
    }
    life.limits.len() as u64
}
