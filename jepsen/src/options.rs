//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::faults::command::Faults;

/// Run real Quorate processes under faults, record what their clients saw, and check it
///
/// What is promised, and so checked: jepsen/SEMANTICS.md. A run leaves a folder with the history (JSON lines and EDN), a
/// page with a timeline, the summary, and the logs and configs of every process.
///
/// Examples:
///   jepsen/run --time 3m
///   jepsen/run --workload account --fault kill-leader --fault clock-jump --time 1m --seed 7
///   jepsen/run --all --time 30m
///   jepsen/run --replay jepsen/store/…/history.jsonl
#[derive(Debug, Parser)]
#[command(
    name = "jepsen/run",
    version,
    verbatim_doc_comment,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What clients do; several run side by side [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,
    /// What goes wrong; several take turns in an order drawn from the seed [default: random, all that are possible here]
    #[arg(long, value_name = "NAME")]
    pub fault: Vec<String>,
    /// Each fault by itself, one deployment after the other, under all workloads; makes the table of docs/reliability.md
    #[arg(long, conflicts_with = "fault")]
    pub all: bool,
    /// How long clients and faults run, in all: 90s, 3m
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration)]
    pub time: Duration,
    /// Budget nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    #[arg(long, default_value_t = 2)]
    pub gateways: usize,
    /// Clients of each workload
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// Decides everything that is drawn; the processes' own timing remains [default: drawn, and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Check a recorded history again instead of running anything
    #[arg(long, value_name = "HISTORY")]
    pub replay: Option<PathBuf>,
    /// Loopback ports instead of network namespaces: without root, and without the faults of the network
    #[arg(long)]
    pub loopback: bool,
    /// The `quorate` under test
    #[arg(long, default_value = "target/release/quorate", value_name = "FILE")]
    pub binary: PathBuf,
    /// An older `quorate`, with which nodes start when the fault is rolling-upgrade
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// Where run folders are made
    #[arg(long, default_value = "jepsen/store", value_name = "FOLDER")]
    pub store: PathBuf,
    /// Write the table of `--all` into this Markdown file, between its two markers
    #[arg(long, requires = "all", value_name = "FILE")]
    pub write: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Faults by themselves: which there are, and one by hand
    Faults(Faults),
}

const EXIT_CODES: &str = "Exit codes: 0 everything that was checked holds; 1 a promise was broken; 2 wrong usage; \
     3 a search for an order gave up; 4 there was no run: it did not start, or could not be read or written; \
     5 something was checked on nothing, or on too little";

fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "wanted: 90s, 3m, 1h";
    let unit = text.chars().last().ok_or(wanted)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wanted)?;
    let seconds = match unit {
        's' => number,
        'm' => number.saturating_mul(60),
        'h' => number.saturating_mul(3_600),
        _ => return Err(wanted.to_owned()),
    };
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for wrong in ["", "3", "m", "3 m", "-1s", "1µ"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
