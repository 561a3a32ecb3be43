//! `quorate apply`, `diff` and `delete`: manifests, for the whole fleet or not at all.

use anyhow::{Context as _, Result};
use clap::Args;
use quorate_rpc::admin::{ApplyMode, ApplyPolicyRequest, ApplyPolicyResponse};

use crate::command::ClusterOptions;
use crate::command::manifest_files::{FileOptions, Manifests};

/// Adds what is new and changes what is there already, by kind, namespace and name; everything else stays.
///
/// Examples:
///   quorate apply -f deploy/policy.yaml
///   quorate apply -f manifests/ --dry-run
///   quorate apply -f manifests/ --replace --comment "budgets of the second quarter"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Apply {
    #[command(flatten)]
    files: FileOptions,
    /// Check only
    #[arg(long)]
    dry_run: bool,
    /// Delete every object that the files do not name
    #[arg(long)]
    replace: bool,
    /// Apply only if this version is in force
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<u64>,
    /// Why, for `quorate history`
    #[arg(long, default_value = "", value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Deletes the objects that the files name, by kind, namespace and name. What was spent stays readable.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    files: FileOptions,
    /// Check only
    #[arg(long)]
    dry_run: bool,
    /// Why, for `quorate history`
    #[arg(long, default_value = "", value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Shows what `apply` with the same files would change, object by object. Changes nothing.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    files: FileOptions,
    /// As for `apply`
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl Apply {
    pub async fn run(self) -> Result<()> {
        let manifests = self.files.read()?;
        let request = ApplyPolicyRequest {
            expected_version: self.expected_version,
            dry_run: self.dry_run,
            mode: mode(self.replace).into(),
            comment: self.comment,
            ..request(&manifests)
        };
        let applied = self.cluster.admin().apply_policy(request).await.context("nothing was applied")?;
        report(&manifests, &applied, self.dry_run);
        Ok(())
    }
}

impl Delete {
    pub async fn run(self) -> Result<()> {
        let manifests = self.files.read()?;
        let request = ApplyPolicyRequest {
            dry_run: self.dry_run,
            mode: ApplyMode::Delete.into(),
            comment: self.comment,
            ..request(&manifests)
        };
        let applied = self.cluster.admin().apply_policy(request).await.context("nothing was deleted")?;
        report(&manifests, &applied, self.dry_run);
        Ok(())
    }
}

impl Diff {
    pub async fn run(self) -> Result<()> {
        let manifests = self.files.read()?;
        let request = ApplyPolicyRequest {
            dry_run: true,
            diff: true,
            mode: mode(self.replace).into(),
            ..request(&manifests)
        };
        let answer = self.cluster.admin().apply_policy(request).await.context("cannot compare")?;
        print!("{}", answer.diff);
        Ok(())
    }
}

fn mode(replace: bool) -> ApplyMode {
    if replace { ApplyMode::Replace } else { ApplyMode::Merge }
}

fn request(manifests: &Manifests) -> ApplyPolicyRequest {
    ApplyPolicyRequest {
        files: manifests.files(),
        lenient: manifests.lenient,
        ..ApplyPolicyRequest::default()
    }
}

/// One line for each object, then the version, then the warnings.
pub fn report(manifests: &Manifests, applied: &ApplyPolicyResponse, dry_run: bool) {
    let dry = if dry_run { " (dry run)" } else { "" };
    for object in &applied.objects {
        let namespace = if object.namespace.is_empty() { "" } else { "/" };
        println!(
            "{} {}{namespace}{} {}{dry}",
            object.kind.to_lowercase(),
            object.namespace,
            object.name,
            object.action
        );
    }
    for secret in manifests.set.objects().filter(|object| object.kind == "Secret") {
        println!(
            "secret {}/{} not sent; secrets are for the gateways' own files (docs/gateway.md, Secrets)",
            secret.namespace, secret.name
        );
    }
    println!("{}", version_line(applied, dry_run));
    for warning in manifests.warnings.iter().chain(&applied.warnings) {
        eprintln!("warning: {warning}");
    }
}

pub fn version_line(applied: &ApplyPolicyResponse, dry_run: bool) -> String {
    let version = applied.version;
    match (applied.changed, dry_run) {
        (true, false) => format!("policy version {version} in force"),
        (false, false) => format!("policy version {version} stays in force, nothing changed"),
        (true, true) => format!("would make a new version of the policy; {version} is in force"),
        (false, true) => format!("would change nothing; policy version {version} is in force"),
    }
}
