//! Any text as manifests: an answer that names the place or a set that means the same by way of its document.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_policy_fuzz::{abort_on_panics_of_this_thread, manifests};

fuzz_target!(init: abort_on_panics_of_this_thread(), |text: &str| manifests::hold(text));
