//! What the fuzz targets hold the codecs to: bytes of a provider or a client never panic, and cuts change nothing.
//!
//! The targets themselves are one line each in `fuzz_targets/`, since their macro is not free of `unsafe`. A property that
//! does not hold panics. What is deliberately absent: known answers, which are in the codecs' own tests.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a property says what it expects by unwrapping it")]

pub mod event_stream;
pub mod json;
mod order;
pub mod sse;

// The gateway keeps its codecs to itself: here are the same files, with all that they lean on.
#[allow(dead_code, unused_imports, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/provider/mod.rs"]
mod provider;
#[allow(dead_code, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/tokenizer.rs"]
mod tokenizer;
#[allow(dead_code, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/piece_counts.rs"]
mod piece_counts;
#[allow(dead_code, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/pieces.rs"]
mod pieces;
