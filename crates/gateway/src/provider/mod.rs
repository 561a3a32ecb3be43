//! What a provider's API looks like on the wire: pure functions over bytes. Deliberately absent: HTTP types, async,
//! clocks, budgets. A second provider is a second set of these files.

pub(crate) mod answer;
mod beginning;
pub(crate) mod body_mutation;
pub(crate) mod chunk;
pub(crate) mod error_body;
pub(crate) mod facts;
pub(crate) mod splice;
pub(crate) mod sse;
pub(crate) mod stream_options;
pub(crate) mod tally;
pub(crate) mod usage;

pub(crate) use facts::{Endpoint, Facts};
pub(crate) use usage::Usage;
