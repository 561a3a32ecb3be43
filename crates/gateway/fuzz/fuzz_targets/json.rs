//! Any bytes as requests, answers, events and errors of every dialect: understood or refused, and what is understood can be
//! said in every other dialect or is refused there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_gateway_fuzz::json;

fuzz_target!(|bytes: &[u8]| json::hold(bytes));
