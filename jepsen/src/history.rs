//! What was asked and what came back, in the order in which it happened: Jepsen's format. A process has one operation
//! under way at a time; after an unknown answer it goes on under a new number, because the old operation may still take
//! effect. Kept in memory and, line by line, in `history.jsonl`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The workload of events that are about faults.
pub const NEMESIS: &str = "nemesis";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    /// It took effect, and this is its answer.
    Ok,
    /// It did not take effect and never will.
    Fail,
    /// It may have taken effect, or may yet. For the nemesis: something happened.
    Info,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub index: u64,
    /// Microseconds since the run began, by the harness's monotonic clock.
    pub time_us: u64,
    pub workload: String,
    pub process: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What is done, in the workload's words: `reserve`, `settle`, `read` …
    pub f: String,
    /// The arguments (invoke), or the answer (ok); shaped by the workload.
    pub value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Ok(Value),
    Fail,
    Unknown,
}

/// An invocation and its completion, brought together.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Index of the invocation.
    pub index: u64,
    pub process: u64,
    pub f: String,
    pub call: Value,
    pub invoked_us: u64,
    /// `u64::MAX`: unknown, so it may take effect at any later time.
    pub completed_us: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    pub events: Vec<Event>,
}

impl History {
    /// # Errors
    /// The file cannot be read, or a line of it is no event: named with its number.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read history {}", path.display()))?;
        let parse = |(number, line): (usize, std::io::Result<String>)| -> Result<Event> {
            let place = || format!("{}, line {}", path.display(), number + 1);
            serde_json::from_str(&line.with_context(place)?).with_context(place)
        };
        let events = BufReader::new(file).lines().enumerate().map(parse).collect::<Result<_>>()?;
        Ok(Self { events })
    }

    /// Every operation of one workload, by invocation.
    pub fn operations(&self, workload: &str) -> Vec<Operation> {
        let mut operations: Vec<Operation> = Vec::new();
        let mut open = std::collections::HashMap::new();
        for event in self.events.iter().filter(|event| event.workload == workload) {
            if event.kind == Kind::Invoke {
                open.insert(event.process, operations.len());
                operations.push(Operation {
                    index: event.index,
                    process: event.process,
                    f: event.f.clone(),
                    call: event.value.clone(),
                    invoked_us: event.time_us,
                    completed_us: u64::MAX,
                    outcome: Outcome::Unknown,
                });
            } else if let Some(place) = open.remove(&event.process) {
                let operation = &mut operations[place];
                match event.kind {
                    Kind::Ok => operation.outcome = Outcome::Ok(event.value.clone()),
                    Kind::Fail => operation.outcome = Outcome::Fail,
                    Kind::Invoke | Kind::Info => continue,
                }
                operation.completed_us = event.time_us;
            }
        }
        operations
    }

    /// What the nemesis did.
    pub fn faults(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.workload == NEMESIS)
    }
}

/// Takes events from many tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    next_process: AtomicU64,
    /// One lock, so that the order of events is the order of their times.
    log: Mutex<(History, BufWriter<File>)>,
}

impl Recorder {
    /// # Errors
    /// The file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write history {}", path.display()))?;
        let log = Mutex::new((History::default(), BufWriter::new(file)));
        let shared = Shared { started: Instant::now(), next_process: AtomicU64::new(0), log };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A number that no other process has.
    pub fn process(&self) -> u64 {
        self.shared.next_process.fetch_add(1, Ordering::Relaxed)
    }

    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records the beginning of an operation; its end is told to what this returns.
    pub fn invoke(
        &self,
        workload: &'static str,
        process: u64,
        f: &'static str,
        call: &impl Serialize,
    ) -> Pending {
        self.push(workload, process, Kind::Invoke, f, call, None);
        Pending { recorder: self.clone(), workload, process, f }
    }

    /// Something that happened and was not asked for: a fault, for one.
    pub fn info(&self, workload: &'static str, f: &str, value: &impl Serialize) {
        self.push(workload, u64::MAX, Kind::Info, f, value, None);
    }

    fn push(
        &self,
        workload: &str,
        process: u64,
        kind: Kind,
        f: &str,
        value: &impl Serialize,
        error: Option<String>,
    ) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        let mut log = self.shared.log.lock();
        let (history, file) = &mut *log;
        let event = Event {
            index: history.events.len() as u64,
            time_us: self.elapsed_us(),
            workload: workload.to_owned(),
            process,
            kind,
            f: f.to_owned(),
            value,
            error,
        };
        // Seen again by `finish`: a buffered writer keeps what it could not write.
        if serde_json::to_writer(&mut *file, &event).is_ok() {
            let _ = file.write_all(b"\n");
        }
        history.events.push(event);
    }

    /// Everything so far, taken away: of a long run it fills much of the memory. The file is complete up to here.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> Result<History> {
        let mut log = self.shared.log.lock();
        log.1.flush().context("cannot write the history")?;
        Ok(std::mem::take(&mut log.0))
    }
}

/// An operation under way. Dropped without an answer, its outcome is unknown.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    recorder: Recorder,
    workload: &'static str,
    process: u64,
    f: &'static str,
}

impl Pending {
    pub fn ok(self, value: &impl Serialize) {
        self.end(Kind::Ok, value, None);
    }

    pub fn fail(self, error: &str) {
        self.end(Kind::Fail, &Value::Null, Some(error.to_owned()));
    }

    /// The process number must not be used again: see [`Recorder::process`].
    pub fn unknown(self, error: &str) {
        self.end(Kind::Info, &Value::Null, Some(error.to_owned()));
    }

    fn end(&self, kind: Kind, value: &impl Serialize, error: Option<String>) {
        self.recorder.push(self.workload, self.process, kind, self.f, value, error);
    }
}
