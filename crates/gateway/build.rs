//! Writes the tables of OpenAI's vocabularies that `src/vocabulary.rs` looks into: made here, so that a gateway has nothing
//! to load and neither the 45 MB that the tokenizer's own crate carries nor the 50 MiB that it makes of them.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bpe_openai::Tokenizer;
use format::{EMPTY, ID_BITS, ID_MASK, TOKEN_BYTES_MAX, fingerprint, hash};

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
    let vocabulary = Vocabulary::of(tokens)?;
    let save = |table: &str, numbers: Vec<u32>| {
        fs::write(
            path.with_extension(table),
            numbers.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>(),
        )
    };
    fs::write(path.with_extension("bytes"), vocabulary.tokens.concat())?;
    save("starts", vocabulary.starts()?)?;
    save("slots", vocabulary.slots())?;
    save("splits", vocabulary.splits())?;
    let (prefixes, longest) = vocabulary.prefixes();
    save("prefixes", prefixes)?;
    save("longest", longest)?;
    Ok(())
}

struct Vocabulary<'a> {
    tokens: Vec<&'a [u8]>,
    ranks: HashMap<&'a [u8], u32>,
}

impl<'a> Vocabulary<'a> {
    fn of(tokens: Vec<&'a [u8]>) -> Result<Self, String> {
        if tokens.len() >= ID_MASK as usize {
            return Err(format!("{} tokens are more than {ID_BITS} bits can number", tokens.len()));
        }
        let bytes_max = tokens.iter().map(|token| token.len()).max().unwrap_or(0);
        if bytes_max > TOKEN_BYTES_MAX || tokens.iter().any(|token| token.is_empty()) {
            return Err(format!("a token has {bytes_max} bytes, not 1 to {TOKEN_BYTES_MAX}, or none"));
        }
        let ranks: HashMap<&[u8], u32> = tokens.iter().copied().zip(0..).collect();
        match (0..=u8::MAX).find(|byte| !ranks.contains_key(&[*byte][..])) {
            Some(byte) => Err(format!("byte {byte} is not a token")),
            None => Ok(Self { tokens, ranks }),
        }
    }

    fn starts(&self) -> Result<Vec<u32>, Box<dyn Error>> {
        let mut end = 0;
        let ends = self.tokens.iter().map(|token| {
            end += token.len();
            Ok(u32::try_from(end)?)
        });
        [Ok(0)].into_iter().chain(ends).collect()
    }

    fn slots(&self) -> Vec<u32> {
        hashed(&self.tokens.iter().copied().zip(0..).collect::<Vec<_>>()).0
    }

    /// What a token is merged from, by doing it: of all neighbours those of the lowest rank are merged, until two are left.
    fn splits(&self) -> Vec<u32> {
        let split = |(token, id): (&&[u8], u32)| {
            let mut ends: Vec<usize> = (0..=token.len()).collect();
            while ends.len() > 3 {
                let union = |at: &usize| self.ranks.get(&token[ends[at - 1]..ends[at + 1]]);
                let lowest = (1..ends.len() - 1)
                    .filter(|at| union(at).is_some_and(|rank| *rank < id))
                    .min_by_key(union);
                match lowest {
                    Some(at) => drop(ends.remove(at)),
                    None => return [id, id],
                }
            }
            match ends[..] {
                [_, middle, _] => [self.ranks[&token[..middle]], self.ranks[&token[middle..]]],
                _ => [id, id],
            }
        };
        self.tokens.iter().zip(0..).flat_map(split).collect()
    }

    fn prefixes(&self) -> (Vec<u32>, Vec<u32>) {
        let mut of: HashMap<&[u8], u32> = HashMap::new();
        for (token, id) in self.tokens.iter().zip(0..) {
            for length in 1..=token.len() {
                of.entry(&token[..length]).or_insert(id);
            }
        }
        // In an order that does not differ from build to build.
        let mut entries: Vec<(&[u8], u32)> = of.into_iter().collect();
        entries.sort_unstable();
        let (prefixes, places) = hashed(&entries);
        let mut longest = vec![EMPTY; prefixes.len()];
        for ((prefix, _), place) in entries.iter().zip(places) {
            let token = (1..=prefix.len()).rev().find_map(|length| self.ranks.get(&prefix[..length]));
            longest[place] = token.copied().unwrap_or(EMPTY);
        }
        (prefixes, longest)
    }
}

/// The hash table of these, and the place of each.
fn hashed(entries: &[(&[u8], u32)]) -> (Vec<u32>, Vec<usize>) {
    let mut slots = vec![EMPTY; (2 * entries.len()).next_power_of_two()];
    let mask = slots.len() - 1;
    let mut place = |(bytes, id): &(&[u8], u32)| {
        let hash = hash(bytes);
        let mut at = hash as usize & mask;
        while slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        slots[at] = (fingerprint(hash) << ID_BITS) | id;
        at
    };
    let places = entries.iter().map(&mut place).collect();
    (slots, places)
}
