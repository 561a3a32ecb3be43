//! How the tables of a vocabulary lie in the program: what `build.rs` writes and `vocabulary.rs` reads. Both compile this
//! file.
//!
//! All numbers are little-endian. A token's number is its rank: what merges first has the lower one.
//!
//! | table | what is in it |
//! | --- | --- |
//! | `bytes` | the bytes of all tokens, one after the other |
//! | `starts` | where each begins in `bytes`, and the end of the last |
//! | `slots` | a hash table of tokens: open, with linear probing, at most half full |
//! | `splits` | of each token the two that it is merged from; itself twice, if it is none of a merge |
//! | `prefixes` | a hash table like `slots`, of everything that a token begins with (or is), named by a token that does |
//! | `longest` | of each place in `prefixes` the longest token that this begins with |

/// Of a slot's 32 bits, those of the token's number; the rest are bits of its hash.
pub(crate) const ID_BITS: u32 = 18;
pub(crate) const ID_MASK: u32 = (1 << ID_BITS) - 1;
pub(crate) const EMPTY: u32 = u32::MAX;
/// No token is longer.
pub(crate) const TOKEN_BYTES_MAX: usize = 128;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The low bits choose the slot, the high ones are compared.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        hash = mixed(hash, u64::from_le_bytes(*eight));
    }
    mixed(hash, rest.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)))
}

fn mixed(hash: u64, word: u64) -> u64 {
    let product = (hash.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

pub(crate) fn fingerprint(hash: u64) -> u32 {
    (hash >> (32 + ID_BITS)) as u32
}
