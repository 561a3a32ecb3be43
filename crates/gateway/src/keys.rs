//! API keys issued by Quorate: `qk_`, 12 characters of id, `_`, 43 characters of secret. The cluster has only their hash;
//! a gateway follows all of them through its watch, so a revoked one is refused within moments everywhere.

use std::fmt;

use quorate_ledger::{KeyRecord, TimestampMs};
use quorate_rpc::Keys;
use ring::digest;
use subtle::ConstantTimeEq;
use thiserror::Error;

const PREFIX: &str = "qk_";
const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 43;

/// A key as a client sent it. Never shown.
#[derive(Clone, Copy)]
pub(crate) struct PresentedKey<'a>(&'a str);

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey(hidden)")
    }
}

/// Why a key is not accepted. All but the dates are one message: nobody learns which ids exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    #[error("this API key is not known here; check it, or ask for a new one")]
    Unknown,
    #[error("this API key has been revoked; ask for a new one")]
    Revoked,
    #[error("this API key has expired; ask for a new one")]
    Expired,
}

impl<'a> PresentedKey<'a> {
    /// `None`: the text is not meant to be one of ours.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        text.starts_with(PREFIX).then_some(Self(text))
    }

    /// The id in it, if it has the shape of a key.
    fn id(self) -> Option<&'a str> {
        let (id, secret) = self.0.strip_prefix(PREFIX)?.split_at_checked(ID_CHARS)?;
        let secret = secret.strip_prefix('_')?;
        let of_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let of_secret = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let shaped = id.bytes().all(of_id) && secret.len() == SECRET_CHARS && secret.bytes().all(of_secret);
        shaped.then_some(id)
    }

    /// The record that this key belongs to.
    ///
    /// # Errors
    /// No such key, or one that is over.
    pub(crate) fn find(self, keys: &Keys, now: TimestampMs) -> Result<&KeyRecord, KeyError> {
        let record = self.id().and_then(|id| keys.get(id)).ok_or(KeyError::Unknown)?;
        let hash = digest::digest(&digest::SHA256, self.0.as_bytes());
        if !bool::from(hash.as_ref().ct_eq(record.hash.as_slice())) {
            return Err(KeyError::Unknown);
        }
        // Only who knows the secret hears about dates.
        if record.revoked_at.is_some() {
            return Err(KeyError::Revoked);
        }
        if record.expires_at.is_some_and(|at| at <= now) {
            return Err(KeyError::Expired);
        }
        Ok(record)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    pub(crate) const KEY: &str = "qk_abc123def456_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    /// The record of [`KEY`].
    pub(crate) fn record() -> KeyRecord {
        let hash = digest::digest(&digest::SHA256, KEY.as_bytes());
        KeyRecord {
            id: "abc123def456".to_owned(),
            hash: hash.as_ref().try_into().unwrap(),
            tenant: "acme".to_owned(),
            user: "alice".to_owned(),
            team: String::new(),
            models: Vec::new(),
            created_at: TimestampMs(1),
            expires_at: None,
            revoked_at: None,
            by: String::new(),
            comment: String::new(),
        }
    }

    fn find(text: &str, record: KeyRecord) -> Result<String, KeyError> {
        let keys = Keys::new([(record.id.clone(), Arc::new(record))].into());
        PresentedKey::of(text).unwrap().find(&keys, TimestampMs(1_000)).map(|record| record.user.clone())
    }

    #[test]
    fn only_the_whole_key_opens() {
        assert_eq!(find(KEY, record()), Ok("alice".to_owned()));
        for wrong in [
            &KEY.replace("AAA", "AAB"),
            &KEY.replace("abc1", "abd1"),
            &KEY[..KEY.len() - 1],
            &format!("{KEY}A"),
            "qk_",
            "qk_é",
        ] {
            assert_eq!(find(wrong, record()), Err(KeyError::Unknown), "{wrong}");
        }
        assert!(PresentedKey::of("sk-abc").is_none());
        assert!(!format!("{:?}", PresentedKey::of(KEY)).contains("AAAA"));
    }

    #[test]
    fn revoked_and_expired() {
        let at = |ms| Some(TimestampMs(ms));
        assert_eq!(find(KEY, KeyRecord { revoked_at: at(5), ..record() }), Err(KeyError::Revoked));
        assert_eq!(find(KEY, KeyRecord { expires_at: at(1_000), ..record() }), Err(KeyError::Expired));
        assert_eq!(find(KEY, KeyRecord { expires_at: at(1_001), ..record() }), Ok("alice".to_owned()));
        let other = KeyRecord { revoked_at: at(5), hash: [0; 32], ..record() };
        assert_eq!(find(KEY, other), Err(KeyError::Unknown), "who does not know the secret hears nothing");
    }
}
