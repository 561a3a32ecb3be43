//! Anthropic's Messages API, of clients and of backends: Anthropic itself, whoever speaks like it, and its models on
//! Bedrock's InvokeModel.

pub(crate) mod answer;
pub(crate) mod bedrock_body;
pub(crate) mod betas;
pub(crate) mod blocks;
pub(crate) mod count;
pub(crate) mod error;
pub(crate) mod fields;
mod media;
pub(crate) mod model;
pub(crate) mod outgoing;
pub(crate) mod request;
#[cfg(test)]
mod round_trip;
pub(crate) mod stream;
pub(crate) mod stream_out;
pub(crate) mod thinking;
pub(crate) mod wire;
