//! How the tables of a vocabulary lie in the program: what `build.rs` writes and `vocabulary.rs` reads. Both compile this
//! file.
//!
//! Three tables of little-endian numbers: the bytes of all tokens, one after the other; where each begins; and a hash
//! table of them, open, with linear probing. A token's number is its rank: what merges first has the lower one.

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

/// Made when the gateway is built.
#[allow(dead_code, reason = "the gateway itself only reads them")]
pub(crate) struct Tables {
    pub bytes: Vec<u8>,
    pub starts: Vec<u8>,
    pub slots: Vec<u8>,
}

#[allow(dead_code, reason = "the gateway itself only reads them")]
impl Tables {
    pub fn of(tokens: &[&[u8]]) -> Result<Self, String> {
        if tokens.len() >= ID_MASK as usize {
            return Err(format!("{} tokens are more than {ID_BITS} bits can number", tokens.len()));
        }
        let mut slots = vec![EMPTY; (2 * tokens.len()).next_power_of_two()];
        let (mut bytes, mut starts) = (Vec::new(), vec![0_u32]);
        for (id, token) in (0_u32..).zip(tokens) {
            if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
                return Err(format!("token {id} has {} bytes, not 1 to {TOKEN_BYTES_MAX}", token.len()));
            }
            bytes.extend_from_slice(token);
            starts.push(u32::try_from(bytes.len()).map_err(|error| error.to_string())?);
            let hash = hash(token);
            let mut at = hash as usize & (slots.len() - 1);
            while slots[at] != EMPTY {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = (fingerprint(hash) << ID_BITS) | id;
        }
        let little_endian = |numbers: Vec<u32>| numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        Ok(Self { bytes, starts: little_endian(starts), slots: little_endian(slots) })
    }
}
