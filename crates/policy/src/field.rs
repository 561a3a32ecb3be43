//! Fields of a policy file that have rules of their own: names, headers, limits.
//!
//! What one field alone can get wrong is checked while it is read, because only then are line and column known.

use std::fmt;
use std::marker::PhantomData;

use quorate_ledger::Amount;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

pub(crate) const NAME_MAX_BYTES: usize = 128;
/// Their values are keys. A subject or a tenant is replicated and shown in tables, a key never.
const SECRET_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

/// What a string in a policy file may be.
pub(crate) trait TextRule {
    const EXPECTED: &'static str;
    /// The values there are, where there are only a few.
    const KNOWN: &'static [&'static str] = &[];

    /// The value as it is kept. `Err`: what is wrong with it.
    fn check(value: &str) -> Result<String, String>;
}

/// A string that keeps to `R`.
#[derive(Debug, Clone)]
pub(crate) struct Text<R> {
    pub value: String,
    rule: PhantomData<R>,
}

impl<R> Text<R> {
    /// A default of ours, which needs no check.
    pub fn known(value: &str) -> Self {
        Self { value: value.to_owned(), rule: PhantomData }
    }
}

impl<'de, R: TextRule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

struct TextVisitor<R>(PhantomData<R>);

impl<R: TextRule> Visitor<'_> for TextVisitor<R> {
    type Value = Text<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(R::EXPECTED)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Text<R>, E> {
        match R::check(value) {
            Ok(value) => Ok(Text { value, rule: PhantomData }),
            Err(_) if !R::KNOWN.is_empty() => Err(E::unknown_variant(value, R::KNOWN)),
            Err(problem) => Err(E::custom(problem)),
        }
    }
}

/// The version of the format.
#[derive(Debug, Clone)]
pub(crate) struct ApiVersion;

impl TextRule for ApiVersion {
    const EXPECTED: &'static str = "quorate.dev/v1alpha1";
    const KNOWN: &'static [&'static str] = &[Self::EXPECTED];

    fn check(value: &str) -> Result<String, String> {
        (value == Self::EXPECTED).then(|| value.to_owned()).ok_or_else(String::new)
    }
}

/// The name of a budget or a tenant.
#[derive(Debug, Clone)]
pub(crate) struct Name;

impl TextRule for Name {
    const EXPECTED: &'static str = "a name";

    fn check(value: &str) -> Result<String, String> {
        if value.is_empty() || value.len() > NAME_MAX_BYTES || value.chars().any(char::is_control) {
            let bytes = value.len();
            return Err(format!(
                "a name of {bytes} bytes or with control characters; 1 to {NAME_MAX_BYTES} bytes without them are allowed"
            ));
        }
        Ok(value.to_owned())
    }
}

/// The name of a request header; kept in lower case, as HTTP/2 has it.
#[derive(Debug, Clone)]
pub(crate) struct HeaderName;

impl TextRule for HeaderName {
    const EXPECTED: &'static str = "the name of a header";

    fn check(value: &str) -> Result<String, String> {
        // RFC 9110, section 5.6.2: token.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if value.is_empty() || value.len() > NAME_MAX_BYTES || !value.chars().all(token) {
            return Err(format!("{value:?} is no header name; wanted something like x-user-id"));
        }
        let name = value.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&name.as_str()) {
            return Err(format!(
                "header {name} carries keys, and its value would be stored and shown; name users by another header, such as x-user-id"
            ));
        }
        Ok(name)
    }
}

/// A limit: at least one token, at most what an amount can hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens(pub Amount);

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(TokensVisitor)
    }
}

struct TokensVisitor;

impl Visitor<'_> for TokensVisitor {
    type Value = Tokens;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of tokens from 1 to {}", Amount::MAX)
    }

    fn visit_u64<E: Error>(self, tokens: u64) -> Result<Tokens, E> {
        match Amount::from_units(tokens) {
            Ok(limit) if !limit.is_zero() => Ok(Tokens(limit)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(tokens), &self)),
        }
    }
}
