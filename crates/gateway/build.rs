//! Writes the tables of OpenAI's vocabularies that `src/vocabulary.rs` looks into: made here, so that a gateway has nothing
//! to load and neither the 45 MB that the tokenizer's own crate carries nor the 50 MiB that it makes of them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bpe_openai::Tokenizer;

#[path = "src/vocabulary_format.rs"]
mod format;

fn main() -> Result<(), Box<dyn Error>> {
    // Not with every change of the gateway. What this file compiles is watched anyway.
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    write(&folder.join("o200k"), bpe_openai::o200k_base())?;
    write(&folder.join("cl100k"), bpe_openai::cl100k_base())
}

fn write(path: &Path, tokenizer: &Tokenizer) -> Result<(), Box<dyn Error>> {
    let count = u32::try_from(tokenizer.bpe.num_tokens())?;
    let tokens: Vec<&[u8]> = (0..count).map(|id| tokenizer.bpe.token_bytes(id)).collect();
    let tables = format::Tables::of(&tokens)?;
    fs::write(path.with_extension("bytes"), tables.bytes)?;
    fs::write(path.with_extension("starts"), tables.starts)?;
    fs::write(path.with_extension("slots"), tables.slots)?;
    Ok(())
}
