//! Counts the tokens of a text piece by piece, and each short piece of a long text once: words come again and again.

use crate::pieces::{self, Rules};
use crate::vocabulary::{CL100K, O200K};
use crate::{byte_pairs, foreign_pieces};

/// Shorter texts hold too few pieces twice for a table to be worth its making.
const TABLE_FROM_BYTES: usize = 4 << 10;
/// A power of two; the table of one text is 128 KiB.
const PLACES: usize = 1 << 12;
const PIECE_MAX: usize = 15;

/// The same number as tiktoken's.
pub(crate) fn count(rules: Rules, text: &str) -> u64 {
    let vocabulary = match rules {
        Rules::O200k => &O200K,
        Rules::Cl100k => &CL100K,
    };
    let mut table = (text.len() >= TABLE_FROM_BYTES).then(Table::new);
    let (mut rest, mut tokens) = (text, 0_u64);
    while !rest.is_empty() {
        let length =
            pieces::first(rest.as_bytes(), rules).unwrap_or_else(|| foreign_pieces::first(rest, rules));
        // Where there were no such place, the rest as one piece is an upper bound still.
        let (piece, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        let count = || byte_pairs::count(vocabulary, piece.as_bytes());
        tokens += match &mut table {
            Some(table) => table.get_or(piece.as_bytes(), count),
            None => count(),
        };
        rest = after;
    }
    tokens
}

/// By the bytes of a piece. Two that want the same place drive each other out.
struct Table(Vec<Place>);

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// 0: empty.
    piece: u128,
    tokens: u64,
}

impl Table {
    fn new() -> Self {
        Self(vec![Place::default(); PLACES])
    }

    fn get_or(&mut self, piece: &[u8], count: impl FnOnce() -> u64) -> u64 {
        let Some(key) = key(piece) else { return count() };
        let mixed = ((key ^ (key >> 64)) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (mixed >> (64 - PLACES.trailing_zeros())) as usize;
        let Some(place) = self.0.get_mut(at) else { return count() };
        if place.piece != key {
            *place = Place { piece: key, tokens: count() };
        }
        place.tokens
    }
}

/// All its bytes, and how many they are. `None`: too long.
fn key(piece: &[u8]) -> Option<u128> {
    let mut bytes = [0; PIECE_MAX + 1];
    bytes.get_mut(..piece.len()).filter(|_| piece.len() <= PIECE_MAX)?.copy_from_slice(piece);
    bytes[PIECE_MAX] = piece.len() as u8;
    Some(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &str) {
        for (tokenizer, rules) in
            [(bpe_openai::o200k_base(), Rules::O200k), (bpe_openai::cl100k_base(), Rules::Cl100k)]
        {
            assert_eq!(count(rules, text), tokenizer.count(text) as u64, "{rules:?} {text:?}");
        }
    }

    #[test]
    fn pieces_are_told_apart_by_every_byte_and_their_length() {
        assert_ne!(key(b"a"), key(b"a\0"));
        assert_ne!(key(b"fifteen bytes.."), key(b"fifteen bytes.,"));
        assert_eq!((key(b"sixteen bytes..."), key(b"")), (None, Some(0)));
    }

    #[test]
    fn a_long_text_counts_as_the_vocabulary_counts_it() {
        let mut text = String::new();
        for number in 0..4_000_u32 {
            let word = format!("{:x}", number.wrapping_mul(2_654_435_761));
            text.push_str(&format!("{word} said: \"it's {number}\";\n  é{word}\n\n"));
        }
        agrees(&text);
        agrees(&" ".repeat(10_000));
        agrees(&"a".repeat(10_000));
    }

    proptest! {
        #[test]
        fn any_text_counts_as_the_vocabulary_counts_it(text in "\\PC{0,60}|[ -~\\n]{0,60}") {
            agrees(&text);
            agrees(&text.repeat(200));
        }
    }
}
