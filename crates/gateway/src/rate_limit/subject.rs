//! Subjects that fit into an account's name. Their values are what clients send: one that is too long must not keep its
//! limit from being counted, so it is cut, and told from others by a hash of the whole.

use quorate_policy::runtime::SUBJECT_MAX_BYTES;
use ring::digest::{SHA256, digest};

/// The subject as it is, or its beginning and the SHA-256 of all of it: `long…value+sha256:9f86…`. A `+` inside a value is
/// escaped, and one between values has spaces, so no other subject ends in this way.
pub(super) fn fitting(subject: String) -> String {
    if subject.len() <= SUBJECT_MAX_BYTES {
        return subject;
    }
    let hash = digest(&SHA256, subject.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let end = format!("+sha256:{hash}");
    let mut at = SUBJECT_MAX_BYTES - end.len();
    while !subject.is_char_boundary(at) {
        at -= 1;
    }
    format!("{}{end}", &subject[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_told_apart() {
        for text in [String::new(), "a + b".to_owned(), "x".repeat(SUBJECT_MAX_BYTES)] {
            assert_eq!(fitting(text.clone()), text);
        }
        let long = "ü".repeat(300);
        let (one, other) = (fitting(format!("{long}1")), fitting(format!("{long}2")));
        assert_ne!(one, other);
        for cut in [&one, &other] {
            assert!((SUBJECT_MAX_BYTES - 1..=SUBJECT_MAX_BYTES).contains(&cut.len()), "{}", cut.len());
            assert!(cut.starts_with("üü") && cut.contains("ü+sha256:"), "{cut}");
        }
        // The same on every machine and in every version: accounts hang on it.
        let end = "+sha256:5130b33e6b87fbf5316ed9049e98924eb110800bcbaaad8050f642fba6df37c9";
        assert_eq!(fitting("x".repeat(600)), "x".repeat(440) + end);
    }
}
