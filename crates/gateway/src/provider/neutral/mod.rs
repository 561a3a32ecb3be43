//! Conversations and answers in no house's dialect: what decoders make and encoders take, and what they share in between.

pub(crate) mod closed_schema;
pub(crate) mod conversation;
pub(crate) mod reply;
pub(crate) mod too_long;
pub(crate) mod tool_input;
pub(crate) mod tool_names;
