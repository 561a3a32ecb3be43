//! Any bytes as server-sent events: the same events wherever they are cut, and every byte comes out again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_gateway_fuzz::sse;

fuzz_target!(|bytes: &[u8]| sse::hold(bytes));
