//! `quorate check`: is the data folder of a stopped node whole?

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use quorate_node::offline::{FolderReport, check_folder};
use tokio::task::spawn_blocking;

use crate::output::{bytes, counted, time};

/// Check the data folder of a stopped node, without changing anything in it
///
/// Reads every part and every checksum, loads the newest snapshot, applies the log to it, and
/// checks the safety properties of the ledger, both as far as it is known to be committed and at
/// the end of the log. Exit code 0: all is well; 1: it is damaged, or cannot be checked. Needs room
/// for a copy of the log in the folder for temporary files (TMPDIR).
///
/// Example:
///   quorate check /var/lib/quorate
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Check {
    /// `data_dir` of the node
    #[arg(value_name = "DATADIR")]
    folder: PathBuf,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub async fn run(self) -> Result<()> {
        let folder = self.folder;
        let report = spawn_blocking(move || check_folder(&folder)).await??;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", text(&report));
        }
        if report.is_sound() {
            return Ok(());
        }
        bail!(
            "data folder {} is damaged. If a majority of the other nodes is well, rebuild this one from them: `quorate node \
             --config FILE --rebuild`. If not, see \"After losing a majority for good\" in docs/operations.md",
            report.folder.display()
        );
    }
}

fn text(report: &FolderReport) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<12} {value}\n"));
    if report.format > 0 {
        let FolderReport { cluster, node_id, format, standing, vote_term, .. } = report;
        line(
            "node",
            format!("{node_id} of cluster {cluster}, format {format}, {standing}, voted in term {vote_term}"),
        );
    }
    for snapshot in &report.snapshots {
        let (point, size) = (snapshot.point, bytes(snapshot.bytes));
        let members = snapshot.members.join(", ");
        line("snapshot", format!("up to {} of term {}, {size}, members {members}", point.index, point.term));
    }
    let log = &report.log;
    let dropped = match log.purged.index {
        0 => String::new(),
        index => format!(", those up to {index} are in a snapshot"),
    };
    line("log", format!("{} in {}{dropped}", entries(log.entries), counted(log.frames, "frame")));
    line("committed", format!("at least up to {} of term {}", log.committed.index, log.committed.term));
    line("log ends", format!("(term, index) = ({}, {})", log.last.term, log.last.index));
    for ledger in &report.ledgers {
        let violations = ledger.violations.len();
        line(
            "ledger",
            format!(
                "{} ({}): time {}, {}, {}, {}, {violations} broken properties",
                ledger.at,
                ledger.point.index,
                time(ledger.time_ms),
                counted(ledger.tenants, "tenant"),
                counted(ledger.accounts, "account"),
                counted(ledger.open_reservations, "open reservation"),
            ),
        );
        ledger.violations.iter().for_each(|broken| line("BROKEN", broken.clone()));
    }
    report.damage.iter().for_each(|damage| line("DAMAGED", damage.to_string()));
    if report.is_sound() {
        line("verdict", "all is well".to_owned());
    }
    out
}

fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}
