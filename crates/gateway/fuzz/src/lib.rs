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
#[path = "../../src/byte_pairs.rs"]
mod byte_pairs;
#[path = "../../src/foreign_pieces.rs"]
mod foreign_pieces;
#[path = "../../src/long_pieces.rs"]
mod long_pieces;
#[path = "../../src/piece_counts.rs"]
mod piece_counts;
#[path = "../../src/pieces.rs"]
mod pieces;
#[allow(dead_code, unused_imports, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/provider/mod.rs"]
mod provider;
#[allow(dead_code, reason = "what the gateway needs of it is more than what is fuzzed")]
#[path = "../../src/tokenizer.rs"]
mod tokenizer;
#[path = "../../src/vocabulary.rs"]
mod vocabulary;
#[path = "../../src/vocabulary_format.rs"]
mod vocabulary_format;
