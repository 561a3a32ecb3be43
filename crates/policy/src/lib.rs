//! Policies: manifests in, answers about requests out.
//!
//! Three steps, each in a folder of its own: [`manifests`] (text to typed objects, every mistake at its place; sets of
//! them), `lower` (what the objects mean together: budgets, routes, backends), [`runtime`] (which of them meet a request,
//! what it can cost). Pure. What is deliberately absent: files, the cluster, HTTP types, counters, secrets.

mod address;
mod lower;
pub mod manifests;
mod nearest;
pub mod runtime;

pub use address::is_forbidden;
pub use lower::{AlertRoute, Compiled};
pub use nearest::did_you_mean;
