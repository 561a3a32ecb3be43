//! OpenAI's vocabularies: which bytes are a token, and of what rank. Tables in the program's file, made by `build.rs`:
//! nothing is loaded or built, and only those pages come into memory that are looked at. Those for long pieces are most
//! of it.
//!
//! How a text is cut into pieces is in `pieces.rs` and `foreign_pieces.rs`; how many tokens a piece is, in `byte_pairs.rs`.

use crate::vocabulary_format::{EMPTY, ID_BITS, ID_MASK, TOKEN_BYTES_MAX, fingerprint, hash};

/// See `vocabulary_format.rs`.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    bytes: &'static [u8],
    starts: &'static [u8],
    slots: &'static [u8],
    splits: &'static [u8],
    prefixes: &'static [u8],
    longest: &'static [u8],
}

macro_rules! vocabulary {
    ($name:literal) => {
        Vocabulary {
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bytes")),
            starts: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".starts")),
            slots: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".slots")),
            splits: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".splits")),
            prefixes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".prefixes")),
            longest: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".longest")),
        }
    };
}

pub(crate) static O200K: Vocabulary = vocabulary!("o200k");
pub(crate) static CL100K: Vocabulary = vocabulary!("cl100k");

/// The number at this place of a table.
fn number(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*table.get(4 * at..)?.first_chunk()?))
}

impl Vocabulary {
    /// Of the token that is these bytes. Every single byte is one.
    pub fn rank(&self, bytes: &[u8]) -> Option<u32> {
        self.find(self.slots, bytes, |token| token == bytes).map(|(_, id)| id)
    }

    /// The longest token that `text` begins with; `None` of nothing.
    pub fn longest_prefix(&self, text: &[u8]) -> Option<u32> {
        let place = |length: usize| {
            let bytes = text.get(..length)?;
            self.find(self.prefixes, bytes, |token| token.starts_with(bytes)).map(|(place, _)| place)
        };
        // What begins a token has only beginnings of tokens in it: the longest one lies between two lengths. Most are short.
        let mut found = place(1)?;
        let (mut known, mut beyond) = (1, 2);
        while let Some(longer) = place(beyond) {
            (found, known, beyond) = (longer, beyond, 2 * beyond);
        }
        while known + 1 < beyond {
            let middle = known.midpoint(beyond);
            match place(middle) {
                Some(longer) => (found, known) = (longer, middle),
                None => beyond = middle,
            }
        }
        number(self.longest, found).filter(|id| *id != EMPTY)
    }

    /// The two that this token is merged from; `None`: it is of no merge.
    pub fn split(&self, id: u32) -> Option<(u32, u32)> {
        let at = 2 * id as usize;
        let (left, right) = (number(self.splits, at)?, number(self.splits, at + 1)?);
        (left != id).then_some((left, right))
    }

    pub fn token(&self, id: u32) -> Option<&'static [u8]> {
        let (start, end) = (number(self.starts, id as usize)?, number(self.starts, id as usize + 1)?);
        self.bytes.get(start as usize..end as usize)
    }

    /// The place in a hash table, and the token there.
    fn find(&self, table: &[u8], bytes: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<(usize, u32)> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = hash(bytes);
        // A power of two, and half of the slots are empty.
        let mask = table.len() / 4 - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = number(table, at)?;
            if slot == EMPTY {
                return None;
            }
            let id = slot & ID_MASK;
            if slot >> ID_BITS == fingerprint(hash) && self.token(id).is_some_and(&is_it) {
                return Some((at, id));
            }
            at = (at + 1) & mask;
        }
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
                let token = tokenizer.bpe.token_bytes(id);
                assert_eq!(vocabulary.rank(token), Some(id));
                assert_eq!(vocabulary.longest_prefix(token), Some(id));
                match vocabulary
                    .split(id)
                    .map(|(left, right)| [left, right].map(|id| vocabulary.token(id).unwrap()))
                {
                    Some(parts) => assert_eq!(parts.concat(), token),
                    None => assert_eq!(token.len(), 1, "{token:?}"),
                }
            }
            assert_eq!(vocabulary.token(count), None);
            for unknown in [&b""[..], b"quorate budgets", b" \0 ", &[b' '; TOKEN_BYTES_MAX + 1]] {
                assert_eq!(vocabulary.rank(unknown), None, "{unknown:?}");
            }
        }
    }

    #[test]
    fn the_longest_token_at_the_beginning_is_found() {
        for text in [
            &b"quorate budgets"[..],
            b"  \t  ",
            "\u{1F600}\u{301}".as_bytes(),
            &[b' '; 300],
            &[0xff, 0, 0xff],
        ] {
            for vocabulary in [&O200K, &CL100K] {
                let wanted = (1..=text.len()).rev().find_map(|length| vocabulary.rank(&text[..length]));
                assert_eq!(vocabulary.longest_prefix(text), wanted, "{text:?}");
            }
        }
        assert_eq!(O200K.longest_prefix(b""), None);
    }
}
