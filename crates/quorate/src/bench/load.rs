//! Generates load and measures it.
//!
//! Closed loop: each client sends its next operation when the last one is answered. Open loop: operations are due at a
//! fixed rate whatever the answers do, and latency counts from when one was due, so that a stall is not hidden by the
//! clients that wait for it ("coordinated omission").

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bench::process::{self, Process};

const LATENCY_MAX_MICROS: u64 = 60_000_000;
/// How often the pacer of an open loop looks at the clock.
const PACE: Duration = Duration::from_micros(200);

/// Clients share so many tallies: one each would be a hundred kilobytes each, and the load would measure its own caches.
const TALLIES: usize = 8;

/// Something that can be done again and again.
pub trait Work: Send + Sync + 'static {
    /// What one client keeps between its operations.
    type Client: Send + 'static;

    fn client(&self, number: usize) -> Self::Client;

    /// One operation. An error is counted, and the first one is shown.
    fn step(&self, client: &mut Self::Client) -> impl Future<Output = Result<(), String>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub clients: usize,
    /// Operations a second; `None`: closed loop.
    pub rate: Option<f64>,
    pub duration: Duration,
    /// Before the measurement; not counted.
    pub warm_up: Duration,
    /// Ends the measurement earlier than `duration`.
    pub operations_max: Option<u64>,
}

/// Processes whose CPU time is told apart.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    pub nodes: Vec<Process>,
    pub gateways: Vec<Process>,
    pub provider: Vec<Process>,
}

/// CPU time of a measurement; `None` where it is not known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub nodes: Option<Duration>,
    pub gateways: Option<Duration>,
    pub provider: Option<Duration>,
    pub bench: Option<Duration>,
}

#[derive(Debug)]
pub struct Measured {
    pub load: Load,
    pub seconds: f64,
    /// Micros, of the operations that succeeded.
    pub latency: Histogram<u64>,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Open loop: operations that were due and could not even be sent before the end.
    pub unsent: u64,
    pub cpu: Cpu,
}

/// What was done since the lap before.
#[derive(Debug)]
pub struct Lap {
    /// Seconds since the measurement began.
    pub end: f64,
    pub latency: Histogram<u64>,
    pub errors: u64,
}

/// What the clients share. Times are fixed before they start, so that nobody has to be told.
#[derive(Debug)]
struct Course {
    /// Of the warm-up.
    start: Instant,
    /// Of the measurement.
    begin: Instant,
    end: Instant,
    rate: Option<f64>,
    /// Counts down, if the number is bounded.
    left: Option<AtomicU64>,
    /// One permit for each operation that is due; closed at the end.
    due: Semaphore,
    next: AtomicU64,
}

#[derive(Debug)]
struct Tally {
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    last: Option<Instant>,
}

/// Runs the load to its end.
///
/// # Errors
/// A client's task failed, which is a mistake of the benchmark.
pub async fn run<W: Work>(work: Arc<W>, load: Load, watched: &Watched) -> Result<Measured> {
    run_in_laps(work, load, watched, load.duration.saturating_mul(2), |_| {}).await
}

/// The same, and tells of each lap when it is over.
///
/// # Errors
/// As for [`run`].
pub async fn run_in_laps<W: Work>(
    work: Arc<W>,
    load: Load,
    watched: &Watched,
    every: Duration,
    mut on_lap: impl FnMut(Lap),
) -> Result<Measured> {
    let start = Instant::now();
    let begin = start + load.warm_up;
    let course = Arc::new(Course {
        start,
        begin,
        end: begin + load.duration,
        rate: load.rate,
        left: load.operations_max.map(AtomicU64::new),
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
    });
    let tallies = (0..TALLIES).map(|_| Tally::new().map(Mutex::new)).collect::<Result<Arc<[_]>>>()?;
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        clients.spawn(drive(work.clone(), number, course.clone(), tallies.clone()));
    }
    let pacer = load.rate.map(|rate| {
        let course = course.clone();
        std::thread::spawn(move || pace(&course, rate))
    });
    tokio::time::sleep_until(begin.into()).await;
    let before = cpu_now(watched);
    let mut after = None;
    let mut total = Tally::new()?;
    let mut laps = tokio::time::interval_at((begin + every).into(), every);
    loop {
        tokio::select! {
            finished = clients.join_next() => {
                let Some(finished) = finished else { break };
                // Those that end last only wait for their last answers.
                after.get_or_insert_with(|| cpu_now(watched));
                finished.context("a client of the benchmark failed")?;
            }
            _ = laps.tick() => {
                let lap = take(&tallies)?;
                total.add(&lap)?;
                let end = begin.elapsed().as_secs_f64();
                on_lap(Lap { end, latency: lap.latency, errors: lap.errors });
            }
        }
    }
    total.add(&take(&tallies)?)?;
    course.due.close();
    let paced = match pacer {
        Some(pacer) => pacer.join().unwrap_or(0),
        None => 0,
    };
    let last = total.last.unwrap_or(course.end).max(begin + Duration::from_millis(1));
    Ok(Measured {
        load,
        seconds: last.min(course.end).duration_since(begin).as_secs_f64(),
        latency: total.latency,
        errors: total.errors,
        first_error: total.first_error,
        unsent: paced.saturating_sub(course.next.load(Ordering::Relaxed)),
        cpu: before.until(after.unwrap_or(before)),
    })
}

/// What the tallies have; they begin anew.
fn take(tallies: &[Mutex<Tally>]) -> Result<Tally> {
    let mut taken = Tally::new()?;
    for part in tallies {
        let mut part = part.lock();
        taken.add(&part)?;
        part.latency.reset();
        part.errors = 0;
        part.first_error = None;
    }
    Ok(taken)
}

/// One client: from the warm-up to the end.
async fn drive<W: Work>(work: Arc<W>, number: usize, course: Arc<Course>, tallies: Arc<[Mutex<Tally>]>) {
    let tally = &tallies[number % tallies.len()];
    let mut client = work.client(number);
    while let Some(due) = course.next().await {
        let done = work.step(&mut client).await;
        let now = Instant::now();
        // What a closed loop has not finished at the end does not count; what was due in an open loop does.
        if due < course.begin || (course.rate.is_none() && now > course.end) {
            continue;
        }
        let mut tally = tally.lock();
        tally.last = tally.last.max(Some(now));
        match done {
            Ok(()) => tally.latency.saturating_record(micros(now.duration_since(due))),
            Err(error) => {
                tally.errors += 1;
                tally.first_error.get_or_insert(error);
            }
        }
    }
}

impl Course {
    /// When the next operation of a client is due (it may be late already); `None` at the end.
    async fn next(&self) -> Option<Instant> {
        if self.rate.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        let now = Instant::now();
        if now >= self.end {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.rate.map_or(now, |rate| self.start + Duration::from_secs_f64(number as f64 / rate));
        if let (Some(left), true) = (&self.left, due >= self.begin) {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
        }
        Some(due)
    }
}

/// Hands out permits as operations become due; returns how many were. A thread of its own, because tokio's timer counts
/// in whole milliseconds.
fn pace(course: &Course, rate: f64) -> u64 {
    let mut given = 0_u64;
    loop {
        let now = Instant::now();
        if now >= course.end || course.due.is_closed() {
            course.due.close();
            return given;
        }
        let due = 1 + (now.saturating_duration_since(course.start).as_secs_f64() * rate) as u64;
        if due > given {
            course.due.add_permits(usize::try_from(due - given).unwrap_or(0));
            given = due;
        }
        std::thread::sleep(PACE);
    }
}

impl Tally {
    fn new() -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3).context("histogram")?;
        Ok(Self { latency, errors: 0, first_error: None, last: None })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.latency.add(&other.latency).context("histogram")?;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.last = self.last.max(other.last);
        Ok(())
    }
}

impl Cpu {
    fn until(self, later: Self) -> Self {
        let spent = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
        Self {
            nodes: spent(self.nodes, later.nodes),
            gateways: spent(self.gateways, later.gateways),
            provider: spent(self.provider, later.provider),
            bench: spent(self.bench, later.bench),
        }
    }
}

fn cpu_now(watched: &Watched) -> Cpu {
    // Of processes that somebody else started nothing is known.
    let of = |processes: &[Process]| if processes.is_empty() { None } else { process::cpu(processes) };
    Cpu {
        nodes: of(&watched.nodes),
        gateways: of(&watched.gateways),
        provider: of(&watched.provider),
        bench: Process::this().cpu(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns at one thing that takes a while.
    #[derive(Debug)]
    struct Turnstile {
        gate: tokio::sync::Mutex<()>,
        takes: Duration,
    }

    impl Work for Turnstile {
        type Client = u64;

        fn client(&self, _number: usize) -> u64 {
            0
        }

        async fn step(&self, count: &mut u64) -> Result<(), String> {
            let _turn = self.gate.lock().await;
            tokio::time::sleep(self.takes).await;
            *count += 1;
            if count.is_multiple_of(2) { Err("every second".to_owned()) } else { Ok(()) }
        }
    }

    fn load(rate: Option<f64>, operations_max: Option<u64>) -> Load {
        let (duration, warm_up) = (Duration::from_millis(400), Duration::from_millis(20));
        Load { clients: 4, rate, duration, warm_up, operations_max }
    }

    async fn measure(takes_ms: u64, load: Load) -> Measured {
        let work = Turnstile { gate: tokio::sync::Mutex::default(), takes: Duration::from_millis(takes_ms) };
        run(Arc::new(work), load, &Watched::default()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bounded_closed_loop_stops_at_its_number() {
        let measured = measure(0, load(None, Some(10))).await;
        let counted = measured.latency.len() + measured.errors;
        assert!((1..=10).contains(&counted), "{counted}");
        assert!(measured.seconds < 0.4, "{}", measured.seconds);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn laps_add_up_to_the_whole() {
        let work = Turnstile { gate: tokio::sync::Mutex::default(), takes: Duration::from_millis(2) };
        let (mut laps, mut done) = (0, 0);
        let every = Duration::from_millis(100);
        let nobody = Watched::default();
        let measured = run_in_laps(Arc::new(work), load(None, None), &nobody, every, |lap| {
            laps += 1;
            done += lap.latency.len() + lap.errors;
        });
        let measured = measured.await.unwrap();
        assert!(laps >= 2, "{laps}");
        let total = measured.latency.len() + measured.errors;
        assert!(done > 0 && done <= total, "{done} of {total}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_open_loop_counts_the_wait_of_what_was_due() {
        // Due every 2 ms, served every 20 ms: later ones wait for nearly the whole run, which a closed loop would hide.
        let measured = measure(20, load(Some(500.0), None)).await;
        assert!(measured.latency.max() > 150_000, "{} µs", measured.latency.max());
        assert!(measured.unsent > 50, "{}", measured.unsent);
        assert!(measured.errors > 0 && measured.first_error.as_deref() == Some("every second"));
    }
}
