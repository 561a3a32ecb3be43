//! A provider's key. Never printed: `Debug` and errors show that there is one, not which.

use std::fmt;

use http::HeaderValue;

/// The ready-made value of the header that carries a key, marked sensitive so that HTTP/2 never indexes it.
#[derive(Clone)]
pub(crate) struct Secret(HeaderValue);

impl Secret {
    /// As `authorization` has it. `None` if the key is empty or holds bytes that no header may carry. Surrounding white
    /// space is not part of it.
    pub(crate) fn bearer(key: &str) -> Option<Self> {
        Self::with("Bearer ", key)
    }

    /// The key alone.
    pub(crate) fn bare(key: &str) -> Option<Self> {
        Self::with("", key)
    }

    fn with(scheme: &str, key: &str) -> Option<Self> {
        let key = key.trim();
        if key.is_empty() {
            return None;
        }
        let mut value = HeaderValue::from_str(&format!("{scheme}{key}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A secret as it was found, and where: a key, a file of credentials, certificates.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretText {
    pub(crate) text: String,
    /// In the words of an error.
    pub(crate) place: String,
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretText(hidden, of {})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shown() {
        let secret = Secret::bearer(" sk-abc\n").unwrap();
        assert_eq!(secret.header().to_str().unwrap(), "Bearer sk-abc");
        assert_eq!(Secret::bare("sk-abc").unwrap().header().to_str().unwrap(), "sk-abc");
        let text = SecretText { text: "sk-abc".to_owned(), place: "file f".to_owned() };
        assert!(!format!("{secret:?} {:?} {text:?}", secret.header()).contains("abc"));
        assert!(Secret::bearer("  ").is_none() && Secret::bearer("a\nb").is_none());
    }
}
