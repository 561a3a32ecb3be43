//! What the fuzz targets hold policies to: properties of manifests, of matching, of cost expressions.
//!
//! The targets themselves are one line each in `fuzz_targets/`, since their macro is not free of `unsafe`. A property that
//! does not hold panics. What is deliberately absent: known answers, which are in `crates/policy/tests`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a property says what it expects by unwrapping it")]

pub mod expressions;
pub mod manifests;
pub mod matching;
mod scan;
mod shape;

use std::panic;
use std::thread;

/// libFuzzer's macro ends the process at any panic. Expressions are parsed on a thread of their own, and a panic there is
/// an error to whoever waits for it: only those of the calling thread count.
pub fn abort_on_panics_of_this_thread() {
    let counts = thread::current().id();
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == counts {
            end(panic);
        }
    }));
}
