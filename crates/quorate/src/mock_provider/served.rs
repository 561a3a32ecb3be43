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

#[derive(Debug, Default)]
pub(super) struct Served {
    requests: AtomicU64,
    refused: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    /// Written once a request, read by tests only: a lock is enough.
    calls: Mutex<VecDeque<Arc<Call>>>,
}

/// One request. It is here from its arrival on; status 0 until an answer is decided.
#[derive(Debug)]
pub(super) struct Call {
    at_ms: u64,
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
    pub fn arrived(&self, dialect: Dialect, path: String, model: String) -> Arc<Call> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let call = Arc::new(Call {
            at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            dialect,
            path,
            model,
            status: AtomicU16::new(0),
            input_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            cache_write_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
        });
        let mut calls = self.calls.lock();
        if calls.len() == CALLS_MAX {
            calls.pop_front();
        }
        calls.push_back(call.clone());
        call
    }

    pub fn refused(&self, call: &Call, status: u16) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        call.status.store(status, Ordering::Relaxed);
    }

    /// The answer begins; its output is counted as it leaves.
    pub fn answered(&self, call: &Call, usage: &Usage) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.input_tokens.fetch_add(usage.input, Ordering::Relaxed);
        call.status.store(200, Ordering::Relaxed);
        call.input_tokens.store(usage.input, Ordering::Relaxed);
        call.cached_tokens.store(usage.cached, Ordering::Relaxed);
        call.cache_write_tokens.store(usage.cache_write, Ordering::Relaxed);
    }

    pub fn sent(&self, call: &Call, output_tokens: u64) {
        self.output_tokens.fetch_add(output_tokens, Ordering::Relaxed);
        call.output_tokens.fetch_add(output_tokens, Ordering::Relaxed);
    }

    pub fn report(&self) -> Value {
        let [requests, refused, input, output] =
            [&self.requests, &self.refused, &self.input_tokens, &self.output_tokens]
                .map(|count| count.load(Ordering::Relaxed));
        let calls: Vec<Value> = self.calls.lock().iter().map(|call| call.report()).collect();
        json!({
            "requests": requests, "refused": refused, "input_tokens": input, "output_tokens": output,
            "total_tokens": input + output, "calls": calls,
        })
    }
}

impl Call {
    fn report(&self) -> Value {
        let [input, cached, cache_write, output] =
            [&self.input_tokens, &self.cached_tokens, &self.cache_write_tokens, &self.output_tokens]
                .map(|count| count.load(Ordering::Relaxed));
        json!({
            "at_ms": self.at_ms, "dialect": self.dialect.name(), "path": self.path, "model": self.model,
            "status": self.status.load(Ordering::Relaxed), "input_tokens": input, "cached_tokens": cached,
            "cache_write_tokens": cache_write, "output_tokens": output,
        })
    }
}
