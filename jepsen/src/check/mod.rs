//! What a checker says of a history.

pub mod accounts;
mod agreement;
mod amounts;
pub mod availability;
pub mod counts;
mod fates;
pub mod faults;
pub mod floor;
pub mod forward;
pub mod levels;
mod linear;
pub mod order;
mod plain;
mod reads;
mod search;
#[cfg(test)]
mod simulated;
mod tenant;
#[cfg(test)]
mod tests;
pub mod words;

use serde::Serialize;

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The property, as `jepsen/SEMANTICS.md` names it: `linearizable`, `never overspent` …
    pub property: String,
    /// What was seen, with numbers.
    pub detail: String,
    /// Indices of the events that show it.
    pub events: Vec<u64>,
}

/// The result of one workload's checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Each property, and how many operations, accounts or reads it was checked on. A property that was checked on nothing
    /// is not shown to hold.
    pub checked: Vec<(String, u64)>,
    pub violations: Vec<Violation>,
    /// Searches that gave up, and where: neither a pass nor a violation, but the run does not count as passed.
    pub undecided: Vec<String>,
    /// What the history does not hold, so that something was checked on less than it should be: a run that shows nothing.
    pub not_shown: Vec<String>,
}

impl Verdict {
    #[cfg(test)]
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty() && self.not_shown.is_empty()
    }

    pub fn merge(&mut self, other: Self) {
        self.checked.extend(other.checked);
        self.violations.extend(other.violations);
        self.undecided.extend(other.undecided);
        self.not_shown.extend(other.not_shown);
    }

    /// Violations of what is counted in [`Verdict::checked`] under this name; what stands behind a colon says more, but names
    /// no other property: `linearizable: tenants`, `one log: terms`.
    pub fn broken(&self, checked: &str) -> usize {
        let property =
            |name: &str| name.split_once(": ").map_or(name.to_owned(), |(name, _)| name.to_owned());
        let wanted = property(checked);
        self.violations.iter().filter(|violation| property(&violation.property) == wanted).count()
    }

    /// A property that was checked on nothing has not been shown to hold.
    pub fn unseen_is_not_shown(&mut self) {
        let unseen = self.checked.iter().filter(|(_, number)| *number == 0);
        let told = unseen.map(|(property, _)| format!("nothing was seen that could break: {property}"));
        self.not_shown.extend(told.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn what_is_broken_is_found_by_the_name_that_was_checked() {
        let violation = |property: &str| Violation {
            property: property.to_owned(),
            detail: String::new(),
            events: Vec::new(),
        };
        let violations = vec![violation("linearizable"), violation("one log: terms")];
        let verdict = Verdict { violations, ..Verdict::default() };
        for (checked, broken) in
            [("linearizable: tenants", 1), ("linearizable", 1), ("one log: answers", 1), ("one", 0)]
        {
            assert_eq!(verdict.broken(checked), broken, "{checked}");
        }
    }
}
