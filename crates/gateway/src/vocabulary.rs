//! OpenAI's vocabularies: which bytes are a token, and of what rank. Tables in the program's file, made by `build.rs`:
//! nothing is loaded or built, and of 6 MiB only those pages come into memory that are looked at.
//!
//! How a text is cut into pieces is in `pieces.rs` and `foreign_pieces.rs`; how many tokens a piece is, in `byte_pairs.rs`.

use crate::vocabulary_format::{EMPTY, ID_BITS, ID_MASK, TOKEN_BYTES_MAX, fingerprint, hash};

#[derive(Debug)]
pub(crate) struct Vocabulary {
    bytes: &'static [u8],
    starts: &'static [u8],
    slots: &'static [u8],
}

macro_rules! table {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

pub(crate) static O200K: Vocabulary =
    Vocabulary { bytes: table!("o200k.bytes"), starts: table!("o200k.starts"), slots: table!("o200k.slots") };
pub(crate) static CL100K: Vocabulary = Vocabulary {
    bytes: table!("cl100k.bytes"),
    starts: table!("cl100k.starts"),
    slots: table!("cl100k.slots"),
};

/// The number at this place of a table.
fn number(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*table.get(4 * at..)?.first_chunk()?))
}

impl Vocabulary {
    /// Of the token that is these bytes. Every single byte is one.
    pub fn rank(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = hash(bytes);
        // A power of two, and half of the slots are empty.
        let mask = self.slots.len() / 4 - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = number(self.slots, at)?;
            if slot == EMPTY {
                return None;
            }
            let id = slot & ID_MASK;
            if slot >> ID_BITS == fingerprint(hash) && self.token(id) == Some(bytes) {
                return Some(id);
            }
            at = (at + 1) & mask;
        }
    }

    fn token(&self, id: u32) -> Option<&'static [u8]> {
        let (start, end) = (number(self.starts, id as usize)?, number(self.starts, id as usize + 1)?);
        self.bytes.get(start as usize..end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_its_rank_and_nothing_else_has_one() {
        for (vocabulary, tokenizer) in
            [(&O200K, bpe_openai::o200k_base()), (&CL100K, bpe_openai::cl100k_base())]
        {
            let count = u32::try_from(tokenizer.bpe.num_tokens()).unwrap();
            for id in 0..count {
                assert_eq!(vocabulary.rank(tokenizer.bpe.token_bytes(id)), Some(id));
            }
            assert_eq!(vocabulary.token(count), None);
            for unknown in [&b""[..], b"quorate budgets", b" \0 ", &[b' '; TOKEN_BYTES_MAX + 1]] {
                assert_eq!(vocabulary.rank(unknown), None, "{unknown:?}");
            }
        }
    }
}
