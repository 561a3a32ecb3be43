//! OpenAI's chat completions, which many servers speak: Azure OpenAI, vLLM, Ollama, Groq, OpenRouter.
//!
//! Sources: OpenAI's API reference ("Chat completions", "Streaming events", "Errors"); for thoughts and cache marks, of
//! which OpenAI's chat knows nothing, the habits of LiteLLM, OpenRouter, vLLM and DeepSeek.

pub(crate) mod answer;
pub(crate) mod error;
pub(crate) mod request;
pub(crate) mod stream;

mod answered;
mod calls;
mod chunks;
mod effort;
mod fields;
mod messages_in;
mod messages_out;
mod parts_in;
mod parts_out;
mod request_in;
mod request_out;
mod strict;
mod tools_in;
