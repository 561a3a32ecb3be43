//! `jepsen/run`: real Quorate processes under faults. What is promised: `jepsen/SEMANTICS.md`.

mod check;
mod deploy;
mod faults;
mod history;
mod nemesis;
mod options;
mod report;
mod run;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser as _;
use rand::Rng as _;

use crate::options::Options;
use crate::report::Summary;
use crate::run::Plan;
use crate::workloads::Workload;

const VIOLATED: u8 = 1;
const UNDECIDED: u8 = 3;
const BROKE: u8 = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_target(false).with_writer(std::io::stderr).init();
    let done = match &options.replay {
        Some(path) => replay(path),
        None if options.all => run_all(&options).await,
        None => run_one(&options).await,
    };
    match done {
        Ok((violations, undecided)) => match (violations, undecided) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(UNDECIDED),
            _ => ExitCode::from(VIOLATED),
        },
        Err(error) => {
            eprintln!("the run failed: {error:#}");
            ExitCode::from(BROKE)
        }
    }
}

/// Violations, and what could not be decided.
type Score = (usize, usize);

fn replay(path: &Path) -> Result<Score> {
    let (history, summary) = run::replay(path)?;
    summary.print();
    if let Some(folder) = path.parent() {
        summary.write(&history, folder)?;
    }
    Ok((summary.violations(), summary.undecided()))
}

async fn run_one(options: &Options) -> Result<Score> {
    let mut faults = Vec::new();
    for name in &options.fault {
        faults.push(faults::known(name)?);
    }
    if faults.is_empty() {
        faults = faults::usable(options.loopback);
    }
    let summary = one(options, faults, options.time, "").await?;
    Ok((summary.violations(), summary.undecided()))
}

/// Each fault by itself, for its share of the time.
async fn run_all(options: &Options) -> Result<Score> {
    let faults = faults::usable(options.loopback);
    let share = options.time / u32::try_from(faults.len()).unwrap_or(u32::MAX).max(1);
    let mut runs = Vec::new();
    for fault in faults {
        println!("--- {fault}");
        runs.push((fault.to_owned(), one(options, vec![fault], share, fault).await?));
    }
    let table = report::markdown(&runs);
    println!("\n{table}");
    if let Some(path) = &options.write {
        report::write_between_markers(path, &table)?;
    }
    let sum = |of: fn(&Summary) -> usize| runs.iter().map(|(_, summary)| of(summary)).sum();
    Ok((sum(Summary::violations), sum(Summary::undecided)))
}

async fn one(options: &Options, faults: Vec<&'static str>, time: Duration, label: &str) -> Result<Summary> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    let folder = run_folder(&options.store, label);
    let plan = Plan {
        workloads: chosen_workloads(&options.workload)?,
        faults,
        time,
        seed,
        clients: options.clients,
        deployment: deploy::Options {
            binary: options.binary.clone(),
            folder: folder.join("cluster"),
            nodes: options.nodes,
            gateways: options.gateways,
        },
        folder: folder.clone(),
    };
    println!("seed {seed}, {} s, faults: {}", time.as_secs(), plan.faults.join(", "));
    let (history, summary) = run::run(&plan).await?;
    summary.write(&history, &folder)?;
    summary.print();
    println!("report: {}", folder.join("index.html").display());
    Ok(summary)
}

fn run_folder(store: &Path, label: &str) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = if label.is_empty() { now.to_string() } else { format!("{now}-{label}") };
    store.join(name)
}

fn chosen_workloads(names: &[String]) -> Result<Vec<Arc<dyn Workload>>> {
    let all = workloads::all();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|workload| workload.name() == **name)) {
        let known: Vec<&str> = all.iter().map(|workload| workload.name()).collect();
        bail!("there is no workload {unknown}; known: {}", known.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|one| names.is_empty() || names.iter().any(|name| name == one.name()))
        .collect())
}
