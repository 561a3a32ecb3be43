//! Checks the workload `policy`. Every apply names another limit, so a limit in an answer tells which version decided; it
//! must have been in force at some moment of the operation, and versions follow each other in the order of the log.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::policy::NAME;
use super::sse::Answer;
use super::tally::Tally;
use crate::check::Verdict;
use crate::check::forward::{Reading, back};
pub use crate::check::words::{CHAT, ROLLOUT};
use crate::history::{History, Operation, Outcome};

pub const APPLY: &str = "apply";
pub const VERSIONS: &str = "versions";
pub const RESERVE: &str = "reserve";
pub const SETTLE: &str = "settle";
pub const BUDGET: &str = "policy-limit";
pub const MICROS: u64 = 1_000_000;
/// The limit before anybody changes it, in tokens.
pub const INITIAL: u64 = 100_000;

const AGREES: &str = "each decision agrees with one version in force";
const ORDER: &str = "versions follow each other in the log";
const ABOVE: &str = "no grant above the limit in force";
const ROOM: &str = "no denial where there is room";
const ROLLOUTS: &str = "rollouts are monotone";
const GAPS: &str = "versions have no gaps, and stay";
const ONE: &str = "one of those who expect a version wins";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Its comment in the list of versions.
    pub marker: String,
    /// In tokens; not where it goes back.
    pub limit: u64,
    pub back_to: Option<u64>,
    pub expected: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// `None`: another version was in force than was expected, and nothing was changed.
    pub version: Option<u64>,
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub log_index: u64,
    /// Newest first, with their comments.
    pub versions: Vec<(u64, String)>,
}

/// Amounts in micros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub granted: bool,
    pub log_index: u64,
    pub limit: Option<u64>,
    /// Spent and reserved; of a grant, this reservation included.
    pub taken: u64,
    /// Neither granted nor denied.
    pub other: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub life: u64,
    pub version: u64,
}

/// One version: its limit, and when it can have been in force.
#[derive(Debug, Clone)]
struct Version {
    limit: Option<u64>,
    back_to: Option<u64>,
    /// It was not there before.
    from_us: u64,
    /// It was surely there by then.
    known_us: u64,
    comment: String,
    event: u64,
}

type Known = BTreeMap<u64, Version>;

pub fn check(history: &History) -> Verdict {
    let mut tally = Tally::new([AGREES, ORDER, ABOVE, ROOM, ROLLOUTS, GAPS, ONE]);
    let operations = history.operations(NAME);
    let mut known = lists(&mut tally, &operations);
    applies(&mut tally, &operations, &mut known);
    limits(&mut known);
    decisions(&mut tally, &operations, &known);
    rollouts(&mut tally, &operations, &known);
    tally.verdict()
}

/// What the lists of versions say, and whether they agree.
fn lists(tally: &mut Tally, operations: &[Operation]) -> Known {
    let mut known = Known::new();
    let mut newest: Vec<Reading> = Vec::new();
    let mut reads = Vec::new();
    for operation in operations.iter().filter(|operation| operation.f == VERSIONS) {
        let Outcome::Ok(value) = &operation.outcome else { continue };
        reads.extend(tally.read::<Versions>(value, operation.index).map(|read| (operation, read)));
    }
    if reads.is_empty() {
        tally.not_shown("the versions were never listed");
    }
    for (operation, read) in &reads {
        tally.checked(GAPS);
        for pair in read.versions.windows(2) {
            if pair[0].0 != pair[1].0 + 1 {
                let detail = format!("version {} stands before {}", pair[0].0, pair[1].0);
                tally.violation(GAPS, detail, vec![operation.index]);
            }
        }
        let first = read.versions.first().map_or(0, |(version, _)| *version);
        newest.push(Reading {
            invoked_us: operation.invoked_us,
            completed_us: operation.completed_us,
            value: first,
            event: operation.index,
        });
        for (version, comment) in &read.versions {
            let one = known.entry(*version).or_insert_with(|| Version {
                limit: None,
                back_to: None,
                from_us: 0,
                known_us: operation.completed_us,
                comment: comment.clone(),
                event: operation.index,
            });
            one.known_us = one.known_us.min(operation.completed_us);
            if one.comment != *comment {
                let detail = format!("version {version} was {:?} and is {comment:?}", one.comment);
                tally.violation(GAPS, detail, vec![one.event, operation.index]);
            }
        }
    }
    for (before, after) in back(newest) {
        let detail = format!("version {} was in force, and a later read has {}", before.value, after.value);
        tally.violation(GAPS, detail, vec![before.event, after.event]);
    }
    known
}

/// Who made which version; who lost.
fn applies(tally: &mut Tally, operations: &[Operation], known: &mut Known) {
    let by_comment: HashMap<String, u64> =
        known.iter().map(|(version, one)| (one.comment.clone(), *version)).collect();
    let mut winners: HashMap<u64, u64> = HashMap::new();
    let mut losers = Vec::new();
    for operation in operations.iter().filter(|operation| operation.f == APPLY) {
        let Some(call) = tally.read::<Apply>(&operation.call, operation.index) else { continue };
        let listed = by_comment.get(&call.marker).copied();
        let answered = match &operation.outcome {
            Outcome::Unknown => None,
            Outcome::Fail => Some(Applied { version: None, changed: false }),
            Outcome::Ok(value) => tally.read::<Applied>(value, operation.index),
        };
        let version = match &answered {
            Some(Applied { version: Some(version), changed: true }) => Some(*version),
            Some(Applied { version: None, .. }) => {
                tally.checked(ONE);
                if let Some(listed) = listed {
                    let detail = format!("{} was refused, and is version {listed}", call.marker);
                    tally.violation(ONE, detail, vec![operation.index]);
                }
                if let (Some(expected), Outcome::Ok(_)) = (call.expected, &operation.outcome) {
                    losers.push((operation, expected));
                }
                listed
            }
            // Nothing to change.
            Some(_) => continue,
            None => listed,
        };
        let Some(version) = version else { continue };
        if answered.is_some() && listed.is_some_and(|listed| listed != version) {
            let detail = format!("{} was answered with {version}, and is version {listed:?}", call.marker);
            tally.violation(GAPS, detail, vec![operation.index]);
        }
        if let Some(expected) = call.expected {
            tally.checked(ONE);
            let other = winners.insert(expected, operation.index);
            if version != expected + 1 || other.is_some() {
                let detail = format!("{} expected {expected} and became {version}", call.marker);
                tally.violation(ONE, detail, other.into_iter().chain([operation.index]).collect());
            }
        }
        let one = known.entry(version).or_insert_with(|| Version {
            limit: None,
            back_to: None,
            from_us: 0,
            known_us: operation.completed_us,
            comment: call.marker.clone(),
            event: operation.index,
        });
        if one.comment != call.marker {
            let detail = format!("{} and {} are both version {version}", one.comment, call.marker);
            tally.violation(ONE, detail, vec![one.event, operation.index]);
            continue;
        }
        one.known_us = one.known_us.min(operation.completed_us);
        (one.from_us, one.back_to) = (operation.invoked_us, call.back_to);
        one.limit = call.back_to.is_none().then_some(call.limit * MICROS);
    }
    for (operation, expected) in losers {
        let beaten = known.range(expected + 1..).any(|(_, other)| other.from_us <= operation.completed_us);
        if !beaten {
            let detail = format!("version {expected} was expected and refused, and no other was there");
            tally.violation(ONE, detail, vec![operation.index]);
        }
    }
}

/// Those of others, and the first, change nothing here; who goes back has the limit of then.
fn limits(known: &mut Known) {
    let mut limits: BTreeMap<u64, u64> = BTreeMap::new();
    for (version, one) in known.iter_mut() {
        let before = limits.last_key_value().map_or(INITIAL * MICROS, |(_, limit)| *limit);
        let limit = match (one.limit, one.back_to) {
            (Some(limit), _) => limit,
            (None, Some(earlier)) => limits.get(&earlier).copied().unwrap_or(before),
            (None, None) => before,
        };
        one.limit = Some(limit);
        limits.insert(*version, limit);
    }
}

/// Until when each version can have been in force: the next was surely there by then.
fn ends(known: &Known) -> BTreeMap<u64, u64> {
    let mut next_us = u64::MAX;
    let mut ends = BTreeMap::new();
    for (version, one) in known.iter().rev() {
        ends.insert(*version, next_us);
        next_us = next_us.min(one.known_us);
    }
    ends
}

fn decisions(tally: &mut Tally, operations: &[Operation], known: &Known) {
    let ends = ends(known);
    // Versions with this limit that can have been in force during an operation, in ascending order.
    let candidates = |operation: &Operation, limit: u64| -> Vec<u64> {
        let fits = |(version, one): &(&u64, &Version)| {
            one.limit == Some(limit)
                && one.from_us <= operation.completed_us
                && operation.invoked_us <= ends.get(version).copied().unwrap_or(u64::MAX)
        };
        known.iter().filter(fits).map(|(version, _)| *version).collect()
    };
    let mut in_log = Vec::new();
    for operation in operations.iter().filter(|operation| operation.f == RESERVE || operation.f == CHAT) {
        let Outcome::Ok(value) = &operation.outcome else { continue };
        let (limit, decision) = if operation.f == CHAT {
            let Some(answer) = tally.read::<Answer>(value, operation.index) else { continue };
            (answer.limit.map(|tokens| tokens * MICROS), None)
        } else {
            let Some(decision) = tally.read::<Decision>(value, operation.index) else { continue };
            (decision.limit, Some(decision))
        };
        let Some(limit) = limit else { continue };
        tally.checked(AGREES);
        let candidates = candidates(operation, limit);
        if candidates.is_empty() {
            let detail = format!("{}: limit {limit} is of no version that was in force", operation.f);
            tally.violation(AGREES, detail, vec![operation.index]);
        }
        let Some(decision) = decision else { continue };
        if decision.granted {
            tally.checked(ABOVE);
            if decision.taken > limit {
                let detail = format!("granted up to {} of {limit}", decision.taken);
                tally.violation(ABOVE, detail, vec![operation.index]);
            }
        } else if let Some(asked) = tally.read::<u64>(&operation.call, operation.index) {
            tally.checked(ROOM);
            if decision.taken.saturating_add(asked) <= limit {
                let detail = format!("{asked} was denied with {} of {limit} taken", decision.taken);
                tally.violation(ROOM, detail, vec![operation.index]);
            }
        }
        if decision.log_index > 0 && !candidates.is_empty() {
            in_log.push((decision.log_index, operation.index, limit, candidates));
        }
    }
    // Of one entry the answers do not tell the order: the earlier version may have come first.
    in_log.sort_by_key(|(log_index, _, _, candidates)| (*log_index, candidates[0]));
    // The lowest that is possible: it leaves the most to those that follow.
    let (mut version, mut since) = (0, 0);
    for (log_index, event, limit, candidates) in in_log {
        tally.checked(ORDER);
        match candidates.iter().find(|candidate| **candidate >= version) {
            Some(candidate) if *candidate > version => (version, since) = (*candidate, event),
            Some(_) => {}
            None => {
                let detail = format!(
                    "limit {limit} (of {candidates:?}) at log index {log_index}, after a decision by version {version}"
                );
                tally.violation(ORDER, detail, vec![since, event]);
            }
        }
    }
}

fn rollouts(tally: &mut Tally, operations: &[Operation], known: &Known) {
    let mut last: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
    for operation in operations.iter().filter(|operation| operation.f == ROLLOUT) {
        let (Outcome::Ok(value), Some(gateway)) = (&operation.outcome, operation.call.as_u64()) else {
            continue;
        };
        let Some(running) = tally.read::<Running>(value, operation.index) else { continue };
        tally.checked(ROLLOUTS);
        let earlier = last.insert((gateway, running.life), (running.version, operation.index));
        if let Some((version, event)) = earlier.filter(|(version, _)| *version > running.version) {
            let detail = format!("gateway-{} ran {version}, then {}", gateway + 1, running.version);
            tally.violation(ROLLOUTS, detail, vec![event, operation.index]);
        }
        let made = known.get(&running.version).is_none_or(|one| one.from_us <= operation.completed_us);
        let newest = known.last_key_value().map_or(0, |(version, _)| *version);
        if !made || running.version > newest {
            let detail =
                format!("gateway-{} runs {}, which nobody has made yet", gateway + 1, running.version);
            tally.violation(ROLLOUTS, detail, vec![operation.index]);
        }
    }
}

#[cfg(test)]
#[path = "policy_check_tests.rs"]
mod tests;
