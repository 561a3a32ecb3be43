//! What a run has shown: in numbers, as a table, and as a page.

mod page;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::check::counts::{self, Count};
use crate::check::faults::{Spell, spells};
use crate::check::{Verdict, availability};
use crate::edn;
use crate::history::{History, Operation, Outcome};

pub use table::{markdown, write_between_markers};

/// The verdict on what is no workload's own.
pub const CLUSTER: &str = "cluster";

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

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub seconds: u64,
    pub faults: Vec<String>,
    /// By workload.
    pub counts: BTreeMap<String, Counts>,
    /// By workload and fault.
    pub by_fault: Vec<Count>,
    pub spells: Vec<Spell>,
    /// After a fault was healed, until every workload was served again; the longest.
    pub recovery_us: Option<u64>,
    /// By workload, and [`CLUSTER`].
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
        for (workload, _) in verdicts.iter().filter(|(name, _)| name != CLUSTER) {
            let mut of_workload = Counts::default();
            history.operations(workload).iter().for_each(|operation| of_workload.add(&operation.outcome));
            counts.insert(workload.clone(), of_workload);
        }
        Self {
            seed,
            seconds: time.as_secs(),
            faults: faults.iter().map(|name| (*name).to_owned()).collect(),
            counts,
            by_fault: counts::table(history, &verdicts),
            spells: spells(history),
            recovery_us: availability::slowest_us(history),
            verdicts,
        }
    }

    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|(_, verdict)| verdict.violations.len()).sum()
    }

    /// Searches that gave up.
    pub fn undecided(&self) -> usize {
        self.verdicts.iter().map(|(_, verdict)| verdict.undecided.len()).sum()
    }

    /// What was checked on nothing, or on too little.
    pub fn not_shown(&self) -> usize {
        self.verdicts.iter().map(|(_, verdict)| verdict.not_shown.len()).sum()
    }

    /// Writes `summary.json`, `index.html` and `history.edn` beside the history.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, history: &History, folder: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("summary.json", serde_json::to_string_pretty(self)? + "\n")?;
        write("index.html", page::page(self, history)?)?;
        let path = folder.join("history.edn");
        let written = File::create(&path).and_then(|file| {
            let mut file = BufWriter::new(file);
            edn::write(history, &mut file)?;
            file.flush()
        });
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// For the terminal.
    pub fn print(&self) {
        print!("{}", table::text(self));
    }
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
