//! Any text as a cost expression: refused, or a cost that is the same each time and within its bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_policy_fuzz::{abort_on_panics_of_this_thread, expressions};

fuzz_target!(init: abort_on_panics_of_this_thread(), |text: &str| expressions::hold(text));
