//! Summaries as text: for the terminal, and as the Markdown table of `docs/reliability.md`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::{Counts, Row, Summary};

const BEGIN: &str = "<!-- jepsen: begin -->";
const END: &str = "<!-- jepsen: end -->";

/// One run, for a person at a terminal.
pub fn text(summary: &Summary) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<12} {:>10} {:>8} {:>6} {:>8} {:>11}",
        "WORKLOAD", "OPERATIONS", "OK", "FAIL", "UNKNOWN", "VIOLATIONS"
    );
    for (workload, verdict) in &summary.verdicts {
        let Counts { operations, ok, fail, unknown } =
            summary.counts.get(workload).copied().unwrap_or_default();
        let violations = verdict.violations.len();
        let _ =
            writeln!(text, "{workload:<12} {operations:>10} {ok:>8} {fail:>6} {unknown:>8} {violations:>11}");
    }
    for (workload, verdict) in &summary.verdicts {
        let _ = writeln!(text, "\n{workload}");
        for (property, number) in &verdict.checked {
            let word = match (verdict.broken(property), number) {
                // Nothing happened that could have broken it.
                (0, 0) => "unseen",
                (0, _) => "holds",
                _ => "BROKEN",
            };
            let _ = writeln!(text, "  {word:<7} {property} ({number})");
        }
        for violation in verdict.violations.iter().take(20) {
            let _ = writeln!(text, "  violation of {}: {}", violation.property, violation.detail);
        }
        if let Some(more) = verdict.violations.len().checked_sub(20).filter(|more| *more > 0) {
            let _ = writeln!(text, "  … and {more} more");
        }
        for undecided in &verdict.undecided {
            let _ = writeln!(text, "  undecided: {undecided}");
        }
    }
    if let Some(slowest) = summary.recovery_us {
        let _ = writeln!(text, "\nserved again within {} ms of every heal", slowest / 1_000);
    }
    let word = match (summary.violations(), summary.undecided()) {
        (0, 0) => "passed",
        (0, _) => "not decided",
        _ => "FAILED",
    };
    let _ = writeln!(
        text,
        "\n{word}: seed {}, {} s, {} faults",
        summary.seed,
        summary.seconds,
        summary.spells.len()
    );
    text
}

/// The runs of `--all`: a row for each fault and workload.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| fault | workload | operations | ok | fail | unknown | violations |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Row { fault, done } in rows {
        let summary = match done {
            Ok(summary) => summary,
            Err(error) => {
                let _ = writeln!(text, "| {fault} | the run failed: {error} | | | | | |");
                continue;
            }
        };
        for (workload, verdict) in &summary.verdicts {
            let Some(counts) = summary.counts.get(workload) else {
                // `cluster`: no operations of its own, so a row only if there is something to say.
                if !verdict.violations.is_empty() {
                    let _ = writeln!(text, "| {fault} | {workload} | | | | | {} |", verdict.violations.len());
                }
                continue;
            };
            let violations = match verdict.undecided.len() {
                0 => verdict.violations.len().to_string(),
                undecided => format!("{}, {undecided} undecided", verdict.violations.len()),
            };
            let Counts { operations, ok, fail, unknown } = counts;
            let _ = writeln!(
                text,
                "| {fault} | {workload} | {operations} | {ok} | {fail} | {unknown} | {violations} |"
            );
        }
    }
    text
}

/// Puts the text between the file's two markers.
///
/// # Errors
/// The file cannot be read or written, or has no markers.
pub fn write_between_markers(path: &Path, text: &str) -> Result<()> {
    let name = path.display();
    let old = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let place = || format!("{name} has no lines {BEGIN} and {END}");
    let (before, rest) = old.split_once(BEGIN).with_context(place)?;
    let (_, after) = rest.split_once(END).with_context(place)?;
    let new = format!("{before}{BEGIN}\n\n{text}\n{END}{after}");
    std::fs::write(path, new).with_context(|| format!("cannot write {name}"))
}
