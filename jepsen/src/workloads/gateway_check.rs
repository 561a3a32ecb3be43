//! Checks the workload `gateway` against the provider's own record: what was charged is what was served.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::account_reads::{ACCOUNTS, FINAL, WindowSnapshot};
use super::gateway::Variant;
use super::gateway_loss::Losses;
use super::provider_record::{COMPLETE, LOST, SERVED, Served};
use super::sse::{Answer, End};
use super::tally::Tally;
use crate::check::Verdict;
use crate::check::faults::spells;
pub use crate::check::words::CHAT;
use crate::history::{History, Operation, Outcome};

pub const MODEL: &str = "gpt-4o";
/// What the gateway adds to the bytes of one short message: docs/gateway.md, "What is charged".
const OVERHEAD_TOKENS: u64 = 64;
const MICROS: u64 = 1_000_000;
/// Slices that a gateway held when it was killed are still held so soon after it has come back.
const HELD_US: u64 = 5_000_000;

const EXACT: &str = "charged = served";
const ONCE: &str = "served at most once";
const FREE: &str = "refused is not served";
pub const COVERED: &str = "charged covers what was cut off";
pub const OVERSPENT: &str = "never above the limit";
pub const RESOLVED: &str = "all reservations resolved";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub marker: String,
    pub user: String,
    pub gateway: u64,
    pub stream: bool,
    pub prompt_bytes: u64,
    pub max_tokens: u64,
    pub leave_after: Option<u64>,
}

impl Call {
    /// At most so many tokens are reserved for it.
    fn bound(&self) -> u64 {
        self.prompt_bytes + OVERHEAD_TOKENS + self.max_tokens
    }
}

/// What may have been charged for a request, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

impl Range {
    pub fn exactly(tokens: u64) -> Self {
        Self { least: tokens, most: tokens }
    }
}

pub fn check(history: &History, variant: &Variant) -> Verdict {
    let mut tally = Tally::new([EXACT, ONCE, FREE, COVERED, OVERSPENT, RESOLVED]);
    let events = || history.events.iter().filter(|event| event.workload == variant.name);
    let has_lost = events().any(|event| event.f == LOST);
    if has_lost {
        tally.not_shown("the provider's record lost requests before they were seen");
    }
    let is_read = events().any(|event| event.f == COMPLETE);
    if !is_read {
        tally.not_shown("the provider's record was not read to its end");
    }
    let mut served: HashMap<String, Vec<(u64, Served)>> = HashMap::new();
    for event in events().filter(|event| event.f == SERVED) {
        if let Some(call) = tally.read::<Served>(&event.value, event.index) {
            served.entry(call.marker.clone()).or_default().push((event.index, call));
        }
    }
    let losses = Losses::new(&spells(history));
    // The slices of a killed gateway are charged whole, and cover what its requests held.
    let (slices, excused) =
        if variant.leases { (losses.of_slices(), Losses::default()) } else { (Vec::new(), losses) };
    let operations = history.operations(variant.name);
    let mut users: BTreeMap<String, Vec<(u64, Range)>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.f == CHAT) {
        let Some(call) = tally.read::<Call>(&operation.call, operation.index) else { continue };
        let calls = served.remove(&call.marker).unwrap_or_default();
        if calls.is_empty() && (has_lost || !is_read) {
            // It may have been served.
            let range = Range { least: 0, most: call.bound() };
            users.entry(call.user).or_default().push((operation.index, range));
            continue;
        }
        let range = request(&mut tally, operation, &call, &calls, &excused);
        users.entry(call.user).or_default().push((operation.index, range));
    }
    for (marker, calls) in served {
        let events = calls.into_iter().map(|(index, _)| index).collect();
        tally.violation(ONCE, format!("{marker} was served, and nobody had asked for it"), events);
    }
    accounts(&mut tally, &operations, &users, variant.life, &slices);
    tally.verdict()
}

/// One request, by its answer; what it may have cost.
fn request(
    tally: &mut Tally,
    operation: &Operation,
    call: &Call,
    calls: &[(u64, Served)],
    losses: &Losses,
) -> Range {
    let events = || std::iter::once(operation.index).chain(calls.iter().map(|(index, _)| *index)).collect();
    let tokens: u64 = calls.iter().map(|(_, call)| call.input + call.output).sum();
    let input: u64 = calls.iter().map(|(_, call)| call.input).sum();
    let bound = Range { least: tokens, most: call.bound() };
    tally.checked(ONCE);
    if calls.len() > 1 {
        let detail = format!("{} reached the provider {} times", call.marker, calls.len());
        tally.violation(ONCE, detail, events());
    }
    let answer: Answer = match &operation.outcome {
        Outcome::Unknown => return bound,
        Outcome::Fail => {
            tally.checked(FREE);
            if !calls.is_empty() {
                tally.violation(FREE, format!("{} was never sent, and was served", call.marker), events());
            }
            return Range::default();
        }
        Outcome::Ok(value) => match tally.read(value, operation.index) {
            Some(answer) => answer,
            None => return bound,
        },
    };
    match (answer.status, answer.end) {
        (200, End::Whole) => {
            tally.checked(EXACT);
            if answer.charged != Some(tokens) || answer.usage.is_some_and(|usage| usage != tokens) {
                let detail = format!(
                    "{}: {tokens} tokens were served; the answer says {:?} charged and {:?} used",
                    call.marker, answer.charged, answer.usage
                );
                tally.violation(EXACT, detail, events());
            }
            // Perhaps before its settlement, and the reservation has expired.
            let is_open = losses.may_lose(operation, call.gateway);
            Range { least: tokens, most: if is_open { bound.most } else { tokens } }
        }
        // What was still on its way to the gateway when the client left is not charged.
        (200, End::Left) => Range { least: input + answer.received, ..bound },
        // The provider broke off, as far as its gateway can tell: the input, and what came.
        (200, End::Broken) | (408 | 500 | 502 | 504, _) => Range { least: 0, ..bound },
        (status, _) => {
            tally.checked(FREE);
            if !calls.is_empty() {
                let detail = format!("{} was refused ({status} {}) and sent on", call.marker, answer.code);
                tally.violation(FREE, detail, events());
            }
            Range::default()
        }
    }
}

/// What the accounts show, and each user is charged by the end. `life`: the budget that everything is in; `slices`: from when
/// to when gateways were ended that could not return theirs.
pub fn accounts(
    tally: &mut Tally,
    operations: &[Operation],
    users: &BTreeMap<String, Vec<(u64, Range)>>,
    life: &str,
    slices: &[(u64, u64)],
) {
    let mut last = None;
    let mut held = Held::new();
    for operation in operations.iter().filter(|operation| operation.f == ACCOUNTS || operation.f == FINAL) {
        let Outcome::Ok(value) = &operation.outcome else { continue };
        let Some(snapshot) = tally.read::<WindowSnapshot>(value, operation.index) else { continue };
        for account in &snapshot.accounts {
            if account.budget == life {
                let seen = (operation.invoked_us, operation.completed_us, account.present.reserved);
                held.entry(account.subject.clone()).or_default().push(seen);
            }
            for span in std::iter::once(&account.present).chain(&account.closed) {
                tally.checked(OVERSPENT);
                if span.is_overspent() || span.overdraft > 0 {
                    let detail = format!("{} {}: {span:?}", account.budget, account.subject);
                    tally.violation(OVERSPENT, detail, vec![operation.index]);
                }
            }
        }
        if operation.f == FINAL {
            last = Some((operation.index, snapshot));
        }
    }
    let Some((index, last)) = last else {
        tally.not_shown("the accounts were not read at the end");
        return;
    };
    for account in &last.accounts {
        tally.checked(RESOLVED);
        let held =
            std::iter::once(&account.present).chain(&account.closed).map(|span| span.reserved).sum::<u64>();
        if held > 0 {
            let detail = format!("{} {} still holds {held} micros", account.budget, account.subject);
            tally.violation(RESOLVED, detail, vec![index]);
        }
    }
    for (user, ranges) in users {
        let account = last.accounts.iter().find(|seen| seen.budget == life && &seen.subject == user);
        let spent = account.map_or(0, |seen| seen.present.spent);
        let sum = |part: fn(&Range) -> u64| ranges.iter().map(|(_, range)| part(range)).sum::<u64>() * MICROS;
        let (least, most) = (sum(|range| range.least), sum(|range| range.most));
        let most = most + held.get(user).map_or(0, |reads| lost(reads, slices));
        tally.checked(COVERED);
        if !(least..=most).contains(&spent) {
            let unclear =
                ranges.iter().filter(|(_, range)| range.least != range.most).map(|(index, _)| *index);
            let detail = format!("{user} was charged {spent} micros, and was served {least} to {most}");
            tally.violation(COVERED, detail, std::iter::once(index).chain(unclear.take(20)).collect());
        }
    }
}

/// Of each user: when its reads began and ended, and what they showed as held.
type Held = HashMap<String, Vec<(u64, u64, u64)>>;

/// At most so much can have been lost in slices: each time, the most that was held from then on until a while after the
/// gateway has come back; where nobody could read that, the most that ever was.
fn lost(reads: &[(u64, u64, u64)], slices: &[(u64, u64)]) -> u64 {
    let most = |from_us: u64, to_us: u64| {
        let met = reads.iter().filter(|(began_us, ended_us, _)| *ended_us >= from_us && *began_us <= to_us);
        met.map(|(_, _, held)| *held).max()
    };
    let ever = most(0, u64::MAX).unwrap_or(0);
    let of = |(from_us, to_us): &(u64, u64)| most(*from_us, to_us.saturating_add(HELD_US)).unwrap_or(ever);
    slices.iter().map(of).sum()
}

#[cfg(test)]
#[path = "gateway_check_tests.rs"]
mod tests;
