//! The policy in force as this release reads it: parsed and compiled once for each version, when it is first needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_policy::runtime::CompiledPolicy;
use quorate_replica::Replica;
use thiserror::Error;
use tonic::Status;

use crate::config::{AlertsConfig, SecretKey};
use crate::metrics::Metrics;
use quorate_policy::manifests::ManifestSet;

/// Under load entries are applied far more often than policies change.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One version, taken apart.
#[derive(Debug)]
pub(crate) struct InForce {
    pub version: u64,
    pub document: String,
    pub set: ManifestSet,
    pub compiled: CompiledPolicy,
    /// By budget.
    alert_routes: BTreeMap<String, Vec<AlertRoute>>,
    pub warnings: Vec<String>,
}

/// The cluster goes on enforcing what it has; but nothing can be merged into it here.
#[derive(Debug, Clone, Error)]
#[error(
    "policy version {version} is in force, but this release ({release}) cannot read it: {problem}. Its budgets hold as they are; \
     update this node, or apply a whole policy in its place (replace)",
    release = env!("CARGO_PKG_VERSION")
)]
pub(crate) struct Unreadable {
    pub version: u64,
    problem: Arc<str>,
}

/// Where the alerts of a budget go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertRoute {
    pub url: String,
    pub secret: Option<SecretKey>,
}

type Read = Result<Arc<InForce>, Unreadable>;

#[derive(Debug)]
pub(crate) struct Policies {
    replica: Replica,
    default_route: Option<AlertRoute>,
    /// Held while a version is compiled, so that callers do not compile it each.
    compiling: tokio::sync::Mutex<()>,
    /// Held for a look-up only, never over an await.
    latest: Mutex<Option<(u64, Read)>>,
}

impl Policies {
    pub fn new(replica: Replica, alerts: &AlertsConfig) -> Arc<Self> {
        let route = |url: &String| AlertRoute { url: url.clone(), secret: alerts.secret.clone() };
        let default_route = alerts.url.as_ref().map(route);
        Arc::new(Self {
            replica,
            default_route,
            compiling: tokio::sync::Mutex::default(),
            latest: Mutex::default(),
        })
    }

    /// What this node has applied; linearizable only after `linearize`.
    ///
    /// # Errors
    /// This release cannot read it.
    pub async fn in_force(&self) -> Read {
        let version = self.replica.read(|ledger, _| ledger.policy_version());
        if let Some(known) = self.known(version) {
            return known;
        }
        let _compiling = self.compiling.lock().await;
        let policy = self.replica.read(|ledger, _| ledger.policy());
        if let Some(known) = self.known(policy.version) {
            return known;
        }
        let version = policy.version;
        // A large policy takes a while.
        let compiled = tokio::task::spawn_blocking(move || InForce::read(version, policy.document)).await;
        let compiled = compiled.unwrap_or_else(|error| Err(error.to_string()));
        let compiled =
            compiled.map(Arc::new).map_err(|problem| Unreadable { version, problem: problem.into() });
        *self.latest.lock() = Some((version, compiled.clone()));
        compiled
    }

    /// Another version than the one in force.
    ///
    /// # Errors
    /// This release cannot read it.
    pub async fn earlier(&self, version: u64, document: String) -> Result<InForce, Unreadable> {
        let read = tokio::task::spawn_blocking(move || InForce::read(version, document)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        read.map_err(|problem| Unreadable { version, problem: problem.into() })
    }

    fn known(&self, version: u64) -> Option<Read> {
        let latest = self.latest.lock();
        latest.as_ref().filter(|(known, _)| *known == version).map(|(_, compiled)| compiled.clone())
    }

    /// Says of every version that comes whether it can be read here; until the node stops.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut applied = self.replica.applied();
        let mut seen = None;
        loop {
            applied.mark_unchanged();
            let version = self.replica.read(|ledger, _| ledger.policy_version());
            if seen != Some(version) {
                seen = Some(version);
                let read = self.in_force().await;
                metrics.policy.unreadable.set(i64::from(read.is_err()));
                match read {
                    Ok(policy) => tracing::info!(version = policy.version, "policy in force"),
                    Err(unreadable) => tracing::error!("{unreadable}"),
                }
            }
            if applied.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where the alerts of a budget go, as the policy or else this node's configuration says. Empty: nowhere.
    pub fn alert_routes(&self, policy: &InForce, budget: &str) -> Vec<AlertRoute> {
        let own = policy.alert_routes.get(budget);
        own.cloned().unwrap_or_else(|| self.default_route.iter().cloned().collect())
    }
}

impl InForce {
    fn read(version: u64, document: String) -> Result<Self, String> {
        // Before the first policy there is none.
        let set = match version {
            0 => ManifestSet::default(),
            _ => ManifestSet::from_document(&document).map_err(|error| error.to_string())?,
        };
        let compiled = set.compile_all().map_err(|error| error.to_string())?;
        let mut alert_routes: BTreeMap<String, Vec<AlertRoute>> = BTreeMap::new();
        for route in compiled.alerts {
            let secret = route.secret.map(|secret| SecretKey { name: secret.name, key: secret.key });
            alert_routes.entry(route.budget).or_default().push(AlertRoute { url: route.url, secret });
        }
        let (compiled, warnings) = (compiled.policy, compiled.warnings);
        Ok(Self { version, document, set, compiled, alert_routes, warnings })
    }
}

impl From<Unreadable> for Status {
    fn from(unreadable: Unreadable) -> Self {
        Self::failed_precondition(unreadable.to_string())
    }
}

/// Without the query, which may hold a token.
impl fmt::Display for AlertRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.split(['?', '#']).next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_release_is_named_with_what_to_do() {
        let problem = InForce::read(7, "apiVersion: quorate.dev/v9\nkind: Spell\n".to_owned()).unwrap_err();
        let told = Unreadable { version: 7, problem: problem.into() }.to_string();
        for words in ["policy version 7", "this release", "cannot read it", "update this node", "replace"] {
            assert!(told.contains(words), "{words:?} is missing in {told}");
        }
    }

    #[test]
    fn before_the_first_policy_there_is_nothing() {
        let none = InForce::read(0, String::new()).unwrap();
        assert!(none.set.is_empty() && none.compiled.all_budgets().is_empty());
    }
}
