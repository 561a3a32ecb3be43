//! `jepsen/run`: real Quorate processes under faults. What is promised: `jepsen/SEMANTICS.md`.

mod check;
mod client;
mod deploy;
mod edn;
mod faults;
mod history;
mod nemesis;
mod options;
mod report;
mod run;
mod workloads;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use rand::Rng as _;

use crate::deploy::NetworkChoice;
use crate::faults::Known;
use crate::options::{Command, Options};
use crate::report::{Row, Summary};
use crate::run::Plan;
use crate::workloads::Workload;

const VIOLATED: u8 = 1;
const UNDECIDED: u8 = 3;
const BROKE: u8 = 4;
const NOT_SHOWN: u8 = 5;

/// What speaks against a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Score {
    violations: usize,
    not_shown: usize,
    undecided: usize,
}

impl Score {
    fn of(summary: &Summary) -> Self {
        let (violations, not_shown) = (summary.violations(), summary.not_shown());
        Self { violations, not_shown, undecided: summary.undecided() }
    }

    /// The worst of it.
    fn code(self) -> u8 {
        match self {
            Self { violations: 0, not_shown: 0, undecided: 0 } => 0,
            Self { violations: 0, not_shown: 0, .. } => UNDECIDED,
            Self { violations: 0, .. } => NOT_SHOWN,
            _ => VIOLATED,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options::parse();
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_target(false).with_ansi(terminal).with_writer(std::io::stderr).init();
    let done = match (options.command.take(), &options.replay) {
        (Some(Command::Faults(faults)), _) => faults.run().await.map(|()| Score::default()),
        (None, Some(path)) => replay(path),
        (None, None) => run(&options).await,
    };
    match done {
        Ok(score) => ExitCode::from(score.code()),
        Err(error) => {
            eprintln!("the run failed: {error:#}");
            ExitCode::from(BROKE)
        }
    }
}

fn replay(path: &Path) -> Result<Score> {
    let (history, summary) = run::replay(path)?;
    summary.print();
    if let Some(folder) = path.parent() {
        summary.write(&history, folder)?;
        println!("report: {}", folder.join("index.html").display());
    }
    Ok(Score::of(&summary))
}

async fn run(options: &Options) -> Result<Score> {
    deploy::end_on_signal();
    if options.all { run_all(options).await } else { run_mix(options).await }
}

/// One deployment; its faults take turns.
async fn run_mix(options: &Options) -> Result<Score> {
    let named = options.fault.iter().filter(|name| *name != "random");
    let mut faults = named.map(|name| faults::by_name(name)).collect::<Result<Vec<_>>>()?;
    if faults.len() < options.fault.len() || faults.is_empty() {
        faults.extend(usable(options)?);
    }
    Ok(Score::of(&one(options, faults, options.time, "").await?))
}

/// Each fault by itself, in a deployment of its own, for its share of the time.
async fn run_all(options: &Options) -> Result<Score> {
    let mut faults = vec![faults::by_name("none")?];
    faults.extend(usable(options)?);
    if options.previous.is_some() {
        faults.push(faults::by_name("rolling-upgrade")?);
    }
    // What runs, whatever is committed meanwhile.
    let commit = commit();
    let share = options.time / u32::try_from(faults.len()).unwrap_or(u32::MAX).max(1);
    let mut rows = Vec::new();
    for fault in faults {
        println!("\n--- {}", fault.name);
        let done = one(options, vec![fault], share, fault.name).await;
        // The others are still worth knowing.
        let done = done.map_err(|error| format!("{error:#}"));
        if let Err(error) = &done {
            eprintln!("the run failed: {error}");
        }
        rows.push(Row { fault: fault.name, done });
    }
    let table = report::markdown(&rows);
    let setting = format!(
        "Commit {commit}, {} nodes, {} gateways, {} s a fault, {}.",
        options.nodes,
        options.gateways,
        share.as_secs(),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    );
    let table = format!("{setting}\n\n{table}");
    println!("\n{table}");
    if let Some(path) = &options.write {
        report::write_between_markers(path, &table)?;
    }
    Ok(rows.iter().fold(Score::default(), |sum, row| {
        // What did not run has not shown that anything holds.
        let Score { violations, not_shown, undecided } =
            row.done.as_ref().map_or(Score { not_shown: 1, ..Score::default() }, Score::of);
        Score {
            violations: sum.violations + violations,
            not_shown: sum.not_shown + not_shown,
            undecided: sum.undecided + undecided,
        }
    }))
}

/// What is tested, if this is a checkout.
fn commit() -> String {
    let git = |arguments: &[&str]| deploy::tool::run("git", arguments).map(|text| text.trim().to_owned());
    match (git(&["rev-parse", "--short", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit,
        (Ok(commit), _) => format!("{commit} with changes"),
        (Err(_), _) => "unknown".to_owned(),
    }
}

/// All that are possible here; says which are not, and why.
fn usable(options: &Options) -> Result<Vec<&'static Known>> {
    let (possible, missing) = faults::schedule::possible(&deployment_options(options, PathBuf::new(), 0)?);
    for (name, why) in missing.iter().filter(|(name, _)| *name != "rolling-upgrade") {
        eprintln!("without fault {name}: {why}");
    }
    Ok(possible)
}

async fn one(options: &Options, faults: Vec<&'static Known>, time: Duration, label: &str) -> Result<Summary> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    let folder = run_folder(&options.store, label);
    let mut deployment = deployment_options(options, folder.join("cluster"), seed)?;
    let names: Vec<&str> = faults.iter().map(|known| known.name).collect();
    faults::equip(&names, &mut deployment)?;
    println!("seed {seed}, {} s, faults: {}", time.as_secs(), names.join(", "));
    let plan = Plan {
        workloads: chosen_workloads(&options.workload)?,
        faults,
        time,
        seed,
        clients: options.clients,
        deployment,
        folder,
    };
    let (history, summary) = run::run(&plan).await?;
    summary.write(&history, &plan.folder)?;
    summary.print();
    println!("report: {}", plan.folder.join("index.html").display());
    Ok(summary)
}

fn deployment_options(options: &Options, folder: PathBuf, seed: u64) -> Result<deploy::Options> {
    let found =
        |path: &Path| path.canonicalize().with_context(|| format!("there is no binary {}", path.display()));
    Ok(deploy::Options {
        nodes: options.nodes,
        gateways: options.gateways,
        seed,
        network: if options.loopback { NetworkChoice::Loopback } else { NetworkChoice::Auto },
        previous: options.previous.as_deref().map(found).transpose()?,
        ..deploy::Options::new(found(&options.binary)?, folder)
    })
}

fn run_folder(store: &Path, label: &str) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    store.join(if label.is_empty() { now.to_string() } else { format!("{now}-{label}") })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told() {
        for (violations, not_shown, undecided, code) in [
            (0, 0, 0, 0),
            (0, 0, 1, UNDECIDED),
            (0, 1, 1, NOT_SHOWN),
            (0, 1, 0, NOT_SHOWN),
            (1, 1, 1, VIOLATED),
        ] {
            let score = Score { violations, not_shown, undecided };
            assert_eq!(score.code(), code, "{score:?}");
        }
    }
}
