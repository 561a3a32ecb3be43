//! Checks the workload `windows`: at every read, each window has exactly what the reservations made in it took, as far as
//! they were decided at that point of the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use quorate_ledger::{TimestampMs, Window};
use serde::{Deserialize, Serialize};

use super::account_reads::{ACCOUNTS, FINAL, Seen, Span, WindowSnapshot};
use super::tally::Tally;
use super::windows::NAME;
use crate::check::Verdict;
use crate::history::{History, Operation, Outcome};

pub const RESERVE: &str = "reserve";
pub const SETTLE: &str = "settle";
pub const RELEASE: &str = "release";
pub const MICROS: u64 = 1_000_000;
/// Their windows: a second, a minute, and five seconds that slide.
pub const BUDGETS: [&str; 3] = ["windows-second", "windows-minute", "windows-sliding"];
const CALENDAR: [(&str, Window); 2] = [(BUDGETS[0], Window::Second), (BUDGETS[1], Window::Minute)];
const SLIDING_MS: u64 = 5_000;
/// How the reason begins of what was denied, not refused.
pub const DENIED: &str = "denied";

const OWN: &str = "each settlement in the window of its reservation";
const OVERSPENT: &str = "no window above its limit";
const TIME: &str = "ledger time never goes back";
const ALIGNED: &str = "windows are disjoint and on UTC boundaries";
const NAMED: &str = "an answer names the window it is of";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    pub id: String,
    pub subject: String,
    /// Micros, on each budget.
    pub amount: u64,
    pub ttl_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// `None`: not granted.
    pub deadline_ms: Option<u64>,
    pub why: String,
    pub log_index: u64,
    /// More than one: an earlier one may have been decided, at an earlier place in the log.
    pub tries: u32,
    /// By budget: when its window ends.
    pub resets: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    pub id: String,
    /// `None`: released.
    pub actual: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    pub done: bool,
    pub why: String,
    pub log_index: u64,
    pub tries: u32,
}

/// When something was decided, as a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    At(u64),
    /// Here or earlier.
    By(u64),
    Unknown,
}

impl Place {
    fn of(log_index: u64, tries: u32) -> Self {
        if tries > 1 { Self::By(log_index) } else { Self::At(log_index) }
    }

    /// `None`: perhaps.
    fn is_at(self, index: u64) -> Option<bool> {
        match self {
            Self::At(place) => Some(place <= index),
            Self::By(place) if place <= index => Some(true),
            Self::By(_) | Self::Unknown => None,
        }
    }
}

#[derive(Debug)]
struct Reservation {
    event: u64,
    subject: String,
    amount: u64,
    /// When it was granted, by the ledger's time; of one that nobody knows of, the earliest that it can be.
    at: TimestampMs,
    granted: Place,
    /// What it ended with, if anybody tried.
    resolved: Option<(u64, Place)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Range {
    least: u64,
    most: u64,
}

impl Reservation {
    /// What it takes of its windows at a point of the log. An expiry does not change that.
    fn taken(&self, index: u64) -> Range {
        let held = match self.resolved {
            None => Range { least: self.amount, most: self.amount },
            Some((actual, place)) => match place.is_at(index) {
                Some(true) => Range { least: actual, most: actual },
                Some(false) => Range { least: self.amount, most: self.amount },
                None => Range { least: actual.min(self.amount), most: actual.max(self.amount) },
            },
        };
        match self.granted.is_at(index) {
            Some(true) => held,
            Some(false) => Range::default(),
            None => Range { least: 0, ..held },
        }
    }
}

pub fn check(history: &History) -> Verdict {
    let mut tally = Tally::new([OWN, OVERSPENT, TIME, ALIGNED, NAMED]);
    let operations = history.operations(NAME);
    let mut snapshots = Vec::new();
    for operation in operations.iter().filter(|operation| operation.f == ACCOUNTS || operation.f == FINAL) {
        let Outcome::Ok(value) = &operation.outcome else { continue };
        snapshots.extend(tally.read::<WindowSnapshot>(value, operation.index).map(|read| (operation, read)));
    }
    if !snapshots.iter().any(|(operation, _)| operation.f == FINAL) {
        tally.not_shown("the accounts were not read at the end");
    }
    let reservations = reservations(&mut tally, &operations, &snapshots);
    let mut by_subject: HashMap<&str, Vec<&Reservation>> = HashMap::new();
    for reservation in &reservations {
        by_subject.entry(&reservation.subject).or_default().push(reservation);
    }
    // By time, so that a window is a piece of them.
    for of_subject in by_subject.values_mut() {
        of_subject.sort_by_key(|reservation| reservation.at);
    }
    for (operation, snapshot) in &snapshots {
        for account in &snapshot.accounts {
            let nobody = Vec::new();
            let of_subject = by_subject.get(account.subject.as_str()).unwrap_or(&nobody);
            judge(&mut tally, operation, snapshot, account, of_subject);
        }
        for (subject, of_subject) in &by_subject {
            for (budget, window) in CALENDAR {
                shown(&mut tally, operation, snapshot, (budget, subject), window, of_subject);
            }
        }
    }
    tally.verdict()
}

/// A window in which something surely was reserved, and which is not over, is there.
fn shown(
    tally: &mut Tally,
    operation: &Operation,
    snapshot: &WindowSnapshot,
    account: (&str, &str),
    window: Window,
    reservations: &[&Reservation],
) {
    let is_over = |one: &Reservation| window.span_at(one.at).end.is_none_or(|end| end.0 <= snapshot.time_ms);
    let there = reservations.iter().rev().take_while(|one| one.granted == Place::Unknown || !is_over(one));
    let mut sure = there.filter(|one| one.granted.is_at(snapshot.log_index) == Some(true));
    let Some(one) = sure.next() else { return };
    let start_ms = window.span_at(one.at).start.0;
    let seen = snapshot.accounts.iter().find(|seen| (&*seen.budget, &*seen.subject) == account);
    let mut spans = seen.into_iter().flat_map(|seen| std::iter::once(&seen.present).chain(&seen.closed));
    if !spans.any(|span| span.start_ms == start_ms) {
        let detail = format!("{account:?}: the window from {start_ms} is missing at {}", snapshot.time_ms);
        tally.violation(OWN, detail, vec![operation.index, one.event]);
    }
}

fn judge(
    tally: &mut Tally,
    operation: &Operation,
    snapshot: &WindowSnapshot,
    account: &Seen,
    reservations: &[&Reservation],
) {
    let window = match BUDGETS.iter().position(|budget| *budget == account.budget) {
        Some(0) => Window::Second,
        Some(1) => Window::Minute,
        Some(_) => Window::Sliding { ms: SLIDING_MS },
        None => return,
    };
    let sliding = matches!(window, Window::Sliding { .. });
    let spans = || std::iter::once(&account.present).chain(&account.closed);
    let name = format!("{} {}", account.budget, account.subject);
    let mut starts = HashSet::new();
    for span in spans() {
        tally.checked(OVERSPENT);
        if span.is_overspent() {
            tally.violation(OVERSPENT, format!("{name}: {span:?}"), vec![operation.index]);
        }
        if sliding {
            continue;
        }
        tally.checked(ALIGNED);
        let proper = window.span_at(TimestampMs(span.start_ms));
        let aligned = (proper.start.0, proper.end.map(|end| end.0)) == (span.start_ms, Some(span.end_ms));
        if !aligned || !starts.insert(span.start_ms) {
            tally.violation(ALIGNED, format!("{name}: {span:?}"), vec![operation.index]);
        }
    }
    // Slices are told as one sum, from the oldest that has anything in it and still counts by the clock of who answers.
    let counted: Vec<(&Span, Vec<&Reservation>)> = if sliding {
        let present = &account.present;
        tally.checked(ALIGNED);
        if present.end_ms <= snapshot.time_ms {
            let detail = format!("{name}: {present:?} is over at {}", snapshot.time_ms);
            tally.violation(ALIGNED, detail, vec![operation.index]);
        }
        let counts = |reservation: &&&Reservation| {
            reservation.granted == Place::Unknown || reservation.at.0 >= present.start_ms
        };
        vec![(present, reservations.iter().filter(counts).copied().collect())]
    } else {
        let of_window = |span: &Span| {
            let from = reservations.partition_point(|reservation| reservation.at.0 < span.start_ms);
            let to = reservations.partition_point(|reservation| reservation.at.0 < span.end_ms);
            // Those that nobody knows of were made at their time or later.
            let unknown = |reservation: &&&Reservation| reservation.granted == Place::Unknown;
            let earlier = reservations[..from].iter().filter(unknown);
            reservations[from..to].iter().chain(earlier).copied().collect()
        };
        spans().map(|span| (span, of_window(span))).collect()
    };
    for (span, reservations) in counted {
        tally.checked(OWN);
        let mut sum = Range::default();
        for reservation in &reservations {
            let taken = reservation.taken(snapshot.log_index);
            sum = Range { least: sum.least + taken.least, most: sum.most + taken.most };
        }
        if !(sum.least..=sum.most).contains(&span.taken()) {
            let detail = format!(
                "{name}: {span:?}; its {} reservations took {} to {}",
                reservations.len(),
                sum.least,
                sum.most
            );
            let events = reservations.iter().map(|reservation| reservation.event).take(50);
            tally.violation(OWN, detail, std::iter::once(operation.index).chain(events).collect());
        }
    }
}

/// All that may have been granted, and how each ended; on the way, what answers say of the ledger's time.
fn reservations(
    tally: &mut Tally,
    operations: &[Operation],
    snapshots: &[(&Operation, WindowSnapshot)],
) -> Vec<Reservation> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut found: Vec<Reservation> = Vec::new();
    // Log index, ledger time, event, and when it was known.
    let mut times: Vec<(u64, u64, u64, u64)> = snapshots
        .iter()
        .map(|(read, snapshot)| (snapshot.log_index, snapshot.time_ms, read.index, read.completed_us))
        .collect();
    let mut unknown = Vec::new();
    for operation in operations.iter().filter(|operation| operation.f == RESERVE) {
        let Some(call) = tally.read::<Reserve>(&operation.call, operation.index) else { continue };
        let (at, granted) = match &operation.outcome {
            Outcome::Fail => continue,
            Outcome::Unknown => (TimestampMs(0), Place::Unknown),
            Outcome::Ok(value) => {
                let Some(answer) = tally.read::<Reserved>(value, operation.index) else { continue };
                match answer.deadline_ms {
                    Some(deadline_ms) => {
                        let at = TimestampMs(deadline_ms.saturating_sub(call.ttl_ms));
                        if answer.tries == 1 {
                            times.push((answer.log_index, at.0, operation.index, operation.completed_us));
                            named(tally, operation, at, &answer);
                        }
                        (at, Place::of(answer.log_index, answer.tries))
                    }
                    None if answer.tries == 1 || answer.why.starts_with(DENIED) => continue,
                    // Refused, so too old to be known: of the tries before it that says nothing.
                    None => (TimestampMs(0), Place::Unknown),
                }
            }
        };
        if granted == Place::Unknown {
            unknown.push((found.len(), operation.invoked_us));
        }
        places.insert(call.id, found.len());
        let (event, subject, amount) = (operation.index, call.subject, call.amount);
        found.push(Reservation { event, subject, amount, at, granted, resolved: None });
    }
    for (place, invoked_us) in unknown {
        let known = times.iter().filter(|(_, _, _, known_us)| *known_us < invoked_us);
        found[place].at = TimestampMs(known.map(|(_, ms, ..)| *ms).max().unwrap_or(0));
    }
    times.sort_unstable();
    for pair in times.windows(2) {
        tally.checked(TIME);
        let ((earlier, earlier_ms, ..), (later, later_ms, ..)) = (pair[0], pair[1]);
        if earlier < later && earlier_ms > later_ms {
            let detail = format!("{earlier_ms} at log index {earlier}, {later_ms} at {later}");
            tally.violation(TIME, detail, vec![pair[0].2, pair[1].2]);
        }
    }
    for operation in operations.iter().filter(|operation| operation.f == SETTLE || operation.f == RELEASE) {
        let Some(call) = tally.read::<Resolve>(&operation.call, operation.index) else { continue };
        let place = match &operation.outcome {
            Outcome::Fail => continue,
            Outcome::Unknown => Place::Unknown,
            Outcome::Ok(value) => match tally.read::<Resolved>(value, operation.index) {
                Some(answer) if answer.done => Place::of(answer.log_index, answer.tries),
                // Refused, so forgotten or expired: a try before it may have been what ended it.
                Some(answer) if answer.tries > 1 => Place::Unknown,
                _ => continue,
            },
        };
        match places.get(&call.id) {
            Some(found_at) => found[*found_at].resolved = Some((call.actual.unwrap_or(0), place)),
            None => tally.not_shown(&format!("event {}: {} was never made", operation.index, call.id)),
        }
    }
    found
}

fn named(tally: &mut Tally, operation: &Operation, at: TimestampMs, answer: &Reserved) {
    for (budget, window) in CALENDAR {
        let Some((_, resets_at)) = answer.resets.iter().find(|(name, _)| name == budget) else { continue };
        tally.checked(NAMED);
        let end = window.span_at(at).end.map_or(0, |end| end.0);
        if end != *resets_at {
            let detail = format!("granted at {}: {budget} ends at {end}, the answer says {resets_at}", at.0);
            tally.violation(NAMED, detail, vec![operation.index]);
        }
    }
}

#[cfg(test)]
#[path = "windows_check_tests.rs"]
mod tests;
