//! `quorate validate`: checks manifests without a cluster, as `apply` would.

use anyhow::Result;
use clap::Args;

use crate::command::manifest_files::FileOptions;

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
        println!("valid: {objects} objects, {} budgets", compiled.rules().len());
        Ok(())
    }
}
