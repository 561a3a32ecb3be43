//! What the workloads on accounts share: who sends and records operations, the tenants of a run, and its last reads.

pub mod drive;
pub mod finish;
pub mod player;
pub mod tenants;
