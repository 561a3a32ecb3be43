//! The record of what was served: totals, and the latest requests one by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ask::Usage;
use super::dialect::Dialect;

/// Requests that are shown one by one; the totals count them all.
const CALLS_MAX: usize = 1_024;
/// A longer `x-request-id` is cut.
const REQUEST_ID_MAX_CHARS: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Served {
    requests: AtomicU64,
    refused: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    /// Written once a request, read by tests only: a lock is enough.
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    arrived: u64,
    latest: VecDeque<Arc<Record>>,
}

/// A request under way. Its record has an end when this is dropped: all of the answer was handed over, or nobody wants
/// it any more.
#[derive(Debug)]
pub(super) struct Call {
    record: Arc<Record>,
}

/// One request. It is here from its arrival on; status 0 until an answer is decided.
#[derive(Debug)]
struct Record {
    number: u64,
    request_id: String,
    at_ms: u64,
    ended_ms: AtomicU64,
    dialect: Dialect,
    path: String,
    model: String,
    status: AtomicU16,
    input_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    cache_write_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

impl Served {
    pub fn arrived(&self, dialect: Dialect, path: String, model: String, request_id: &str) -> Call {
        let mut calls = self.calls.lock();
        calls.arrived += 1;
        let record = Arc::new(Record {
            number: calls.arrived,
            request_id: request_id.chars().take(REQUEST_ID_MAX_CHARS).collect(),
            at_ms: now_ms(),
            ended_ms: AtomicU64::new(0),
            dialect,
            path,
            model,
            status: AtomicU16::new(0),
            input_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            cache_write_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
        });
        if calls.latest.len() == CALLS_MAX {
            calls.latest.pop_front();
        }
        calls.latest.push_back(record.clone());
        Call { record }
    }

    pub fn refused(&self, call: &Call, status: u16) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        call.record.status.store(status, Ordering::Relaxed);
    }

    /// The answer begins; its output is counted as it leaves.
    pub fn answered(&self, call: &Call, usage: &Usage) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.input_tokens.fetch_add(usage.input, Ordering::Relaxed);
        call.record.status.store(200, Ordering::Relaxed);
        call.record.input_tokens.store(usage.input, Ordering::Relaxed);
        call.record.cached_tokens.store(usage.cached, Ordering::Relaxed);
        call.record.cache_write_tokens.store(usage.cache_write, Ordering::Relaxed);
    }

    pub fn sent(&self, call: &Call, output_tokens: u64) {
        self.output_tokens.fetch_add(output_tokens, Ordering::Relaxed);
        call.record.output_tokens.fetch_add(output_tokens, Ordering::Relaxed);
    }

    /// `after`: only calls with a higher number, one by one.
    pub fn report(&self, after: u64) -> Value {
        let [requests, refused, input, output] =
            [&self.requests, &self.refused, &self.input_tokens, &self.output_tokens]
                .map(|count| count.load(Ordering::Relaxed));
        let (arrived, calls) = {
            let calls = self.calls.lock();
            let newer = calls.latest.iter().filter(|record| record.number > after);
            (calls.arrived, newer.map(|record| record.report()).collect::<Vec<_>>())
        };
        json!({
            "requests": requests, "refused": refused, "input_tokens": input, "output_tokens": output,
            "total_tokens": input + output, "arrived": arrived, "now_ms": now_ms(), "calls": calls,
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.record.ended_ms.store(now_ms(), Ordering::Release);
    }
}

impl Record {
    fn report(&self) -> Value {
        // First: with an end, the counts below are final.
        let ended_ms = self.ended_ms.load(Ordering::Acquire);
        let [input, cached, cache_write, output] =
            [&self.input_tokens, &self.cached_tokens, &self.cache_write_tokens, &self.output_tokens]
                .map(|count| count.load(Ordering::Relaxed));
        json!({
            "number": self.number, "request_id": self.request_id, "at_ms": self.at_ms, "ended_ms": ended_ms,
            "dialect": self.dialect.name(), "path": self.path, "model": self.model,
            "status": self.status.load(Ordering::Relaxed), "input_tokens": input, "cached_tokens": cached,
            "cache_write_tokens": cache_write, "output_tokens": output,
        })
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
