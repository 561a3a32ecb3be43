//! Brings faults about and undoes them, while clients work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::deploy::Deployment;
use crate::faults::{self, Fault};
use crate::history::{NEMESIS, Recorder};

/// How long nothing is wrong, and how long something is.
const QUIET_MS: std::ops::Range<u64> = 3_000..6_000;
const FAULTY_MS: std::ops::Range<u64> = 2_000..8_000;

/// Faults take turns until the deadline, each healed before the next. The history says what was done when.
///
/// # Errors
/// A fault could not be brought about or undone.
pub async fn run(
    deployment: &Arc<Deployment>,
    recorder: &Recorder,
    names: &[&'static str],
    seed: u64,
    deadline: Instant,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x6e65_6d65_7369_7321);
    let left = || deadline.saturating_duration_since(Instant::now());
    loop {
        let quiet = Duration::from_millis(random.random_range(QUIET_MS));
        sleep(quiet.min(left())).await;
        let faulty = Duration::from_millis(random.random_range(FAULTY_MS));
        let Some(name) = names.choose(&mut random).filter(|_| left() > Duration::from_secs(1)) else {
            sleep(left()).await;
            return Ok(());
        };
        let mut fault = faults::by_name(name).with_context(|| format!("there is no fault {name}"))?;
        let done = fault.inject(deployment, &mut random).await;
        recorder.info(NEMESIS, &format!("inject:{name}"), &done.as_deref().unwrap_or("failed half-way"));
        tracing::info!(fault = name, done = done.as_deref().unwrap_or("failed half-way"), "injected");
        if done.is_ok() {
            sleep(faulty.min(left())).await;
        }
        let healed = fault.heal(deployment).await.with_context(|| format!("fault {name}: healing"))?;
        recorder.info(NEMESIS, &format!("heal:{name}"), &healed);
        tracing::info!(fault = name, healed, "healed");
        done.with_context(|| format!("fault {name}"))?;
    }
}
