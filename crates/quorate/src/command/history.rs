//! `quorate history` and `rollback`: earlier versions of the policy, and who changed what.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use quorate_rpc::admin;

use crate::command::ClusterOptions;
use crate::command::apply::version_line;
use crate::output::{OutputOptions, bytes, table, time};

/// Show earlier versions of the policy, or the audit log
///
/// Examples: `quorate history policies`, `quorate history audit`
#[derive(Debug, Args)]
pub struct History {
    what: What,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Versions of the policy, the one in force first
    Policies,
    /// Every change by an operator, the newest first
    Audit,
}

/// Put an earlier version of the policy in force again
///
/// Puts an earlier version of the policy in force again, as a new version.
#[derive(Debug, Args)]
pub struct Rollback {
    /// A version from `quorate history policies`
    version: u64,
    /// Check only
    #[arg(long)]
    dry_run: bool,
    /// Why, for `quorate history`
    #[arg(long, default_value = "", value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl History {
    pub async fn run(self) -> Result<()> {
        let admin = self.cluster.admin()?;
        match self.what {
            What::Policies => {
                let answer = admin.list_policy_versions(admin::ListPolicyVersionsRequest::default()).await?;
                self.output.print(&answer, || {
                    let mut table = table(&["VERSION", "APPLIED", "BY", "BUDGETS", "SIZE", "COMMENT"]);
                    for version in &answer.versions {
                        table.add_row([
                            version.version.to_string(),
                            time(version.applied_at_ms),
                            version.by.clone(),
                            version.budgets.to_string(),
                            bytes(version.bytes),
                            version.comment.clone(),
                        ]);
                    }
                    table
                })
            }
            What::Audit => {
                let answer = admin.list_audit(admin::ListAuditRequest::default()).await?;
                self.output.print(&answer, || {
                    let mut table = table(&["AT", "BY", "ACTION", "SUBJECT", "DETAIL"]);
                    for record in &answer.records {
                        table.add_row([
                            &time(record.at_ms),
                            &record.by,
                            &record.action,
                            &record.subject,
                            &record.detail,
                        ]);
                    }
                    table
                })
            }
        }
    }
}

impl Rollback {
    pub async fn run(self) -> Result<()> {
        let request = admin::RollbackPolicyRequest {
            version: self.version,
            dry_run: self.dry_run,
            comment: self.comment,
        };
        let applied =
            self.cluster.admin()?.rollback_policy(request).await.context("nothing was rolled back")?;
        println!("{}", version_line(&applied, self.dry_run));
        for warning in &applied.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(())
    }
}
