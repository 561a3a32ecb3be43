//! Byte-pair encoding of one piece of text: how many tokens it becomes. From single bytes on, the two neighbours whose
//! union has the lowest rank are merged, the leftmost of several, until no union is a token.
//!
//! Pure. Short pieces are merged as defined; for long ones, see `long_pieces.rs`.

use crate::long_pieces;
use crate::vocabulary::Vocabulary;

/// Up to here it is quickest to look at all neighbours for each merge.
const SHORT_MAX: usize = 48;
/// No union of the two is a token.
const NONE: u32 = u32::MAX;

pub(crate) fn count(vocabulary: &Vocabulary, piece: &[u8]) -> u64 {
    if piece.len() <= 1 {
        return piece.len() as u64;
    }
    if vocabulary.rank(piece).is_some() {
        return 1;
    }
    if piece.len() <= SHORT_MAX { short(vocabulary, piece) } else { long_pieces::count(vocabulary, piece) }
}

/// Parts side by side, each with the rank of its union with the next one.
fn short(vocabulary: &Vocabulary, piece: &[u8]) -> u64 {
    let rank = |start: usize, end: usize| piece.get(start..end).and_then(|union| vocabulary.rank(union));
    // The last start is the piece's end.
    let mut starts: [usize; SHORT_MAX + 1] = std::array::from_fn(|at| at);
    let mut ranks = [NONE; SHORT_MAX + 1];
    let mut parts = piece.len();
    for (at, found) in ranks.iter_mut().enumerate().take(parts - 1) {
        *found = rank(at, at + 2).unwrap_or(NONE);
    }
    while parts > 1 {
        let lowest = (1..parts - 1).fold(0, |lowest, at| if ranks[at] < ranks[lowest] { at } else { lowest });
        if ranks[lowest] == NONE {
            break;
        }
        starts.copy_within(lowest + 2..=parts, lowest + 1);
        ranks.copy_within(lowest + 2..=parts, lowest + 1);
        parts -= 1;
        let union = |at: usize| if at + 2 <= parts { rank(starts[at], starts[at + 2]) } else { None };
        ranks[lowest] = union(lowest).unwrap_or(NONE);
        if lowest > 0 {
            ranks[lowest - 1] = union(lowest - 1).unwrap_or(NONE);
        }
    }
    parts as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vocabulary::{CL100K, O200K};

    fn agrees(piece: &[u8]) {
        for (vocabulary, tokenizer) in
            [(&O200K, bpe_openai::o200k_base()), (&CL100K, bpe_openai::cl100k_base())]
        {
            let wanted = tokenizer.bpe.count(piece) as u64;
            assert_eq!(count(vocabulary, piece), wanted, "{piece:?}");
            assert_eq!(long_pieces::count(vocabulary, piece), wanted, "{piece:?}");
        }
    }

    #[test]
    fn pieces_become_as_many_tokens_as_their_vocabulary_says() {
        for piece in
            ["", "a", "aa", "aaa", " budgets", "Donaudampfschifffahrtsgesellschaft", "\u{1F600}\u{1F600}"]
        {
            agrees(piece.as_bytes());
        }
        for length in [SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 127, 128, 129, 5_000] {
            agrees(&vec![b' '; length]);
            agrees(&vec![b'a'; length]);
            agrees(&(0..length).map(|at| b'a' + (at * at % 23) as u8).collect::<Vec<_>>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn any_bytes_do(piece in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            "[a-z]{0,80}".prop_map(String::into_bytes),
            "[ab]{0,200}".prop_map(String::into_bytes),
            "( {0,40}\t{0,3}\n?){0,8}".prop_map(String::into_bytes),
            "\\PC{0,60}".prop_map(String::into_bytes),
        ]) {
            agrees(&piece);
        }
    }
}
