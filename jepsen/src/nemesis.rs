//! Brings faults about and undoes them, while clients work. Which, when and for how long: `faults/schedule.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::deploy::Deployment;
use crate::faults::schedule::{Schedule, Step};
use crate::faults::{Fault, Known, NobodyRuns};
use crate::history::{NEMESIS, Recorder};

/// A fault that begins so shortly before the end shows nothing.
const WORTH_IT: Duration = Duration::from_secs(2);
/// For what begins only then.
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// Steps follow each other until the deadline, each healed before the next. The history says what was done when.
///
/// # Errors
/// A fault could not be brought about or undone.
pub async fn run(
    deployment: &Arc<Deployment>,
    recorder: &Recorder,
    choice: Vec<&'static Known>,
    seed: u64,
    deadline: Instant,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let left = || deadline.saturating_duration_since(Instant::now());
    for step in Schedule::new(seed, choice) {
        sleep(step.quiet.min(left())).await;
        if left() < WORTH_IT {
            break;
        }
        one_step(deployment, recorder, &step, &mut random, deadline).await?;
    }
    sleep(left()).await;
    Ok(())
}

async fn one_step(
    deployment: &Arc<Deployment>,
    recorder: &Recorder,
    step: &Step,
    random: &mut StdRng,
    deadline: Instant,
) -> Result<()> {
    let mut begun: Vec<Box<dyn Fault>> = Vec::new();
    let mut injected = Ok(());
    for known in &step.faults {
        let name = known.name;
        if known.class.is_alone() {
            let well = deployment.wait_until_well(WELL_WITHIN).await;
            well.with_context(|| format!("before fault {name}"))?;
        }
        begun.push(known.make());
        let Some(fault) = begun.last_mut() else { break };
        // Before it begins: what comes to pass while it is brought about is part of it.
        recorder.info(NEMESIS, &format!("begin:{name}"), &"");
        let done = match fault.inject(deployment, random).await {
            Err(error) if error.is::<NobodyRuns>() => Ok(format!("nothing was done: {error}")),
            done => done,
        };
        match done {
            Ok(done) => {
                tracing::info!(fault = name, done, "injected");
                recorder.info(NEMESIS, &format!("inject:{name}"), &done);
            }
            Err(error) => {
                recorder.info(NEMESIS, &format!("inject:{name}"), &format!("failed half-way: {error:#}"));
                injected = Err(error.context(format!("fault {name}")));
                break;
            }
        }
    }
    if injected.is_ok() {
        sleep(step.lasts.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
    for mut fault in begun.into_iter().rev() {
        let name = fault.name();
        let healed = fault.heal(deployment).await.with_context(|| format!("fault {name}: healing"))?;
        tracing::info!(fault = name, healed, "healed");
        recorder.info(NEMESIS, &format!("heal:{name}"), &healed);
    }
    injected
}
