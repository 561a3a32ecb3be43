//! What goes wrong, on purpose. Each fault knows how to bring it about and how to undo it.

mod behind;
mod catalogue;
mod choose;
mod clock;
pub mod command;
mod damage;
mod disk;
mod gateways;
mod kill;
mod leader;
mod link;
mod members;
mod needs;
mod partition;
mod pause;
mod power;
mod restart;
pub mod schedule;
mod shapes;

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;

use crate::deploy::{Deployment, Options};

pub use catalogue::{Known, all, by_name};
pub use choose::NobodyRuns;
pub use needs::Need;

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

/// What `inject` and `heal` do, and what they say of it.
type Doing<'a> = BoxFuture<'a, Result<String>>;

/// Sets up in the options what these faults need of a deployment.
///
/// # Errors
/// A name is unknown, or something is missing here; says what.
pub fn equip(names: &[&str], options: &mut Options) -> Result<()> {
    for name in names {
        let known = by_name(name)?;
        if let Some(missing) = known.missing(options) {
            anyhow::bail!("fault {name} is not possible here: {missing}");
        }
        options.clocks |= known.needs.contains(&Need::Clocks);
        options.disks |= known.needs.contains(&Need::Disks);
    }
    // Without the upgrade all run the binary under test.
    if !names.contains(&"rolling-upgrade") {
        options.previous = None;
    }
    Ok(())
}

/// `1, 2 and 3`
fn list<T: std::fmt::Display>(what: &[T]) -> String {
    let words: Vec<String> = what.iter().map(ToString::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nobody".to_owned(),
    }
}
