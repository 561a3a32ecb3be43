//! Applies manifests, or an earlier version: all of it or nothing. On the leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{BudgetRule, Outcome, POLICY_DOCUMENT_MAX_BYTES, Refusal};
use quorate_replica::Replica;
use quorate_rpc::admin::{self, ApplyMode};
use tonic::Status;

use crate::admin_changes::{CHANGE_TIMEOUT, Changes, refused, unexpected};
use crate::error::replica_status;
use crate::policies::Policies;
use crate::policy_upload::Upload;
use quorate_policy::manifests::{Action, Change, ManifestSet, Mode, Source, diff};

/// Somebody else may change the policy between reading and putting it: then it is read and merged again.
const TRIES: usize = 4;
/// Behind others who apply.
const TURN_WITHIN: Duration = Duration::from_secs(20);
const FILES_MAX: usize = 10_000;
/// A status travels in a header, and those are bounded.
const ERRORS_MAX_BYTES: usize = 4_000;

#[derive(Debug, Clone)]
pub(crate) struct PolicyChanges {
    pub replica: Replica,
    pub policies: Arc<Policies>,
    pub changes: Changes,
    /// One at a time: an upload in parts drops another one that has begun.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// What there would be afterwards.
struct Plan {
    rules: Vec<BudgetRule>,
    document: String,
    changes: Vec<Change>,
    warnings: Vec<String>,
    diff: String,
}

/// The policy that is in force, as far as it matters for a change.
struct Base {
    version: u64,
    document: String,
    /// Empty if this release cannot read it.
    set: ManifestSet,
    unreadable: Option<Status>,
}

impl PolicyChanges {
    pub async fn apply(
        &self,
        by: String,
        request: admin::ApplyPolicyRequest,
    ) -> Result<admin::ApplyPolicyResponse, Status> {
        let (mode, expected, dry_run) = (request.mode(), request.expected_version, request.dry_run);
        let (wants_diff, comment) = (request.diff, request.comment.clone());
        let (named, warnings) = blocking(move || parse(&request)).await?;
        let named = Arc::new(named);
        let _turn = self.turn().await?;
        for _ in 0..TRIES {
            let base = self.base().await?;
            if let Some(expected) = expected.filter(|expected| *expected != base.version) {
                return Err(refused(&Refusal::VersionConflict { expected, actual: base.version }));
            }
            if let Some(unreadable) = base.unreadable.clone().filter(|_| mode != ApplyMode::Replace) {
                return Err(unreadable);
            }
            let (set, named) = (base.set.clone(), named.clone());
            let mut plan = blocking(move || plan(&set, &named, mode, wants_diff)).await?;
            plan.warnings.splice(0..0, warnings.iter().cloned());
            if dry_run {
                return Ok(would_be(&base, plan));
            }
            if let Some(applied) = self.put(&base, plan, by.clone(), comment.clone()).await? {
                return Ok(applied);
            }
        }
        Err(Status::aborted("the policy was changed by others again and again meanwhile; apply it once more"))
    }

    pub async fn roll_back(
        &self,
        by: String,
        request: admin::RollbackPolicyRequest,
    ) -> Result<admin::ApplyPolicyResponse, Status> {
        let version = request.version;
        let _turn = self.turn().await?;
        for _ in 0..TRIES {
            let base = self.base().await?;
            let known = self.replica.read(|ledger, _| ledger.policy_document(version));
            let (document, rules) = known.ok_or_else(|| {
                Status::not_found(format!(
                    "policy version {version} is not kept; `quorate history policies` lists those that are"
                ))
            })?;
            let earlier = self.policies.earlier(version, document.clone()).await?;
            let plan = Plan {
                changes: replaced(&base.set, &earlier.set),
                warnings: earlier.warnings,
                diff: diff(&base.set, &earlier.set),
                rules,
                document,
            };
            if request.dry_run {
                return Ok(would_be(&base, plan));
            }
            let comment = match request.comment.as_str() {
                "" => format!("back to version {version}"),
                comment => comment.to_owned(),
            };
            if let Some(applied) = self.put(&base, plan, by.clone(), comment).await? {
                return Ok(applied);
            }
        }
        Err(Status::aborted(
            "the policy was changed by others again and again meanwhile; roll back once more",
        ))
    }

    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Status> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.turn.lock()).await;
        turn.map_err(|_| Status::aborted("others apply policies; try again when they are done"))
    }

    async fn base(&self) -> Result<Base, Status> {
        self.replica.linearize().await.map_err(replica_status)?;
        match self.policies.in_force().await {
            Ok(policy) => Ok(Base {
                version: policy.version,
                document: policy.document.clone(),
                set: policy.set.clone(),
                unreadable: None,
            }),
            Err(unreadable) => Ok(Base {
                version: unreadable.version,
                document: String::new(),
                set: ManifestSet::default(),
                unreadable: Some(unreadable.into()),
            }),
        }
    }

    /// `None`: another version came between.
    async fn put(
        &self,
        base: &Base,
        plan: Plan,
        by: String,
        comment: String,
    ) -> Result<Option<admin::ApplyPolicyResponse>, Status> {
        let upload = Upload {
            number: uuid::Uuid::now_v7().as_u128(),
            expected_version: base.version,
            rules: plan.rules,
            document: plan.document,
            by,
            comment,
        };
        for command in upload.commands() {
            let decided = self.changes.tenants.execute(command, CHANGE_TIMEOUT).await?;
            match decided.outcome {
                Outcome::PolicyStaged => {}
                Outcome::PolicyPut { version, changed } => {
                    return Ok(Some(admin::ApplyPolicyResponse {
                        version,
                        changed,
                        warnings: plan.warnings,
                        objects: plan.changes.into_iter().map(object_change).collect(),
                        diff: plan.diff,
                    }));
                }
                Outcome::Refused(Refusal::VersionConflict { .. } | Refusal::WrongPart { .. }) => {
                    return Ok(None);
                }
                Outcome::Refused(refusal) => return Err(refused(&refusal)),
                other => return Err(unexpected(&other)),
            }
        }
        Err(Status::internal("the last part of a policy puts it in force"))
    }
}

fn parse(request: &admin::ApplyPolicyRequest) -> Result<(ManifestSet, Vec<String>), Status> {
    let files = request.files.iter().map(|file| Source { name: &file.name, text: &file.text });
    let document = Source { name: "policy", text: &request.document };
    let sources: Vec<_> = files.chain(Some(document).filter(|document| !document.text.is_empty())).collect();
    // Also where it replaces all: an empty folder is a mistake more often than a wish.
    if sources.is_empty() {
        return Err(Status::invalid_argument("there is no manifest: files and document are empty"));
    }
    if sources.len() > FILES_MAX {
        return Err(Status::invalid_argument(format!("more than {FILES_MAX} files; join some of them")));
    }
    let mode = if request.lenient { Mode::Lenient } else { Mode::Strict };
    let (set, warnings) = ManifestSet::parse(&sources, mode).map_err(|errors| wrong(&errors.to_string()))?;
    if request.mode() == ApplyMode::Replace && set.to_document().is_empty() {
        return Err(Status::invalid_argument(
            "the manifests hold no object, so replacing would delete the whole policy; if that is meant, delete its objects",
        ));
    }
    Ok((set, warnings))
}

fn plan(base: &ManifestSet, named: &ManifestSet, mode: ApplyMode, wants_diff: bool) -> Result<Plan, Status> {
    let (next, changes) = match mode {
        ApplyMode::Merge => base.apply(named),
        ApplyMode::Replace => (named.clone(), replaced(base, named)),
        ApplyMode::Delete => base.delete(named),
    };
    let (compiled, warnings) = next.compile().map_err(|errors| wrong(&errors.to_string()))?;
    let document = next.to_document();
    if document.len() > POLICY_DOCUMENT_MAX_BYTES {
        return Err(Status::invalid_argument(format!(
            "the whole policy would have {} bytes, more than {POLICY_DOCUMENT_MAX_BYTES}; let subjects separate users",
            document.len()
        )));
    }
    let diff = if wants_diff { diff(base, &next) } else { String::new() };
    Ok(Plan { rules: compiled.rules(), document, changes, warnings, diff })
}

/// All of `new` in place of all of `old`.
fn replaced(old: &ManifestSet, new: &ManifestSet) -> Vec<Change> {
    let (both, mut changes) = old.apply(new);
    let kept: BTreeSet<_> =
        new.objects().map(|object| (object.kind, object.namespace, object.name)).collect();
    for object in both.objects() {
        if !kept.contains(&(object.kind, object.namespace, object.name)) {
            changes.push(Change {
                kind: object.kind.to_owned(),
                namespace: object.namespace.to_owned(),
                name: object.name.to_owned(),
                action: Action::Deleted,
            });
        }
    }
    changes
}

fn would_be(base: &Base, plan: Plan) -> admin::ApplyPolicyResponse {
    admin::ApplyPolicyResponse {
        version: base.version,
        changed: base.version == 0 || base.document != plan.document,
        warnings: plan.warnings,
        objects: plan.changes.into_iter().map(object_change).collect(),
        diff: plan.diff,
    }
}

fn object_change(change: Change) -> admin::ObjectChange {
    admin::ObjectChange {
        kind: change.kind,
        namespace: change.namespace,
        name: change.name,
        action: change.action.to_string(),
    }
}

/// As many of the errors as a status can carry, each whole.
fn wrong(errors: &str) -> Status {
    if errors.len() <= ERRORS_MAX_BYTES {
        return Status::invalid_argument(errors);
    }
    let head = &errors[..errors.floor_char_boundary(ERRORS_MAX_BYTES)];
    let head = head.rsplit_once('\n').map_or(head, |(head, _)| head);
    let more = errors[head.len()..].lines().filter(|line| !line.trim().is_empty()).count();
    Status::invalid_argument(format!("{head}\n… and {more} more; `quorate validate` shows all"))
}

/// Off the threads that serve: a large policy takes a while.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("a policy could not be read: {error}"))))
}
