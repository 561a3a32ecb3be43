//! One log: what had an answer before another operation began stands before it, and terms ascend with the index.

use std::collections::BTreeMap;

use serde_json::Value;

use super::words;
use super::{Verdict, Violation};
use crate::history::{History, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Has an entry of its own.
    Write,
    /// Sees all that was acknowledged before it.
    Read,
    /// Sees what its node has applied.
    StaleRead,
}

/// Where an answer says that it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub event: u64,
    pub does: Does,
    pub invoked_us: u64,
    pub completed_us: u64,
    pub term: u64,
    pub index: u64,
}

/// Of all answers of a workload that have the fields `term` and `index`; whose index is 0 stands nowhere.
pub fn entries(history: &History, workload: &str) -> Vec<Entry> {
    let operations = history.operations(workload).into_iter();
    let entry = operations.filter_map(|operation| {
        let Outcome::Ok(value) = &operation.outcome else { return None };
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        let does = match operation.f.as_str() {
            words::READ => Does::Read,
            words::STALE_READ | words::FINAL_READ | words::INVARIANTS => Does::StaleRead,
            _ => Does::Write,
        };
        let (term, index) = (number("term")?, number("index").filter(|index| *index > 0)?);
        let (invoked_us, completed_us) = (operation.invoked_us, operation.completed_us);
        Some(Entry { event: operation.index, does, invoked_us, completed_us, term, index })
    });
    entry.collect()
}

pub fn check(entries: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    real_time(entries, &mut verdict);
    terms(entries, &mut verdict);
    verdict.checked.push(("one log: answers".to_owned(), entries.len() as u64));
    verdict
}

fn real_time(entries: &[Entry], verdict: &mut Verdict) {
    let mut ended: Vec<&Entry> = entries.iter().collect();
    ended.sort_by_key(|entry| entry.completed_us);
    let mut begun: Vec<&Entry> = entries.iter().filter(|entry| entry.does != Does::StaleRead).collect();
    begun.sort_by_key(|entry| entry.invoked_us);
    let (mut ended, mut highest) = (ended.into_iter().peekable(), None::<&Entry>);
    for entry in begun {
        while let Some(before) = ended.next_if(|before| before.completed_us < entry.invoked_us) {
            if highest.is_none_or(|highest| highest.index < before.index) {
                highest = Some(before);
            }
        }
        let Some(before) = highest else { continue };
        let stands_after = match entry.does {
            Does::Write => entry.index > before.index,
            Does::Read | Does::StaleRead => entry.index >= before.index,
        };
        if !stands_after {
            verdict.violations.push(Violation {
                property: "one log: real time".to_owned(),
                detail: format!(
                    "an answer of index {} was there at {} us; what began at {} us is of index {}",
                    before.index, before.completed_us, entry.invoked_us, entry.index
                ),
                events: vec![before.event, entry.event],
            });
        }
    }
}

fn terms(entries: &[Entry], verdict: &mut Verdict) {
    let mut by_index: BTreeMap<u64, &Entry> = BTreeMap::new();
    let mut wrong = |one: &Entry, other: &Entry| {
        verdict.violations.push(Violation {
            property: "one log: terms".to_owned(),
            detail: format!(
                "index {} is of term {}, and index {} of term {}",
                one.index, one.term, other.index, other.term
            ),
            events: vec![one.event, other.event],
        });
    };
    for entry in entries {
        let known = by_index.entry(entry.index).or_insert(entry);
        if known.term != entry.term {
            wrong(known, entry);
        }
    }
    let ascending: Vec<&&Entry> = by_index.values().collect();
    for pair in ascending.windows(2) {
        if let [one, next] = pair
            && one.term > next.term
        {
            wrong(one, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: u64, does: Does, times: (u64, u64), (term, index): (u64, u64)) -> Entry {
        Entry { event, does, invoked_us: times.0, completed_us: times.1, term, index }
    }

    #[test]
    fn what_overlaps_may_stand_in_any_order_and_what_follows_may_not() {
        let (first, second) =
            (entry(0, Does::Write, (0, 10), (1, 7)), entry(1, Does::Write, (5, 15), (1, 6)));
        assert!(check(&[first, second]).passed());
        let second = Entry { invoked_us: 11, ..second };
        assert_eq!(check(&[first, second]).violations[0].events, [0, 1]);
        // An entry that was answered before it was asked for.
        assert!(!check(&[first, Entry { index: 7, ..second }]).passed());
        let read = Entry { does: Does::Read, ..second };
        assert!(check(&[first, Entry { index: 7, ..read }]).passed());
        assert!(!check(&[first, read]).passed());
        assert!(check(&[first, Entry { does: Does::StaleRead, ..second }]).passed());
    }

    #[test]
    fn a_stale_read_of_the_future_is_found() {
        let read = entry(0, Does::StaleRead, (0, 10), (1, 9));
        assert!(!check(&[read, entry(1, Does::Write, (11, 20), (1, 9))]).passed());
        assert!(check(&[read, entry(1, Does::Write, (11, 20), (1, 10))]).passed());
    }

    #[test]
    fn an_index_has_one_term_and_terms_ascend() {
        let write = |event, place| entry(event, Does::Write, (0, 100), place);
        assert!(check(&[write(0, (1, 5)), write(1, (1, 5)), write(2, (3, 6))]).passed());
        assert!(!check(&[write(0, (1, 5)), write(1, (2, 5))]).passed());
        assert!(!check(&[write(0, (2, 5)), write(1, (1, 6))]).passed());
    }
}
