//! Percent-encoding (RFC 3986, section 2.1), of one segment of a path or one value of a form.

/// Everything but letters, digits and `-._~` becomes `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    encoded_but(text, b"")
}

/// The same, with these bytes left as they are too.
pub(crate) fn encoded_but(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
