//! Tokens that are right, and every way of being wrong.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

use super::*;

pub(crate) const HS256_SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn encoded(value: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

fn signed(header: Value, claims: Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hmac(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, HS256_SECRET), message).as_ref().to_vec()
}

pub(crate) fn hs256_jwks() -> String {
    json!({"keys": [{"kty": "oct", "kid": "h1", "alg": "HS256", "k": encoded(HS256_SECRET)}]}).to_string()
}

/// A token of the HS256 key.
pub(crate) fn hs256(claims: Value) -> String {
    signed(json!({"alg": "HS256", "kid": "h1", "typ": "JWT"}), claims, hmac)
}

/// Claims that are right for [`verify`].
pub(crate) fn claims() -> Value {
    json!({"iss": "https://idp", "aud": ["quorate", "other"], "exp": now() + 300, "sub": "alice",
        "org": {"id": "acme"}, "https://x.y/team": "red"})
}

fn verify(set: &str, token: &str) -> Result<Claims, JwtError> {
    let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let expected = Expected {
        issuer: Some("https://idp"),
        audiences: &path(&["quorate"]),
        tenant: Some(&path(&["org", "id"])),
        team: Some(&path(&["https://x.y/team"])),
        user: Some(&path(&["sub"])),
    };
    KeySet::parse(set).unwrap().verify(token, &expected)
}

fn alice() -> Claims {
    let text = |text: &str| Some(text.to_owned());
    Claims { tenant: text("acme"), team: text("red"), user: text("alice") }
}

#[test]
fn three_kinds_of_keys() {
    assert_eq!(verify(&hs256_jwks(), &hs256(claims())), Ok(alice()));

    let random = SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let set =
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key())}]}).to_string();
    let token = signed(json!({"alg": "EdDSA"}), claims(), |message| pair.sign(message).as_ref().to_vec());
    assert_eq!(verify(&set, &token), Ok(alice()));

    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let ec = json!({"kty": "EC", "crv": "P-256", "use": "sig", "x": encoded(x), "y": encoded(y)});
    let set = json!({"keys": [ec]}).to_string();
    let sign = |message: &[u8]| pair.sign(&random, message).unwrap().as_ref().to_vec();
    assert_eq!(verify(&set, &signed(json!({"alg": "ES256"}), claims(), sign)), Ok(alice()));
    // The public key is no secret: nobody may sign with it.
    let point = pair.public_key().as_ref().to_vec();
    let forged = signed(json!({"alg": "HS256"}), claims(), |message| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &point), message).as_ref().to_vec()
    });
    assert_eq!(verify(&set, &forged), Err(JwtError::UnknownKey));
}

/// RFC 7515, appendix A.2: its key, message and signature.
#[test]
fn rs256_by_the_vector_of_the_rfc() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
             T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
             dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
             GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p\
                 c19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF\
                 5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQ\
                 BMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYE\
                 UipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let set = json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string();
    // The signature is right, the time is not.
    let lax = Expected::default();
    assert_eq!(KeySet::parse(&set).unwrap().verify(token, &lax), Err(JwtError::Expired));
    let broken = token.replace(".cC4h", ".cC4i");
    assert_eq!(KeySet::parse(&set).unwrap().verify(&broken, &lax), Err(JwtError::Signature));
}

#[test]
fn every_way_of_being_wrong() {
    let with = |member: &str, value: Value| {
        let mut claims = claims();
        claims[member] = value;
        hs256(claims)
    };
    let signed_with = |header: Value| signed(header, claims(), hmac);
    for (token, error) in [
        (with("exp", json!(now() - 60)), JwtError::Expired),
        (with("exp", json!("tomorrow")), JwtError::Missing("exp".to_owned())),
        (with("exp", Value::Null), JwtError::Missing("exp".to_owned())),
        (with("nbf", json!(now() + 60)), JwtError::TooEarly),
        (with("nbf", json!("later")), JwtError::Malformed),
        (with("iss", json!("https://else")), JwtError::Issuer),
        (with("iss", Value::Null), JwtError::Missing("iss".to_owned())),
        (with("aud", json!("else")), JwtError::Audience),
        (with("sub", json!("")), JwtError::NoText("sub".to_owned())),
        (with("org", json!({})), JwtError::Missing("org.id".to_owned())),
        (signed_with(json!({"alg": "HS512", "kid": "h1"})), JwtError::UnknownKey),
        (signed_with(json!({"alg": "HS256", "kid": "h2"})), JwtError::UnknownKey),
        (signed_with(json!({"alg": "none"})), JwtError::Malformed),
        (signed_with(json!({"alg": "HS256", "crit": ["b64"], "b64": false})), JwtError::Malformed),
        (hs256(claims()) + "A", JwtError::Signature),
        ("ey.ey.ey".to_owned(), JwtError::Malformed),
        (format!("ey{}", "x".repeat(20_000)), JwtError::TooLong),
    ] {
        assert_eq!(verify(&hs256_jwks(), &token), Err(error), "{token}");
    }
}

#[test]
fn what_looks_like_a_token() {
    assert!(is_token(&hs256(claims())));
    for text in ["", "sk-abc", "ey.b", "ey.b.", "ey.b.c.d", "ey.b.c d", "xx.b.c"] {
        assert!(!is_token(text), "{text}");
    }
}

#[test]
fn key_sets_that_verify_nothing_are_refused() {
    for (set, said) in [
        ("oops", "is no JWKS"),
        (r#"{"keys": []}"#, "no key for"),
        (r#"{"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS512"}]}"#, "no key for"),
        (r#"{"keys": [{"kty": "oct", "k": "AAAA", "use": "enc"}]}"#, "no key for"),
    ] {
        assert!(KeySet::parse(set).unwrap_err().contains(said), "{set}");
    }
}
