//! The page of a run: throughput, latency and every operation on a time line, with the faults behind them. One file
//! without references, so that it can be kept and sent.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::history::{History, Operation, Outcome};
use crate::report::{Summary, all_operations};

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
/// Characters of a call or an answer that are shown.
const SHOWN: usize = 240;

#[derive(Serialize)]
struct Data<'a> {
    summary: &'a Summary,
    workloads: Vec<&'a String>,
    operations: Vec<Row>,
}

/// One operation: workload, process, what, call, from, to (ms; null: never), outcome (0 ok, 1 fail, 2 unknown), answer, index.
type Row = (usize, u64, String, String, f64, Option<f64>, u8, String, u64);

pub fn page(summary: &Summary, history: &History) -> Result<String> {
    let operations = all_operations(summary, history);
    let data = Data {
        summary,
        workloads: summary.counts.keys().collect(),
        operations: operations.iter().map(|(workload, operation)| row(*workload, operation)).collect(),
    };
    // `<` could end the script element.
    let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
    Ok(PAGE.replace("/*SCRIPT*/", SCRIPT).replace("/*DATA*/", &json))
}

fn row(workload: usize, operation: &Operation) -> Row {
    let ms = |us: u64| us as f64 / 1_000.0;
    let ended = (operation.completed_us != u64::MAX).then(|| ms(operation.completed_us));
    let (outcome, answer) = match &operation.outcome {
        Outcome::Ok(answer) => (0, shown(answer)),
        Outcome::Fail => (1, String::new()),
        Outcome::Unknown => (2, String::new()),
    };
    let call = shown(&operation.call);
    let from = ms(operation.invoked_us);
    (workload, operation.process, operation.f.clone(), call, from, ended, outcome, answer, operation.index)
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
