//! What goes wrong, on purpose. Each fault knows how to bring it about and how to undo it.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;

use crate::deploy::Deployment;

pub trait Fault: Send {
    /// As `--fault` takes it: `kill-one`, `partition-halves` …
    fn name(&self) -> &'static str;

    /// Brings it about; says what was done to whom, for the history. `random` decides who is hit.
    fn inject<'a>(
        &'a mut self,
        deployment: &'a Arc<Deployment>,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String>>;

    /// Undoes it, all of it, also when `inject` failed half-way; says what was done.
    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> BoxFuture<'a, Result<String>>;
}
