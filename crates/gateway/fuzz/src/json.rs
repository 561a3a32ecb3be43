//! What must hold of any bytes as JSON of a dialect.

use crate::provider::{bedrock, reply::ApiError};

/// # Panics
/// It does not hold.
pub fn hold(bytes: &[u8]) {
    let _ = bedrock::answer::decode(bytes);
    says_something(&bedrock::error::decode(500, "", bytes));
}

fn says_something(error: &ApiError) {
    assert!((400..600).contains(&error.status), "{error:?}");
    assert!(!error.message.is_empty() && error.message.len() < 8_000, "{error:?}");
}
