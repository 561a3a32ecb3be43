//! `quorate validate`: checks manifests without a cluster, as `apply` would.

use anyhow::Result;
use clap::Args;

use crate::command::manifest_files::FileOptions;
use crate::output::counted;

/// Check manifests without a cluster
///
/// Reads, checks and compiles; needs no cluster. Warnings go to standard error.
#[derive(Debug, Args)]
pub struct Validate {
    #[command(flatten)]
    files: FileOptions,
}

impl Validate {
    pub fn run(self) -> Result<()> {
        let manifests = self.files.read()?;
        let (compiled, warnings) = manifests.set.compile()?;
        for warning in manifests.warnings.iter().chain(&warnings) {
            eprintln!("warning: {warning}");
        }
        let objects = manifests.set.objects().count();
        let budgets = compiled.rules().len();
        println!("valid: {}, {}", counted(objects as u64, "object"), counted(budgets as u64, "budget"));
        Ok(())
    }
}
