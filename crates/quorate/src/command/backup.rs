//! `quorate backup`: the whole ledger into a file, from a running cluster or from the folder of a stopped node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use quorate_node::offline::{Backup, BackupFile, BackupInfo, FolderBackup};
use quorate_rpc::ClientError;
use tokio::task::spawn_blocking;
use tonic::Code;

use crate::command::ClusterOptions;
use crate::output::{bytes, counted, time};

/// Between two chunks; the node that sends them gives up on its side too.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Copy the whole ledger into a file
///
/// From a running cluster: everything that was committed when the copy began, while work goes on.
/// With --data-dir: from the folder of a node that is stopped, with all of its log.
/// Balances, reservations, policies and their history, API keys (their hashes), drained backends,
/// alerts and the audit log are in it. The file appears under its name only when it is whole and
/// on disk.
///
/// Examples:
///   quorate backup prod.quorate --nodes 10.0.0.1:7701,10.0.0.2:7701
///   quorate backup survivor.quorate --data-dir /var/lib/quorate
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RunBackup {
    /// Where to; nobody but you may read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Of a stopped node, instead of asking a cluster
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Of a damaged folder, take what comes before the damage: the last resort
    #[arg(long, requires = "data_dir")]
    salvage: bool,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl RunBackup {
    pub async fn run(self) -> Result<()> {
        let name = self.file.display().to_string();
        let backup = match self.data_dir.clone() {
            Some(folder) => {
                let how = FolderBackup { replace: self.force, salvage: self.salvage };
                let (backup, damage) = spawn_blocking(move || how.make(&folder, &self.file)).await??;
                damage.iter().for_each(|damage| eprintln!("left out, and all that comes after it: {damage}"));
                backup
            }
            None => self.copy().await?,
        };
        println!("{name}: {}", summary(&backup));
        println!(
            "restore it as a cluster whose name ends in -{}, as in {}",
            backup.mark(),
            backup.restored_name()
        );
        Ok(())
    }

    async fn copy(self) -> Result<Backup> {
        let mut file = BackupFile::create(&self.file, self.force)?;
        let mut chunks = self.cluster.admin()?.backup().await.map_err(of_an_older_release)?;
        loop {
            let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
            let next = next.context("the backup came to a halt; no file was made")?;
            let Some(chunk) = next.context("the backup was cut off; no file was made")? else { break };
            file = spawn_blocking(move || file.write(&chunk.data).map(|()| file)).await??;
        }
        Ok(spawn_blocking(move || file.finish()).await??)
    }
}

fn of_an_older_release(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Rejected { code: Code::Unimplemented, .. } => {
            anyhow!("the leader runs a release that cannot make backups; update all nodes first")
        }
        other => anyhow::Error::from(other).context("no backup was made"),
    }
}

/// What is in it, in one line.
pub fn summary(backup: &Backup) -> String {
    let info: &BackupInfo = backup.info();
    let tail = match info.log_index.saturating_sub(info.committed_index) {
        0 => String::new(),
        behind => format!(" (the last {behind} perhaps never committed)"),
    };
    format!(
        "cluster {}, log up to entry {} of term {}{tail}, ledger time {}, policy version {}, {}, {}, {}, {}, release {}, {}",
        info.cluster,
        info.log_index,
        info.log_term,
        time(info.ledger_time_ms),
        info.policy_version,
        counted(info.tenants, "tenant"),
        counted(info.accounts, "account"),
        counted(info.open_reservations, "open reservation"),
        counted(info.keys, "key"),
        info.release,
        bytes(backup.bytes),
    )
}
