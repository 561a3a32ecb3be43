//! `quorate apply`: a policy file, for the whole fleet or not at all.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use quorate_rpc::admin::ApplyPolicyRequest;

use crate::command::ClusterOptions;

/// Example: `quorate apply -f deploy/policy.yaml`
#[derive(Debug, Args)]
pub struct Apply {
    /// Policy file; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Check only
    #[arg(long)]
    dry_run: bool,
    /// Apply only if this version is in force
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<u64>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl Apply {
    pub async fn run(self) -> Result<()> {
        let name = self.file.display().to_string();
        let document = read(&self.file).with_context(|| format!("policy file {name}"))?;
        let request = ApplyPolicyRequest {
            document,
            expected_version: self.expected_version,
            dry_run: self.dry_run,
            ..Default::default()
        };
        let applied = self
            .cluster
            .admin()
            .apply_policy(request)
            .await
            .with_context(|| format!("cannot apply {name}"))?;
        for warning in &applied.warnings {
            eprintln!("warning: {warning}");
        }
        match (applied.changed, self.dry_run) {
            (true, false) => println!("policy configured, version {}", applied.version),
            (false, false) => println!("policy unchanged, version {}", applied.version),
            (true, true) => {
                println!("policy would be configured (dry run); version {} is in force", applied.version)
            }
            (false, true) => println!("policy would be unchanged (dry run), version {}", applied.version),
        }
        Ok(())
    }
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}
