//! Clocks that are wrong: libfaketime shifts what a node's process sees. Monotonic time is left alone, as it is by NTP.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::choose::{self, Who};
use super::{Doing, Fault, list};
use crate::deploy::Deployment;

const JUMP_S: std::ops::RangeInclusive<i64> = 1..=90;
const SKEW_MS: std::ops::RangeInclusive<i64> = -3_000..=3_000;
const STROBE_S: std::ops::RangeInclusive<i64> = 1..=20;
/// The library looks at its file once a second.
const STROBE_EVERY: Duration = Duration::from_millis(1_100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One node's clock, far ahead or far behind.
    Jump,
    /// Every node's clock, by a little.
    Skew,
    /// One node's clock, to and fro.
    Strobe,
}

#[derive(Debug)]
pub struct Clock {
    pub name: &'static str,
    pub what: What,
    pub wrong: Vec<u64>,
    pub strobing: Option<(DropGuard, tokio::task::JoinHandle<()>)>,
}

fn seconds(offset_ms: i64) -> String {
    format!("{:+}.{:03}", offset_ms / 1_000, offset_ms.abs() % 1_000)
}

/// Also between -1 and 0, where the whole seconds have no sign.
fn offset(offset_ms: i64) -> String {
    let text = seconds(offset_ms);
    if offset_ms < 0 && text.starts_with('+') { text.replacen('+', "-", 1) } else { text }
}

impl Fault for Clock {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, deployment: &'a Arc<Deployment>, random: &'a mut StdRng) -> Doing<'a> {
        Box::pin(async move {
            let leads = random.random_bool(0.5);
            let who = match self.what {
                What::Skew => Who::All,
                _ if leads => Who::Leader,
                _ => Who::One,
            };
            self.wrong = choose::nodes(deployment, who, random).await?;
            let sign = if random.random_bool(0.5) { 1 } else { -1 };
            if self.what == What::Strobe {
                let by = offset(sign * 1_000 * random.random_range(STROBE_S));
                let stop = CancellationToken::new();
                let task = tokio::spawn(strobe(deployment.clone(), self.wrong[0], by.clone(), stop.clone()));
                self.strobing = Some((stop.drop_guard(), task));
                return Ok(format!("the clock of node {} goes to and fro by {by} s", self.wrong[0]));
            }
            let mut said = Vec::new();
            for id in &self.wrong {
                let by = match self.what {
                    What::Jump => sign * 1_000 * random.random_range(JUMP_S),
                    _ => random.random_range(SKEW_MS),
                };
                deployment.set_clock(*id, &offset(by))?;
                said.push(format!("node {id} by {} s", offset(by)));
            }
            Ok(format!("clocks are wrong: {}", list(&said)))
        })
    }

    fn heal<'a>(&'a mut self, deployment: &'a Arc<Deployment>) -> Doing<'a> {
        Box::pin(async move {
            if let Some((stop, task)) = self.strobing.take() {
                drop(stop);
                task.await?;
            }
            let wrong = std::mem::take(&mut self.wrong);
            wrong.iter().try_for_each(|id| deployment.set_clock(*id, "+0"))?;
            Ok(format!("the clock of node {} is right", list(&wrong)))
        })
    }
}

async fn strobe(deployment: Arc<Deployment>, id: u64, by: String, stop: CancellationToken) {
    let mut wrong = false;
    loop {
        wrong = !wrong;
        if let Err(error) = deployment.set_clock(id, if wrong { &by } else { "+0" }) {
            tracing::warn!(%error, "the clock stays");
            return;
        }
        if stop.run_until_cancelled(tokio::time::sleep(STROBE_EVERY)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_as_the_library_reads_them() {
        let cases = [(0, "+0.000"), (1_500, "+1.500"), (-300, "-0.300"), (-90_000, "-90.000"), (7, "+0.007")];
        for (ms, text) in cases {
            assert_eq!(offset(ms), text);
        }
    }
}
