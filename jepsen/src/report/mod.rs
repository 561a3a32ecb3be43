//! What a run has shown: in numbers, as a table, and as a page.

mod page;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::check::Verdict;
use crate::history::{Event, History, NEMESIS, Operation, Outcome};

pub use table::{markdown, write_between_markers};

/// What became of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub operations: u64,
    pub ok: u64,
    pub fail: u64,
    pub unknown: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        self.operations += 1;
        match outcome {
            Outcome::Ok(_) => self.ok += 1,
            Outcome::Fail => self.fail += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

/// From the moment a fault was brought about to the moment it was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultSpan {
    pub name: String,
    /// What was done, and to whom.
    pub done: String,
    pub from_us: u64,
    pub to_us: u64,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub seconds: u64,
    pub faults: Vec<String>,
    /// By workload.
    pub counts: BTreeMap<String, Counts>,
    pub spans: Vec<FaultSpan>,
    /// By workload, and `cluster`.
    pub verdicts: Vec<(String, Verdict)>,
}

impl Summary {
    pub fn new(
        history: &History,
        verdicts: Vec<(String, Verdict)>,
        faults: &[&str],
        seed: u64,
        time: Duration,
    ) -> Self {
        let mut counts = BTreeMap::new();
        for (workload, _) in verdicts.iter().filter(|(name, _)| name != "cluster") {
            let mut of_workload = Counts::default();
            history.operations(workload).iter().for_each(|operation| of_workload.add(&operation.outcome));
            counts.insert(workload.clone(), of_workload);
        }
        Self {
            seed,
            seconds: time.as_secs(),
            faults: faults.iter().map(|name| (*name).to_owned()).collect(),
            counts,
            spans: fault_spans(history),
            verdicts,
        }
    }

    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|(_, verdict)| verdict.violations.len()).sum()
    }

    pub fn undecided(&self) -> usize {
        self.verdicts.iter().map(|(_, verdict)| verdict.undecided.len()).sum()
    }

    /// Writes `summary.json` and `index.html` beside the history.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, history: &History, folder: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("summary.json", serde_json::to_string_pretty(self)? + "\n")?;
        write("index.html", page::page(self, history)?)
    }

    /// For the terminal.
    pub fn print(&self) {
        print!("{}", table::text(self));
    }
}

/// From the nemesis's events, which say `begin:NAME`, `inject:NAME` and `heal:NAME`.
fn fault_spans(history: &History) -> Vec<FaultSpan> {
    let mut spans: Vec<FaultSpan> = Vec::new();
    let said = |event: &Event| event.value.as_str().map_or_else(|| event.value.to_string(), str::to_owned);
    for event in history.events.iter().filter(|event| event.workload == NEMESIS) {
        let Some((what, name)) = event.f.split_once(':') else { continue };
        if what == "begin" {
            spans.push(FaultSpan {
                name: name.to_owned(),
                done: String::new(),
                from_us: event.time_us,
                to_us: u64::MAX,
            });
        }
        let Some(span) = spans.iter_mut().rev().find(|span| span.name == name) else { continue };
        match what {
            "inject" => span.done = said(event),
            "heal" => span.to_us = event.time_us,
            _ => {}
        }
    }
    spans
}

/// A run of `--all`.
#[derive(Debug)]
pub struct Row {
    pub fault: &'static str,
    /// `Err`: the run itself failed, and why.
    pub done: Result<Summary, String>,
}

/// Of all workloads, by invocation.
fn all_operations(summary: &Summary, history: &History) -> Vec<(usize, Operation)> {
    let names = summary.counts.keys().enumerate();
    let of = |(place, name): (usize, &String)| {
        history.operations(name).into_iter().map(move |operation| (place, operation)).collect::<Vec<_>>()
    };
    let mut all: Vec<(usize, Operation)> = names.flat_map(of).collect();
    all.sort_by_key(|(_, operation)| operation.index);
    all
}
