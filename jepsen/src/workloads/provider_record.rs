//! Follows the record of a simulated provider (`GET /mock/served`), which is the truth about what was served, and puts each
//! request into the history once it has ended. Not a judge of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::http::Http;
use crate::history::Recorder;

/// The record keeps 1,024 requests one by one: this is often enough at any rate that a test reaches.
const EVERY: Duration = Duration::from_millis(300);
/// A request that hangs is given up by its gateway sooner.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);
const LOOKS: u32 = 5;
pub const SERVED: &str = "served";
pub const COMPLETE: &str = "record-complete";
pub const LOST: &str = "record-lost";

/// A request, as its provider saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub backend: String,
    /// `x-request-id`.
    pub marker: String,
    pub status: u16,
    pub input: u64,
    pub output: u64,
    /// When it arrived, by the harness's clock: at this microsecond or in the thousand after it.
    pub at_us: u64,
    pub ended_us: u64,
}

/// Of one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProviderRecord {
    workload: &'static str,
    backend: &'static str,
    http: Http,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// All calls up to here are in the history.
    after: u64,
    /// Those after it that are, too.
    taken: BTreeSet<u64>,
    /// Calls that are under way, as last seen.
    under_way: usize,
}

#[derive(Debug, Deserialize)]
struct Report {
    arrived: u64,
    calls: Vec<Call>,
}

#[derive(Debug, Deserialize)]
struct Call {
    number: u64,
    request_id: String,
    at_ms: u64,
    ended_ms: u64,
    status: u16,
    input_tokens: u64,
    output_tokens: u64,
}

impl ProviderRecord {
    /// Takes the requests whose marker begins with the name of the workload.
    pub fn new(workload: &'static str, backend: &'static str, http: Http) -> Self {
        Self { workload, backend, http, state: Arc::default() }
    }

    pub async fn follow(&self, recorder: &Recorder, address: &str, stop: &CancellationToken) {
        loop {
            // A provider that cannot be asked is asked again: `drain` finds out whether anything was missed.
            let _ = self.poll(recorder, address).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Waits until nothing is under way, and says so in the history.
    ///
    /// # Errors
    /// The provider does not answer, or requests do not end.
    pub async fn drain(&self, recorder: &Recorder, address: &str) -> Result<()> {
        let deadline = Instant::now() + DRAINED_WITHIN;
        loop {
            let under_way = self.poll(recorder, address).await?;
            if under_way == 0 {
                recorder.info(self.workload, COMPLETE, &self.backend);
                return Ok(());
            }
            let name = self.backend;
            anyhow::ensure!(Instant::now() < deadline, "{under_way} requests to {name} do not end");
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn poll(&self, recorder: &Recorder, address: &str) -> Result<usize> {
        let mut state = self.state.lock().await;
        let path = format!("/mock/served?after={}", state.after);
        let report = self.http.json(Method::GET, address, &path, &Value::Null).await?;
        let report: Report = serde_json::from_value(report).context("the record of the provider")?;
        let began_us = began_us(|| recorder.elapsed_us(), unix_us);
        state.take(&report, |call| {
            let elapsed = |ms: u64| ms.saturating_mul(1_000).saturating_sub(began_us);
            if call.request_id.starts_with(self.workload) {
                let served = Served {
                    backend: self.backend.to_owned(),
                    marker: call.request_id.clone(),
                    status: call.status,
                    input: call.input_tokens,
                    output: call.output_tokens,
                    at_us: elapsed(call.at_ms),
                    ended_us: elapsed(call.ended_ms),
                };
                recorder.info(self.workload, SERVED, &served);
            }
        });
        if state.missed(&report) {
            recorder.info(self.workload, LOST, &self.backend);
        }
        Ok(state.under_way)
    }
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// When the run began, by the clock of the providers, which may be corrected while it goes on. Both clocks have to be read at
/// one moment; a thread that has to wait between the two tries again, and the closest counts.
fn began_us(elapsed_us: impl Fn() -> u64, unix_us: impl Fn() -> u64) -> u64 {
    let look = |_| {
        let (before, unix, after) = (elapsed_us(), unix_us(), elapsed_us());
        (after.saturating_sub(before), unix.saturating_sub(before.midpoint(after)))
    };
    (0..LOOKS).map(look).min().map_or(0, |(_, began_us)| began_us)
}

impl State {
    fn take(&mut self, report: &Report, mut put: impl FnMut(&Call)) {
        let (ended, open): (Vec<&Call>, Vec<&Call>) = report.calls.iter().partition(|call| call.ended_ms > 0);
        for call in ended {
            if call.number > self.after && self.taken.insert(call.number) {
                put(call);
            }
        }
        self.under_way = open.len();
    }

    /// Moves on; true if requests were pushed out of the provider's record before they were seen.
    fn missed(&mut self, report: &Report) -> bool {
        let first_open = report.calls.iter().find(|call| call.ended_ms == 0).map(|call| call.number);
        let oldest = report.calls.first().map_or(report.arrived + 1, |call| call.number);
        let gone = (self.after + 1..oldest).any(|number| !self.taken.contains(&number));
        self.after = first_open.unwrap_or(report.arrived + 1).saturating_sub(1).max(self.after);
        self.taken = self.taken.split_off(&(self.after + 1));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(arrived: u64, calls: &[(u64, u64)]) -> Report {
        let call = |(number, ended_ms): &(u64, u64)| Call {
            number: *number,
            request_id: format!("r{number}"),
            at_ms: 1,
            ended_ms: *ended_ms,
            status: 200,
            input_tokens: 1,
            output_tokens: 1,
        };
        Report { arrived, calls: calls.iter().map(call).collect() }
    }

    #[test]
    fn each_call_is_taken_once_when_it_has_ended() {
        let (mut state, mut put) = (State::default(), Vec::new());
        for calls in [
            report(3, &[(1, 5), (2, 0), (3, 6)]),
            report(4, &[(2, 0), (3, 6), (4, 9)]),
            report(4, &[(2, 9), (3, 6), (4, 9)]),
        ] {
            state.take(&calls, |call| put.push(call.number));
            assert!(!state.missed(&calls));
        }
        assert_eq!((put, state.after, state.under_way), (vec![1, 3, 4, 2], 4, 0));
        let nothing = report(4, &[]);
        state.take(&nothing, |_| panic!("there is nothing"));
        assert!(!state.missed(&nothing));
    }

    #[test]
    fn a_wait_between_two_clocks_does_not_count() {
        let elapsed = std::cell::Cell::new(0);
        let ticks = std::cell::Cell::new(0);
        let tick = || {
            ticks.set(ticks.get() + 1);
            // Once in five it has to wait, and the first time it waits where it hurts.
            elapsed.set(elapsed.get() + if ticks.get() % 5 == 2 { 10_000 } else { 1 });
            elapsed.get()
        };
        let began = began_us(tick, || 1_000_000 + tick());
        assert!(began.abs_diff(1_000_000) <= 1, "{began}");
    }

    #[test]
    fn a_gap_is_told() {
        let mut state = State::default();
        let calls = report(9, &[(3, 5)]);
        state.take(&calls, |_| ());
        assert!(state.missed(&calls), "1 and 2 were never seen");
    }
}
