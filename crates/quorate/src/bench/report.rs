//! What a benchmark found, as a table or as JSON.

use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;

use crate::bench::lease::LeaseCheck;
use crate::bench::load::{Cpu, Measured};
use crate::output;

/// Everything that was measured, and on what.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_tenants: Option<IdleTenants>,
    /// What the gateway adds to a request at the median, alone on the machine; millionths of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_adds_micros: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases: Option<LeaseCheck>,
}

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpus: usize,
    pub model: String,
    pub version: &'static str,
}

/// One measurement. Latencies are of operations that succeeded, in microseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub target: String,
    /// "closed" or "open"
    pub r#loop: &'static str,
    pub clients: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    pub seconds: f64,
    pub operations: u64,
    pub per_second: f64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub p999_micros: u64,
    pub max_micros: u64,
    pub errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Open loop: due, but not even sent before the end.
    pub unsent: u64,
    pub cpu_micros_per_operation: CpuPerOperation,
}

#[derive(Debug, Default, Serialize)]
pub struct CpuPerOperation {
    /// All nodes together.
    pub nodes: Option<f64>,
    pub gateways: Option<f64>,
    pub provider: Option<f64>,
    pub bench: Option<f64>,
}

/// Resident memory of the nodes before and after many tenants were made.
#[derive(Debug, Serialize)]
pub struct IdleTenants {
    pub tenants: u64,
    pub before_bytes: Vec<u64>,
    pub after_bytes: Vec<u64>,
}

impl Default for Machine {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("unknown", |(_, model)| model.trim()).to_owned();
        Self { cpus, model, version: env!("CARGO_PKG_VERSION") }
    }
}

impl Row {
    pub fn new(target: impl Into<String>, measured: Measured) -> Self {
        let Measured { load, seconds, latency, errors, first_error, unsent, cpu } = measured;
        let operations = latency.len();
        Self {
            target: target.into(),
            r#loop: if load.rate.is_some() { "open" } else { "closed" },
            clients: load.clients,
            rate: load.rate,
            seconds,
            operations,
            per_second: operations as f64 / seconds.max(f64::EPSILON),
            p50_micros: latency.value_at_quantile(0.5),
            p99_micros: latency.value_at_quantile(0.99),
            p999_micros: latency.value_at_quantile(0.999),
            max_micros: latency.max(),
            errors,
            first_error,
            unsent,
            cpu_micros_per_operation: CpuPerOperation::new(cpu, operations),
        }
    }
}

impl Row {
    /// What was counted as one were so many, sent and answered together: each of them waited as long.
    pub fn of_several(mut self, number: u32) -> Self {
        self.operations *= u64::from(number);
        self.errors *= u64::from(number);
        self.per_second *= f64::from(number);
        let cpu = &mut self.cpu_micros_per_operation;
        for share in [&mut cpu.nodes, &mut cpu.gateways, &mut cpu.provider, &mut cpu.bench] {
            *share = share.map(|share| share / f64::from(number));
        }
        self
    }
}

impl CpuPerOperation {
    fn new(cpu: Cpu, operations: u64) -> Self {
        let share = |spent: Option<Duration>| Some(spent?.as_secs_f64() * 1e6 / operations.max(1) as f64);
        Self {
            nodes: share(cpu.nodes),
            gateways: share(cpu.gateways),
            provider: share(cpu.provider),
            bench: share(cpu.bench),
        }
    }
}

impl Report {
    pub fn table(&self) -> Table {
        let mut table = output::table(&[
            "TARGET",
            "LOOP",
            "CLIENTS",
            "OPS",
            "OPS/S",
            "P50",
            "P99",
            "P99.9",
            "ERRORS",
            "CPU µs/OP: NODES",
            "GATEWAY",
            "PROVIDER",
            "BENCH",
        ]);
        for row in &self.rows {
            let how = row.rate.map_or_else(|| row.r#loop.to_owned(), |rate| format!("open {rate}/s"));
            let errors = match row.unsent {
                0 => row.errors.to_string(),
                unsent => format!("{} ({unsent} unsent)", row.errors),
            };
            let cpu = &row.cpu_micros_per_operation;
            table.add_row([
                row.target.clone(),
                how,
                row.clients.to_string(),
                row.operations.to_string(),
                format!("{:.0}", row.per_second),
                milliseconds(row.p50_micros),
                milliseconds(row.p99_micros),
                milliseconds(row.p999_micros),
                errors,
                micros(cpu.nodes),
                micros(cpu.gateways),
                micros(cpu.provider),
                micros(cpu.bench),
            ]);
        }
        table
    }

    /// What does not fit the table.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "{} CPUs, {}; quorate {}",
            self.machine.cpus, self.machine.model, self.machine.version
        )];
        if let Some(adds) = self.gateway_adds_micros {
            notes.push(format!(
                "the gateway adds {:.2} ms to a request at the median, alone on the machine",
                adds as f64 / 1e3
            ));
        }
        if let Some(leases) = &self.leases {
            let whole = |number: u64| output::units(number.saturating_mul(1_000_000));
            notes.push(format!(
                "leases: {} requests from {} slices, {} to the cluster; settled {} tokens, the ledger's account shows {}{}",
                whole(leases.local),
                whole(leases.slices),
                whole(leases.direct),
                whole(leases.settled_units),
                whole(leases.spent_units),
                if leases.is_exact() { ", exactly the sum" } else { ": not the sum" },
            ));
            let rate = |target: &str| {
                self.rows.iter().find(|row| row.target.starts_with(target)).map(|row| row.per_second)
            };
            if let Some((leased, reserved)) = rate("leases").zip(rate("budget service")) {
                notes.push(format!("leases: {:.1} times the operations of reservations", leased / reserved));
            }
        }
        if let Some(idle) = &self.idle_tenants {
            let one = |(before, after): (&u64, &u64)| {
                format!("{} → {}", output::bytes(*before), output::bytes(*after))
            };
            let nodes: Vec<String> = idle.before_bytes.iter().zip(&idle.after_bytes).map(one).collect();
            notes.push(format!(
                "{} idle tenants, resident memory of the nodes: {}",
                idle.tenants,
                nodes.join(", ")
            ));
        }
        let failed = self.rows.iter().filter_map(|row| Some((row, row.first_error.as_ref()?)));
        notes.extend(
            failed.map(|(row, error)| format!("{}: {} errors, the first: {error}", row.target, row.errors)),
        );
        notes
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1e3)
}

fn micros(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}
