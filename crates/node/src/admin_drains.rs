//! What operators drain: which backend a name means, and that nothing is sent there until it is undrained.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_ledger::{Command, Outcome};
use quorate_replica::Replica;
use tonic::Status;

use crate::admin_changes::{Changes, unexpected};
use crate::policies::Policies;

#[derive(Debug, Clone)]
pub(crate) struct Drains {
    pub replica: Replica,
    pub changes: Changes,
    pub policies: Arc<Policies>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    pub backend: String,
    pub changed: bool,
    pub known: bool,
}

impl Drains {
    pub async fn set(&self, by: String, named: &str, drained: bool) -> Result<Drained, Status> {
        let mut names: BTreeSet<String> =
            self.replica.read(|ledger, _| ledger.providers().map(|view| view.backend).collect());
        // A policy that this release cannot read has no names for it; what gateways report has.
        if let Ok(policy) = self.policies.in_force().await {
            names.extend(policy.compiled.backends().iter().map(|backend| backend.name.clone()));
        }
        let backend = meant(&names, named).map_err(Status::invalid_argument)?;
        let known = names.contains(&backend);
        match self.changes.change(Command::DrainProvider { backend: backend.clone(), drained, by }).await? {
            Outcome::ProviderDrained { changed, .. } => Ok(Drained { backend, changed, known }),
            other => Err(unexpected(&other)),
        }
    }
}

/// The known backend of this name, or of this name in some namespace; else the name itself.
fn meant(names: &BTreeSet<String>, named: &str) -> Result<String, String> {
    if names.contains(named) || named.contains('/') {
        return Ok(named.to_owned());
    }
    let of_namespace = |name: &&String| name.rsplit_once('/').is_some_and(|(_, bare)| bare == named);
    let found: Vec<&String> = names.iter().filter(of_namespace).collect();
    match found.as_slice() {
        [] => Ok(named.to_owned()),
        [one] => Ok((*one).clone()),
        several => {
            let several = several.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            Err(format!("{named} may be any of {several}; name one of them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_namespace_means_the_one_that_has_it() {
        let names = ["a/openai", "b/openai", "a/anthropic", "mock"].map(str::to_owned);
        let names = BTreeSet::from(names);
        let meant = |named| meant(&names, named);
        assert_eq!(meant("anthropic"), Ok("a/anthropic".to_owned()));
        assert_eq!(meant("mock"), Ok("mock".to_owned()));
        assert_eq!(meant("b/openai"), Ok("b/openai".to_owned()));
        assert_eq!(meant("new"), Ok("new".to_owned()));
        assert_eq!(meant("c/openai"), Ok("c/openai".to_owned()));
        assert_eq!(meant("openai").unwrap_err(), "openai may be any of a/openai, b/openai; name one of them");
    }
}
