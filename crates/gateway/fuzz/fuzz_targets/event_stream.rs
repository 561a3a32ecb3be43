//! Any bytes as Bedrock's event stream, bare and in whole frames: events in their order, the same wherever they are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_gateway_fuzz::event_stream;

fuzz_target!(|bytes: &[u8]| event_stream::hold(bytes));
