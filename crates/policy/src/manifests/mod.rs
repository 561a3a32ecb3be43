//! Manifests: YAML in, typed objects out, with every mistake at its place; sets of them, merged, compared and written.
//!
//! Two dialects apply side by side: the official one of Envoy AI Gateway and Envoy Gateway, and that of a widely read
//! tutorial. What is deliberately absent: files (text comes in), the cluster, and what objects mean together (`lower`).

mod diff;
mod error;
mod kind;
pub(crate) mod kinds;
pub(crate) mod object;
mod parse;
mod reader;
mod report;
mod set;
mod values;
mod yaml;

pub use diff::diff;
pub use error::{PolicyError, PolicyErrors};
pub(crate) use kind::Kind;
pub use report::Mode;
pub use set::{Action, Change, ManifestSet, ObjectView, Source};
pub(crate) use values::NAME_MAX_BYTES;
