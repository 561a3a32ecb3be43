//! A deterministic simulation: the real proposer, tenants, actors, queues and decisions, over a simulated group and network,
//! in simulated time, from one seed. A seed that fails is repeated with a readable trace, and then stands in `REGRESSIONS`.
//!
//! What is simulated and what is not: docs/reliability.md. Not here: openraft, sled and gRPC; those meet real faults in jepsen/.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail here")]

mod check;
mod client;
mod cluster;
mod faults;
mod group;
mod history;
mod plan;
mod raft;
mod rng;
mod run;
mod scenarios;
mod workload;
mod world;

#[path = "../../../ledger/tests/model/facts.rs"]
mod facts;
#[path = "../../../ledger/tests/model/naive.rs"]
mod naive;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use run::{Report, run};

/// Seeds that once failed.
const REGRESSIONS: &[u64] = &[1_795_659_099_000_000, 1_795_659_943_004_583];
/// In the ordinary test run; CI has a step of its own with more.
const SECONDS_DEFAULT: u64 = 10;

/// What must have happened in a hundred seeds, for the checks to have something to check.
const WANTED: &[&str] = &[
    "granted",
    "denied, held",
    "denied",
    "settled",
    "overdraft",
    "released",
    "extended",
    "expired",
    "adjusted",
    "policy put",
    "id reused",
    "stale id",
    "future id",
    "unknown reservation",
    "already resolved",
    "crash",
    "election",
    "inherited entries",
    "lost entries",
    "left without an answer",
    "answered after its leadership",
    "overloaded",
    "timed out at a node",
    "denied from state",
    "granted after a wait",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn explain(seed: u64, report: &Report) -> String {
    format!(
        "seed {seed} fails:\n{}\nsee it with: QUORATE_SIM_SEED={seed} cargo test -p quorate-node --lib \
         simulation::seeds -- --nocapture",
        report.failures.join("\n")
    )
}

#[test]
fn regressions() {
    for seed in REGRESSIONS {
        let report = run(*seed, false);
        assert!(report.failures.is_empty(), "{}", explain(*seed, &report));
    }
}

/// `QUORATE_SIM_SEED`: that one only, with its trace. `QUORATE_SIM_SECONDS`: for so long, on all processors.
#[test]
fn seeds() {
    if let Some(seed) = number("QUORATE_SIM_SEED") {
        let report = run(seed, true);
        report.trace.iter().for_each(|line| println!("{line}"));
        assert!(report.failures.is_empty(), "{}", explain(seed, &report));
        return;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let base = number("QUORATE_SIM_BASE").unwrap_or(since.as_secs() * 1_000_000);
    let wanted = Duration::from_secs(number("QUORATE_SIM_SECONDS").unwrap_or(SECONDS_DEFAULT));
    let (next, began, failed) = (AtomicU64::new(base), Instant::now(), AtomicBool::new(false));
    let totals = Mutex::new((0_u64, Report::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while began.elapsed() < wanted && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let report = run(seed, false);
                    let mut totals = totals.lock().unwrap();
                    totals.0 += 1;
                    totals.1.operations += report.operations;
                    totals.1.entries += report.entries;
                    totals.1.terms += report.terms;
                    totals.1.unknown += report.unknown;
                    for (what, count) in &report.seen {
                        *totals.1.seen.entry(what).or_default() += count;
                    }
                    if !report.failures.is_empty() {
                        failed.store(true, Ordering::Relaxed);
                        totals.2.push(explain(seed, &report));
                    }
                }
            });
        }
    });
    let (runs, sums, failures) = totals.into_inner().unwrap();
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "simulation: {runs} seeds from {base}, {:.0} a minute: {} operations ({} unknown), {} log entries, {} terms\n{:?}",
        runs as f64 / minutes,
        sums.operations,
        sums.unknown,
        sums.entries,
        sums.terms,
        sums.seen
    );
    assert!(failures.is_empty(), "after {runs} seeds, {}", failures.join("\n"));
    let missing: Vec<_> = WANTED.iter().filter(|what| !sums.seen.contains_key(*what)).collect();
    assert!(missing.is_empty() || runs < 100, "the simulation does not reach {missing:?} in {runs} seeds");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=5 {
        let (once, again) = (run(seed, true), run(seed, true));
        let differs = once.trace.iter().zip(&again.trace).find(|(left, right)| left != right);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(once.trace.len(), again.trace.len(), "seed {seed}");
        assert!(once.trace.len() > 100, "seed {seed} does little");
    }
}
