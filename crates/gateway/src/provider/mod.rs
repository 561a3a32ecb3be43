//! What the providers' APIs look like on the wire: pure functions over bytes. Deliberately absent: HTTP types, async,
//! clocks, budgets.
//!
//! - [`endpoint`]: which endpoint goes to which kind of backend, and in which way; [`exchange`] and [`stream`] do it.
//! - [`openai`], [`anthropic`], [`bedrock`]: a folder a dialect; its requests, answers, streams and errors, decoded to and
//!   encoded from what is [`neutral`].
//! - [`passing`]: what bodies say that pass as they are, and the few edits of them.

pub(crate) mod anthropic;
pub(crate) mod azure;
pub(crate) mod bedrock;
pub(crate) mod endpoint;
pub(crate) mod error_body;
pub(crate) mod exchange;
#[cfg(test)]
mod golden_tests;
pub(crate) mod neutral;
pub(crate) mod openai;
pub(crate) mod passing;
pub(crate) mod percent;
pub(crate) mod sse;
pub(crate) mod stream;
pub(crate) mod usage;

pub(crate) use endpoint::{Api, Dialect, Endpoint, Way};
pub(crate) use neutral::{closed_schema, conversation, reply, too_long, tool_input, tool_names};
pub(crate) use passing::{
    answer, beginning, body_mutation, borrowed, chunk,
    facts::{self, Facts},
    fields, form, kinds, output, splice, stream_options, tally, typed,
};
pub(crate) use usage::Usage;
