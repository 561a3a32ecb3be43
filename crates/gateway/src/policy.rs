//! Follows the policy in force: every new document is compiled once, here. One that this gateway cannot read (written
//! for a newer version) leaves the last good one in force.

use std::sync::Arc;

use quorate_policy::Policy;
use quorate_rpc::PolicyDocument;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A compiled policy.
#[derive(Debug)]
pub(crate) struct ActivePolicy {
    pub(crate) version: u64,
    pub(crate) policy: Policy,
}

pub(crate) type PolicyReceiver = watch::Receiver<Option<Arc<ActivePolicy>>>;

/// Runs until `stop`, or until nobody sends documents any more.
pub(crate) async fn follow(
    mut documents: watch::Receiver<Option<Arc<PolicyDocument>>>,
    active: watch::Sender<Option<Arc<ActivePolicy>>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        let document = documents.borrow_and_update().clone();
        if let Some(document) = document {
            compile(&document, &active, &metrics);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = documents.changed() => if changed.is_err() { return },
        }
    }
}

fn compile(document: &PolicyDocument, active: &watch::Sender<Option<Arc<ActivePolicy>>>, metrics: &Metrics) {
    match Policy::parse(&document.document) {
        Ok(policy) => {
            tracing::info!(version = document.version, "policy in force");
            metrics.policy_version.set(document.version);
            active.send_replace(Some(Arc::new(ActivePolicy { version: document.version, policy })));
        }
        Err(error) => {
            metrics.policy_errors.inc();
            tracing::error!(
                version = document.version,
                %error,
                "this gateway cannot read the new policy and keeps the one before; upgrade it"
            );
        }
    }
}
