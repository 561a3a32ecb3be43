//! Puts a verdict together while a checker goes through a history.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::check::{Verdict, Violation};

/// Of one property; a bug shows itself over and over.
const VIOLATIONS_MAX: usize = 20;

#[derive(Debug)]
pub struct Tally {
    verdict: Verdict,
}

impl Tally {
    /// All properties, also those that may turn out to be checked on nothing.
    pub fn new<const N: usize>(properties: [&str; N]) -> Self {
        let checked = properties.into_iter().map(|property| (property.to_owned(), 0)).collect();
        Self { verdict: Verdict { checked, ..Verdict::default() } }
    }

    pub fn checked(&mut self, property: &str) {
        if let Some((_, count)) = self.verdict.checked.iter_mut().find(|(name, _)| name == property) {
            *count += 1;
        }
    }

    pub fn violation(&mut self, property: &str, detail: String, events: Vec<u64>) {
        let known = self.verdict.violations.iter().filter(|violation| violation.property == property);
        if known.count() < VIOLATIONS_MAX {
            self.verdict.violations.push(Violation { property: property.to_owned(), detail, events });
        }
    }

    pub fn not_shown(&mut self, why: &str) {
        self.verdict.not_shown.push(why.to_owned());
    }

    /// What a workload of this release wrote down. Anything else cannot be judged.
    pub fn read<T: DeserializeOwned>(&mut self, value: &Value, event: u64) -> Option<T> {
        match T::deserialize(value) {
            Ok(read) => Some(read),
            Err(error) => {
                self.not_shown(&format!("event {event} cannot be read: {error}"));
                None
            }
        }
    }

    pub fn verdict(self) -> Verdict {
        self.verdict
    }
}
