//! Summaries as text: for the terminal, and as the Markdown table of `docs/reliability.md`.

use std::collections::BTreeSet;
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
        for why in &verdict.not_shown {
            let _ = writeln!(text, "  not shown: {why}");
        }
        for undecided in &verdict.undecided {
            let _ = writeln!(text, "  undecided: {undecided}");
        }
    }
    if let Some(slowest) = summary.recovery_us {
        let _ = writeln!(text, "\nserved again within {} ms of every heal", slowest / 1_000);
    }
    let word = match (summary.violations(), summary.not_shown(), summary.undecided()) {
        (0, 0, 0) => "passed",
        (0, 0, _) => "not decided",
        (0, _, _) => "NOT SHOWN",
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

/// The runs of `--all`: a row for each fault, a column for each workload.
pub fn markdown(rows: &[Row]) -> String {
    let done = || rows.iter().filter_map(|row| row.done.as_ref().ok());
    let workloads: BTreeSet<&String> = done().flat_map(|summary| summary.counts.keys()).collect();
    let names: String = workloads.iter().map(|name| format!(" {name} |")).collect();
    let mut text = format!("| fault | operations |{names} violations | served again, ms |\n");
    let _ = writeln!(text, "| --- | ---: |{} ---: | ---: |", " ---: |".repeat(workloads.len()));
    for Row { fault, done } in rows {
        let summary = match done {
            Ok(summary) => summary,
            Err(error) => {
                let _ = writeln!(text, "| `{fault}` | the run failed: {error} |");
                continue;
            }
        };
        let operations: u64 = summary.counts.values().map(|counts| counts.operations).sum();
        let _ = write!(text, "| `{fault}` | {operations} |");
        for workload in &workloads {
            let Counts { ok, fail, unknown, .. } = summary.counts.get(*workload).copied().unwrap_or_default();
            let _ = write!(text, " {ok} / {fail} / {unknown} |");
        }
        let mut violations = summary.violations().to_string();
        for (number, word) in [(summary.not_shown(), "not shown"), (summary.undecided(), "undecided")] {
            if number > 0 {
                let _ = write!(violations, ", {number} {word}");
            }
        }
        let again = summary.recovery_us.map_or_else(|| "–".to_owned(), |us| (us / 1_000).to_string());
        let _ = writeln!(text, " {violations} | {again} |");
    }
    let sum = |of: fn(&Summary) -> u64| done().map(of).sum::<u64>();
    let operations = sum(|summary| summary.counts.values().map(|counts| counts.operations).sum());
    let violations = sum(|summary| summary.violations() as u64);
    let _ = writeln!(text, "\n{operations} operations, {violations} violations.");
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::check::{Verdict, Violation};
    use crate::history::{Event, History, Kind};

    fn summary(violations: usize) -> Summary {
        let event = |(index, kind)| Event {
            index,
            time_us: index,
            workload: "account".to_owned(),
            process: 1,
            kind,
            f: "reserve".to_owned(),
            value: Value::Null,
            error: None,
        };
        let kinds = [Kind::Invoke, Kind::Ok, Kind::Invoke, Kind::Fail, Kind::Invoke, Kind::Info];
        let history = History { events: (0..).zip(kinds).map(event).collect() };
        let violation = Violation { property: "p".into(), detail: "d".into(), events: Vec::new() };
        let verdict = Verdict {
            checked: vec![("p".to_owned(), 3), ("q".to_owned(), 0)],
            violations: vec![violation; violations],
            ..Verdict::default()
        };
        Summary::new(
            &history,
            vec![("account".to_owned(), verdict)],
            &["kill-one"],
            1,
            Duration::from_secs(9),
        )
    }

    #[test]
    fn a_row_says_how_operations_ended_and_a_failed_run_is_not_hidden() {
        let row = |done| Row { fault: "kill-one", done };
        let table = markdown(&[row(Ok(summary(2))), row(Err("no leader".to_owned()))]);
        assert!(table.contains("| `kill-one` | 3 | 1 / 1 / 1 | 2 | – |\n"), "{table}");
        assert!(table.contains("| `kill-one` | the run failed: no leader |\n"), "{table}");
        assert!(table.ends_with("\n3 operations, 2 violations.\n"), "{table}");
    }

    #[test]
    fn what_was_not_seen_is_not_said_to_hold() {
        let told = text(&summary(0));
        assert!(told.contains("holds   p (3)") && told.contains("unseen  q (0)"), "{told}");
        assert!(text(&summary(1)).contains("BROKEN  p (3)"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.md");
        std::fs::write(&path, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        write_between_markers(&path, "new").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("before\n{BEGIN}\n\nnew\n{END}\nafter\n"));
        std::fs::write(&path, "no markers").unwrap();
        assert!(write_between_markers(&path, "new").is_err());
    }
}
