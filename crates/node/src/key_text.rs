//! The text of a new API key: `qk_<id>_<secret>`. Only its SHA-256 is kept: the secret has 256 bits from the operating
//! system, so that a plain hash cannot be searched.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

const SECRET_BYTES: usize = 32;
const ID_CHARS: usize = 12;
/// 32 of them, so that each takes five bits of a random byte: no digit that is read as a letter.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Shown to the one who asked for the key and to nobody else: deliberately without `Debug` and `Clone`.
#[allow(missing_debug_implementations, reason = "it holds the key itself")]
pub(crate) struct KeyText {
    pub id: String,
    pub text: String,
    pub hash: [u8; 32],
}

impl KeyText {
    /// # Errors
    /// The operating system has no randomness to give.
    pub fn generate() -> Result<Self, String> {
        let random = SystemRandom::new();
        let (mut secret, mut id) = ([0; SECRET_BYTES], [0; ID_CHARS]);
        let filled = random.fill(&mut secret).and_then(|()| random.fill(&mut id));
        filled.map_err(|_| "the operating system gave no random bytes".to_owned())?;
        let id: String = id.iter().map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)])).collect();
        let text = format!("qk_{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Ok(Self { id, text, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_shape_and_no_other_has_the_same() {
        let (one, other) = (KeyText::generate().unwrap(), KeyText::generate().unwrap());
        let mut parts = one.text.splitn(3, '_');
        assert_eq!((parts.next(), parts.next()), (Some("qk"), Some(one.id.as_str())));
        assert_eq!((one.id.len(), parts.next().map(str::len)), (12, Some(43)));
        assert!(one.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert!(one.id != other.id && one.text != other.text && one.hash != other.hash);
    }
}
