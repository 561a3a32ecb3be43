//! `jepsen/run`: real Quorate processes under faults. What is promised: `jepsen/SEMANTICS.md`.

mod check;
mod client;
mod deploy;
mod edn;
mod faults;
mod history;
mod workloads;

fn main() {}
