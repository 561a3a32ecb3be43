//! AWS Bedrock as a backend: Converse and ConverseStream for any model, InvokeModel for Anthropic's own bodies.
//!
//! Sources: Bedrock's API reference (Converse, ConverseStream, InvokeModelWithResponseStream) and Smithy's event stream
//! encoding. Deliberately absent: signatures (SigV4), Bedrock as a client's dialect, embeddings.

pub(crate) mod answer;
mod content;
pub(crate) mod error;
pub(crate) mod frame;
pub(crate) mod invoke;
mod media;
mod model;
mod reasoning;
pub(crate) mod request;
pub(crate) mod stream;
mod tools;
mod usage;
