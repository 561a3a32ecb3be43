//! What a node measures. No tenant is ever a label: there may be any number of them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use quorate_ledger::{Command, Outcome};
use quorate_replica::{Replica, Role};
use quorate_rpc::tls::ServerTls;

use crate::clock_metrics::ClockMetrics;
use crate::policy_metrics::PolicyMetrics;
use crate::tls_metrics::TlsMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationLabels {
    operation: Operation,
    outcome: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Operation {
    Reserve,
    Extend,
    Settle,
    Release,
    Expire,
    Adjust,
    Policy,
    Key,
    Alerts,
    Probe,
    Drain,
    Record,
    Provider,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Ended {
    Ok,
    Denied,
    Refused,
    Unavailable,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// Empty without TLS.
    tls: OnceLock<TlsMetrics>,
    operations: Family<OperationLabels, Counter>,
    pub denials_from_state: Counter,
    pub batch_operations: Histogram,
    pub propose_seconds: Histogram,
    pub tenants_active: Gauge,
    pub sessions: Gauge,
    pub watchers: Gauge,
    pub waiting: Gauge,
    pub granted_after_wait: Counter,
    pub policy: PolicyMetrics,
    clock: ClockMetrics,
    pub forwarded: Counter,
    pub refused_calls: Counter,
    is_leader: Gauge,
    term: Gauge,
    last_log_index: Gauge,
    applied_index: Gauge,
    snapshot_index: Gauge,
    log_bytes: Gauge,
    snapshot_bytes: Gauge,
    flushes: Counter<u64, AtomicU64>,
    flush_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("quorate_node")),
            tls: OnceLock::new(),
            operations: Family::default(),
            denials_from_state: Counter::default(),
            batch_operations: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            propose_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 15)),
            tenants_active: Gauge::default(),
            sessions: Gauge::default(),
            watchers: Gauge::default(),
            waiting: Gauge::default(),
            granted_after_wait: Counter::default(),
            policy: PolicyMetrics::default(),
            clock: ClockMetrics::default(),
            forwarded: Counter::default(),
            refused_calls: Counter::default(),
            is_leader: Gauge::default(),
            term: Gauge::default(),
            last_log_index: Gauge::default(),
            applied_index: Gauge::default(),
            snapshot_index: Gauge::default(),
            log_bytes: Gauge::default(),
            snapshot_bytes: Gauge::default(),
            flushes: Counter::default(),
            flush_seconds: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        self.policy.register(&mut registry);
        self.clock.register(&mut registry);
        registry.register("operations", "Operations by kind and outcome", self.operations.clone());
        registry.register(
            "denials_from_state",
            "Denials answered without a log entry",
            self.denials_from_state.clone(),
        );
        registry.register("batch_operations", "Operations in a log entry", self.batch_operations.clone());
        registry.register_with_unit(
            "propose",
            "From proposal to decision",
            Unit::Seconds,
            self.propose_seconds.clone(),
        );
        registry.register("tenants_active", "Tenant actors on this node", self.tenants_active.clone());
        registry.register("sessions", "Open session streams", self.sessions.clone());
        registry.register("watchers", "Open watches", self.watchers.clone());
        registry.register("waiting", "Reservations that wait until others are settled", self.waiting.clone());
        registry.register(
            "granted_after_wait",
            "Reservations that waited and were granted",
            self.granted_after_wait.clone(),
        );
        registry.register("forwarded", "Operations passed on to the leader", self.forwarded.clone());
        registry.register(
            "refused_calls",
            "Calls that the caller's certificate does not allow",
            self.refused_calls.clone(),
        );
        registry.register("is_leader", "1 while this node leads", self.is_leader.clone());
        registry.register("raft_term", "Raft's term", self.term.clone());
        registry.register("raft_last_log_index", "Index of the last log entry", self.last_log_index.clone());
        registry.register(
            "raft_applied_index",
            "Index of the last applied entry",
            self.applied_index.clone(),
        );
        registry.register(
            "raft_snapshot_index",
            "Index of the last entry in the snapshot",
            self.snapshot_index.clone(),
        );
        registry.register_with_unit("log", "Size of the log on disk", Unit::Bytes, self.log_bytes.clone());
        registry.register_with_unit(
            "snapshot",
            "Size of the snapshot on disk",
            Unit::Bytes,
            self.snapshot_bytes.clone(),
        );
        registry.register("log_flushes", "Durable flushes of the log", self.flushes.clone());
        registry.register_with_unit(
            "log_flush_total",
            "Time spent in flushes",
            Unit::Seconds,
            self.flush_seconds.clone(),
        );
    }

    pub fn follow_tls(&self, tls: Arc<ServerTls>) {
        let mut registry = self.registry.lock();
        self.tls.get_or_init(|| TlsMetrics::register(tls, &mut registry));
    }

    /// Counts one finished operation; `None`: undecided.
    pub fn count(&self, operation: &'static str, outcome: Option<&Outcome>) {
        if let Some(outcome) = outcome {
            self.policy.count(outcome);
        }
        let outcome = match outcome {
            None => Ended::Unavailable,
            Some(Outcome::Denied(_)) => Ended::Denied,
            Some(Outcome::Refused(_) | Outcome::ProbeRefused(_)) => Ended::Refused,
            Some(_) => Ended::Ok,
        };
        let operation = match operation {
            "reserve" => Operation::Reserve,
            "extend" => Operation::Extend,
            "settle" => Operation::Settle,
            "release" => Operation::Release,
            "expire" => Operation::Expire,
            "adjust" => Operation::Adjust,
            "policy" => Operation::Policy,
            "key" => Operation::Key,
            "alerts" => Operation::Alerts,
            "probe" => Operation::Probe,
            "drain" => Operation::Drain,
            "record" => Operation::Record,
            _ => Operation::Provider,
        };
        self.operations.get_or_create(&OperationLabels { operation, outcome }).inc();
    }

    /// The page of /metrics, with the replica's figures of now.
    pub fn page(&self, replica: &Replica) -> String {
        let status = replica.status().borrow().clone();
        let storage = replica.storage_stats();
        self.policy.refresh(replica);
        self.clock.refresh(&replica.clock_report());
        if let Some(tls) = self.tls.get() {
            tls.refresh();
        }
        self.is_leader.set(i64::from(status.role == Role::Leader));
        self.term.set(signed(status.term));
        self.last_log_index.set(signed(status.last_log_index));
        self.applied_index.set(signed(status.applied_index));
        self.snapshot_index.set(signed(status.snapshot_index));
        self.log_bytes.set(signed(storage.log_bytes));
        self.snapshot_bytes.set(signed(storage.snapshot_bytes));
        self.flushes.inner().store(storage.flushes, std::sync::atomic::Ordering::Relaxed);
        self.flush_seconds.set(storage.flush_micros_total as f64 / 1e6);
        let mut page = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut page, &self.registry.lock());
        page
    }
}

/// Counts a thing for as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(crate) fn kind(command: &Command) -> &'static str {
    match command {
        Command::Reserve { .. } => "reserve",
        Command::Extend { .. } => "extend",
        Command::Settle { .. } => "settle",
        Command::Release { .. } => "release",
        Command::Expire { .. } => "expire",
        Command::AdjustAccount { .. } => "adjust",
        Command::PutPolicy { .. } | Command::StagePolicy { .. } => "policy",
        Command::PutKey { .. } | Command::RevokeKey { .. } => "key",
        Command::AckAlerts { .. } => "alerts",
        Command::ReportProvider(_) => "provider",
        Command::ClaimProbe { .. } => "probe",
        Command::DrainProvider { .. } => "drain",
        Command::RecordChange { .. } => "record",
    }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
