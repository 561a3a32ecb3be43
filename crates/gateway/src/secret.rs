//! A provider's key. Never printed: `Debug` and errors show that there is one, not which.

use std::fmt;

use http::HeaderValue;

/// The ready-made `authorization` header of a backend, marked sensitive so that HTTP/2 never indexes it.
#[derive(Clone)]
pub(crate) struct Secret(HeaderValue);

impl Secret {
    /// `None` if the key is empty or holds bytes that no header may carry. Surrounding white space is not part of it.
    pub(crate) fn bearer(key: &str) -> Option<Self> {
        let key = key.trim();
        if key.is_empty() {
            return None;
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shown() {
        let secret = Secret::bearer(" sk-abc\n").unwrap();
        assert_eq!(secret.header().to_str().unwrap(), "Bearer sk-abc");
        assert!(!format!("{secret:?} {:?}", secret.header()).contains("abc"));
        assert!(Secret::bearer("  ").is_none() && Secret::bearer("a\nb").is_none());
    }
}
