//! Identity from a JSON Web Token (RFC 7519): the signature by a key of the policy's JWKS, `exp`, `nbf`, `iss` and `aud`,
//! then the claims that say tenant, team and user. Nothing of a token goes into a log or an error.

use std::collections::HashSet;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;
use thiserror::Error;

use crate::jwt_ring;

/// Keys of one set.
const KEYS_MAX: usize = 64;
/// Clocks differ.
const LEEWAY_SECONDS: u64 = 30;
/// A longer token is refused unread.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why a token is not believed. Goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum JwtError {
    #[error("is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("is malformed")]
    Malformed,
    #[error("is signed with an algorithm or key that the policy's key set does not have")]
    UnknownKey,
    #[error("has a signature that is not right")]
    Signature,
    #[error("has expired; get a new one")]
    Expired,
    #[error("is not valid yet; check the clock of its issuer")]
    TooEarly,
    #[error("comes from another issuer than the policy names")]
    Issuer,
    #[error("is for another audience than the policy names")]
    Audience,
    #[error("lacks the claim `{0}`, which the policy asks for")]
    Missing(String),
    #[error("has a claim `{0}` that is no text")]
    NoText(String),
}

/// What the policy says about tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: Option<&'a str>,
    pub(crate) audiences: &'a [String],
    /// Paths of claims; `None`: the token does not say.
    pub(crate) tenant: Option<&'a [String]>,
    pub(crate) team: Option<&'a [String]>,
    pub(crate) user: Option<&'a [String]>,
}

/// Who a token says it is for; a claim that the policy does not name is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) tenant: Option<String>,
    pub(crate) team: Option<String>,
    pub(crate) user: Option<String>,
}

/// The keys of a set that can verify something here.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Three parts of base64url: looks like a token, whoever made it.
pub(crate) fn is_token(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let mut parts = text.split('.');
    text.starts_with("ey")
        && parts.by_ref().take(3).filter(|text| part(text)).count() == 3
        && parts.next().is_none()
}

impl KeySet {
    /// Reads a JWKS (RFC 7517). Keys for other purposes or of other algorithms are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // Already installed: by the gateway before, in this process.
        let _ = jwt_ring::PROVIDER.install_default();
        let set: JwkSet = serde_json::from_str(text).map_err(|error| {
            format!("is no JWKS ({{\"keys\": [...]}}): line {} column {}", error.line(), error.column())
        })?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err("has no key for RS256, ES256, EdDSA or HS256".to_owned());
        }
        Ok(Self(keys))
    }

    /// The identity in a token that is right in every respect.
    ///
    /// # Errors
    /// The first thing that is not.
    pub(crate) fn verify(&self, token: &str, expected: &Expected<'_>) -> Result<Claims, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong);
        }
        let header = decode_header(token).map_err(|_| JwtError::Malformed)?;
        // RFC 7515, section 4.1.11: extensions that must be understood, and none is.
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let named = |key: &&Key| match (&header.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let mut error = JwtError::UnknownKey;
        for key in self.0.iter().filter(|key| key.algorithm == header.alg).filter(named) {
            match decode::<Value>(token, &key.key, &validation(key.algorithm, expected)) {
                Ok(token) => return identity(&token.claims, expected),
                Err(refused) => error = refused.kind().into(),
            }
            // Another key may have signed it; nothing else is another key's business.
            if error != JwtError::Signature {
                break;
            }
        }
        Err(error)
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|named| named != name) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
}

fn validation(algorithm: Algorithm, expected: &Expected<'_>) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    let mut required = HashSet::from(["exp".to_owned()]);
    if let Some(issuer) = expected.issuer {
        validation.set_issuer(&[issuer]);
        required.insert("iss".to_owned());
    }
    if expected.audiences.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(expected.audiences);
        required.insert("aud".to_owned());
    }
    validation.required_spec_claims = required;
    validation
}

impl From<&ErrorKind> for JwtError {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::TooEarly,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(claim) => Self::Missing(claim.clone()),
            _ => Self::Malformed,
        }
    }
}

fn identity(claims: &Value, expected: &Expected<'_>) -> Result<Claims, JwtError> {
    let of = |path: Option<&[String]>| path.map(|path| claim(claims, path)).transpose();
    Ok(Claims { tenant: of(expected.tenant)?, team: of(expected.team)?, user: of(expected.user)? })
}

fn claim(claims: &Value, path: &[String]) -> Result<String, JwtError> {
    match path.iter().try_fold(claims, |value, part| value.get(part)) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        None | Some(Value::Null) => Err(JwtError::Missing(path.join("."))),
        Some(_) => Err(JwtError::NoText(path.join("."))),
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
pub(crate) mod tests;
