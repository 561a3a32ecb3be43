//! Histories made by hand, for the tests of checkers.

use serde::Serialize;
use serde_json::Value;

use crate::check::Verdict;
use crate::history::{Event, History, Kind};

/// Builds a history; each step takes a millisecond unless told otherwise.
#[derive(Debug)]
pub struct Script {
    workload: &'static str,
    events: Vec<Event>,
    pub now_us: u64,
}

impl Script {
    pub fn new(workload: &'static str) -> Self {
        Self { workload, events: Vec::new(), now_us: 0 }
    }

    pub fn info(&mut self, f: &str, value: &impl Serialize) {
        self.push(u64::MAX, Kind::Info, f, value);
    }

    /// Its process.
    pub fn invoke(&mut self, f: &str, call: &impl Serialize) -> u64 {
        let process = self.events.len() as u64;
        self.push(process, Kind::Invoke, f, call);
        process
    }

    pub fn end(&mut self, process: u64, kind: Kind, f: &str, value: &impl Serialize) {
        self.push(process, kind, f, value);
    }

    pub fn ok(&mut self, f: &str, call: &impl Serialize, answer: &impl Serialize) {
        let process = self.invoke(f, call);
        self.end(process, Kind::Ok, f, answer);
    }

    pub fn at(&mut self, ms: u64) -> &mut Self {
        self.now_us = ms * 1_000;
        self
    }

    pub fn history(&self) -> History {
        History { events: self.events.clone() }
    }

    fn push(&mut self, process: u64, kind: Kind, f: &str, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.events.push(Event {
            index: self.events.len() as u64,
            time_us: self.now_us,
            workload: self.workload.to_owned(),
            process,
            kind,
            f: f.to_owned(),
            value,
            error: None,
        });
        self.now_us += 1_000;
    }
}

/// The properties that were violated, each once.
pub fn violated(verdict: &Verdict) -> Vec<&str> {
    let mut names: Vec<&str> =
        verdict.violations.iter().map(|violation| violation.property.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
