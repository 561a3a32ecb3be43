//! Follows the policy in force: every new document is compiled once, here, and its backends are opened. One that this
//! gateway cannot read (written for a newer version) leaves the last good one in force.

use std::{
    fs,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use quorate_policy::runtime::{CompiledPolicy, JwksSource};
use quorate_rpc::{PolicyDocument, WatchHandle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    backends::{Backends, Configured, Unusable},
    config::GatewayConfig,
    error::GatewayError,
    jwt::KeySet,
    lower,
    metrics::Metrics,
    secrets::Secrets,
};

/// What a gateway itself brings to every policy.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) configured: Configured,
    pub(crate) secrets: Secrets,
}

impl Sources {
    pub(crate) fn open(config: &GatewayConfig) -> Result<Self, GatewayError> {
        Ok(Self { configured: Configured::open(&config.backends)?, secrets: Secrets::open(&config.secrets)? })
    }
}

/// A compiled policy with all that it needs. Requests hold the one that they began with; nothing is judged by half of it.
#[derive(Debug)]
pub(crate) struct ActivePolicy {
    pub(crate) version: u64,
    pub(crate) policy: CompiledPolicy,
    pub(crate) sources: Arc<Sources>,
    backends: Backends,
    /// Headers that carry tenant, team and user.
    pub(crate) identity_headers: Arc<[String; 3]>,
    /// Some budgets are of one backend, or have an account for each.
    pub(crate) has_budgets_of_backends: bool,
    /// The keys of tokens; `None`: the policy has no rules for tokens. The error is for the log, not for clients.
    pub(crate) jwks: Option<Result<KeySet, String>>,
}

impl ActivePolicy {
    /// Reads files: secrets, and the JWKS if the policy names one.
    pub(crate) fn new(version: u64, policy: CompiledPolicy, sources: &Arc<Sources>) -> Self {
        let backends = Backends::of(policy.backends(), &sources.configured, &sources.secrets);
        let jwks = policy.identity().jwt.as_ref().map(|rules| jwks(&rules.jwks));
        if let Some(Err(error)) = &jwks {
            tracing::error!(
                version,
                error,
                "no token can be verified; correct the JWKS and apply the policy again"
            );
        }
        let has_budgets_of_backends = policy.all_budgets().iter().any(|budget| budget.is_of_backend());
        let identity_headers = Arc::new(policy.identity().headers());
        let sources = Arc::clone(sources);
        Self { version, policy, sources, backends, identity_headers, has_budgets_of_backends, jwks }
    }

    fn has_jwks_file(&self) -> bool {
        let rules = self.policy.identity().jwt.as_ref();
        rules.is_some_and(|rules| matches!(rules.jwks, JwksSource::File(_)))
    }

    /// By the name that the policy's routes use.
    pub(crate) fn backend(&self, name: &str) -> Result<Arc<crate::backend::Backend>, Unusable> {
        self.backends.named(name, &self.sources.configured)
    }
}

fn jwks(source: &JwksSource) -> Result<KeySet, String> {
    match source {
        JwksSource::Inline(text) => KeySet::parse(text).map_err(|error| format!("the policy's JWKS {error}")),
        JwksSource::File(path) => {
            let text = read_file(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            KeySet::parse(&text).map_err(|error| format!("{path} {error}"))
        }
    }
}

/// The policy names it: what is no file might never end, and no later policy would come into force here.
fn read_file(path: &str) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > JWKS_BYTES_MAX {
        return Err(io::Error::other(format!("is no file of at most {JWKS_BYTES_MAX} bytes")));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(JWKS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) type PolicyReceiver = watch::Receiver<Option<Arc<ActivePolicy>>>;

/// A set of public keys is small.
const JWKS_BYTES_MAX: u64 = 1 << 20;
/// How often a JWKS file is looked at again: keys are rotated.
const REREAD: Duration = Duration::from_secs(60);

/// Runs until `stop`, or until nobody sends documents any more. Tells the cluster which version runs here.
pub(crate) async fn follow(
    watched: Arc<WatchHandle>,
    active: watch::Sender<Option<Arc<ActivePolicy>>>,
    sources: Arc<Sources>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut documents = watched.policy();
    let mut running = 0;
    loop {
        let document = documents.borrow_and_update().clone();
        let mut rereads = false;
        if let Some(document) = document {
            let error = match compile(&document, &sources).await {
                Ok(policy) => {
                    if running != policy.version {
                        tracing::info!(version = policy.version, "policy in force");
                    }
                    running = policy.version;
                    rereads = policy.has_jwks_file();
                    metrics.policy_version.set(running);
                    active.send_replace(Some(Arc::new(policy)));
                    String::new()
                }
                Err(error) => {
                    metrics.policy_errors.inc();
                    tracing::error!(
                        version = document.version,
                        error,
                        "this gateway cannot read the new policy and keeps the one before; upgrade it"
                    );
                    error
                }
            };
            watched.report(running, &error);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = documents.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REREAD), if rereads => {}
        }
    }
}

/// On a thread of its own: a policy of many rules takes a while, and files are read.
async fn compile(document: &Arc<PolicyDocument>, sources: &Arc<Sources>) -> Result<ActivePolicy, String> {
    let (document, sources) = (Arc::clone(document), Arc::clone(sources));
    let compiling = move || {
        let policy = lower::compile(&document.document)?;
        Ok(ActivePolicy::new(document.version, policy, &sources))
    };
    tokio::task::spawn_blocking(compiling).await.map_err(|error| format!("compiling failed: {error}"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_is_a_file_of_moderate_size() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large.json");
        fs::write(&large, vec![b' '; JWKS_BYTES_MAX as usize + 1]).unwrap();
        for path in ["/dev/zero", dir.path().to_str().unwrap(), large.to_str().unwrap()] {
            let error = jwks(&JwksSource::File(path.to_owned())).unwrap_err();
            assert!(error.contains(path) && error.contains("no file of at most"), "{error}");
        }
    }
}
