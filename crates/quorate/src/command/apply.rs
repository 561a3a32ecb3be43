//! `quorate apply`, `diff` and `delete`: manifests, for the whole fleet or not at all.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quorate_policy::manifests::ManifestSet;
use quorate_rpc::admin::{ApplyMode, ApplyPolicyRequest, ApplyPolicyResponse, GetPolicyRequest};
use quorate_rpc::{Admin, ClientError};
use tonic::Code;

use crate::command::ClusterOptions;
use crate::command::manifest_files::{FileOptions, Manifests, SENT_AS};

/// Apply manifests to the whole fleet
///
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

/// Delete the objects that manifests name
///
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

/// Show what `apply` would change
///
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
        let applied =
            send(&self.cluster.admin()?, &manifests, request).await.context("nothing was applied")?;
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
        let applied =
            send(&self.cluster.admin()?, &manifests, request).await.context("nothing was deleted")?;
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
        let answer = send(&self.cluster.admin()?, &manifests, request).await.context("cannot compare")?;
        print!("{}", answer.diff);
        Ok(())
    }
}

/// The cluster gets the objects without their files. What it refuses because of how objects fit together is found again
/// here, where each mistake still has its file and line.
async fn send(
    admin: &Admin,
    manifests: &Manifests,
    request: ApplyPolicyRequest,
) -> Result<ApplyPolicyResponse> {
    if manifests.set.is_empty() {
        warn(manifests.warnings.iter());
        bail!("the files hold no object that is Quorate's");
    }
    let mode = request.mode();
    let refused = match admin.apply_policy(request).await {
        Err(ClientError::Rejected { code: Code::InvalidArgument, message }) => message,
        answered => return Ok(answered?),
    };
    let placed = match admin.get_policy(GetPolicyRequest::default()).await {
        Ok(policy) => mistakes(&policy.document, manifests, mode),
        Err(_) => None,
    };
    Err(ClientError::Rejected { code: Code::InvalidArgument, message: placed.unwrap_or(refused) }.into())
}

/// `None`: as far as can be seen from here, there is none.
fn mistakes(in_force: &str, manifests: &Manifests, mode: ApplyMode) -> Option<String> {
    let base = ManifestSet::from_document(in_force).ok()?;
    let next = match mode {
        ApplyMode::Merge => base.apply(&manifests.set).0,
        ApplyMode::Replace => manifests.set.clone(),
        ApplyMode::Delete => base.delete(&manifests.set).0,
    };
    next.compile().err().map(|errors| errors.to_string())
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
            "secret {}/{} not sent; secrets are for the gateways' own files (docs/gateway.md, Where requests go)",
            secret.namespace, secret.name
        );
    }
    println!("{}", version_line(applied, dry_run));
    // What it says of places is said of the files already.
    let place = format!("{SENT_AS}, line ");
    let applied = applied.warnings.iter().filter(|warning| !warning.starts_with(&place));
    warn(manifests.warnings.iter().chain(applied));
}

/// Each once: the cluster reads the same objects again, and says the same of them.
pub fn warn<'a>(warnings: impl Iterator<Item = &'a String>) {
    let mut said = BTreeSet::new();
    for warning in warnings.filter(|warning| said.insert(*warning)) {
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
