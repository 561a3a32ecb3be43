//! Any request at a policy of examples and budgets made up: the index finds what a scan of all rules finds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_policy_fuzz::{abort_on_panics_of_this_thread, matching};

fuzz_target!(init: abort_on_panics_of_this_thread(), |case: matching::Case| case.hold());
