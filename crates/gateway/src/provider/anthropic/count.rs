//! The answer of `/v1/messages/count_tokens`. Counting is not done here.

/// `{"input_tokens":N}`.
pub(crate) fn encode(input_tokens: u64) -> Vec<u8> {
    format!(r#"{{"input_tokens":{input_tokens}}}"#).into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn shape() {
        assert_eq!(super::encode(2095), br#"{"input_tokens":2095}"#);
    }
}
