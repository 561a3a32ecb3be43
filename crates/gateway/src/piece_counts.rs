//! Counts the tokens of a text piece by piece, and each short piece of a long text once: words come again and again.

use crate::pieces::{self, Rules};
use crate::vocabulary::{CL100K, O200K};
use crate::{byte_pairs, foreign_pieces};

/// Shorter texts hold too few pieces twice for a table to be worth its making.
const TABLE_FROM_BYTES: usize = 4 << 10;
/// The table of one text has a place for so many of its bytes, and never more than 256 KiB of places.
const BYTES_PER_PLACE: usize = 16;
const PLACES_MAX: usize = 1 << 14;
const PIECE_MAX: usize = 15;
/// In a place: the bytes of a piece, above them their number, above that the number of its tokens, which is not larger.
const LENGTH_SHIFT: usize = 8 * PIECE_MAX;
const TOKENS_SHIFT: usize = LENGTH_SHIFT + 4;

/// The same number as tiktoken's.
pub(crate) fn count(rules: Rules, text: &str) -> u64 {
    let vocabulary = match rules {
        Rules::O200k => &O200K,
        Rules::Cl100k => &CL100K,
    };
    let mut table = (text.len() >= TABLE_FROM_BYTES).then(|| Table::for_text(text.len()));
    let (mut at, mut tokens) = (0, 0_u64);
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        let window = rest.first_chunk().map(|window| u128::from_le_bytes(*window));
        let length = window
            .and_then(pieces::plain_word)
            .or_else(|| pieces::first(rest, rules))
            // Where no character began, the rest would be one piece: an upper bound still.
            .unwrap_or_else(|| text.get(at..).map_or(rest.len(), |rest| foreign_pieces::first(rest, rules)));
        let piece = rest.get(..length).unwrap_or(rest);
        let count = || byte_pairs::count(vocabulary, piece);
        tokens += match (&mut table, window.and_then(|window| key(window, length))) {
            (Some(table), Some(key)) => table.get_or(key, count),
            _ => count(),
        };
        at += length;
    }
    tokens
}

/// How many tokens a piece is, by its key: both in one number. Two that want the same place drive each other out.
struct Table {
    /// A power of two.
    places: Vec<u128>,
    shift: u32,
}

impl Table {
    fn for_text(bytes: usize) -> Self {
        let places = (bytes / BYTES_PER_PLACE).next_power_of_two().min(PLACES_MAX);
        Self { places: vec![0; places], shift: u64::BITS - places.trailing_zeros() }
    }

    fn get_or(&mut self, key: u128, count: impl FnOnce() -> u64) -> u64 {
        let mixed = ((key ^ (key >> 64)) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(place) = self.places.get_mut((mixed >> self.shift) as usize) else { return count() };
        if *place & !(u128::MAX << TOKENS_SHIFT) != key {
            *place = key | u128::from(count()) << TOKENS_SHIFT;
        }
        (*place >> TOKENS_SHIFT) as u64
    }
}

/// The first `length` of these sixteen bytes, and how many they are. `None`: too long, or quicker counted.
fn key(window: u128, length: usize) -> Option<u128> {
    if !(2..=PIECE_MAX).contains(&length) {
        return None;
    }
    let bytes = window & !(u128::MAX << (8 * length));
    Some(bytes | (length as u128) << LENGTH_SHIFT)
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
        let key = |window: &[u8; 16], length| key(u128::from_le_bytes(*window), length);
        assert_ne!(key(b"ab\0.............", 2), key(b"ab\0.............", 3));
        assert_ne!(key(b"fifteen bytes..!", 15), key(b"fifteen bytes.,!", 15));
        assert_eq!(key(b"fifteen bytes..!", 15), key(b"fifteen bytes..?", 15));
        for too_long_or_short in [0, 1, 16, 17, usize::MAX] {
            assert_eq!(key(b"sixteen bytes...", too_long_or_short), None);
        }
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
