//! What the providers' APIs look like on the wire: pure functions over bytes. Deliberately absent: HTTP types, async,
//! clocks, budgets.
//!
//! A folder a provider holds its dialect: requests, answers, streams and errors, decoded to and encoded from the neutral
//! [`conversation`] and [`reply`]. The files beside them read bodies that pass through as they are.

pub(crate) mod answer;
pub(crate) mod anthropic;
pub(crate) mod azure;
pub(crate) mod bedrock;
mod beginning;
pub(crate) mod body_mutation;
pub(crate) mod chunk;
mod closed_schema;
pub(crate) mod conversation;
pub(crate) mod endpoint;
pub(crate) mod error_body;
pub(crate) mod exchange;
pub(crate) mod facts;
pub(crate) mod fields;
pub(crate) mod form;
#[cfg(test)]
mod golden_tests;
mod kinds;
pub(crate) mod openai;
pub(crate) mod output;
pub(crate) mod reply;
pub(crate) mod splice;
pub(crate) mod sse;
pub(crate) mod stream;
pub(crate) mod stream_options;
pub(crate) mod tally;
mod too_long;
mod tool_input;
pub(crate) mod typed;
pub(crate) mod usage;

pub(crate) use endpoint::{Api, Dialect, Endpoint, Way};
pub(crate) use facts::Facts;
pub(crate) use usage::Usage;
