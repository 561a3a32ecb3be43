//! Who a request is for, and who may say so.

use quorate_ledger::{KeyRecord, TimestampMs};
use quorate_policy::runtime::{Anonymous, CompiledPolicy, IdentityRules, JwksSource, JwtRules, PolicyParts};

use super::{
    policies::{compile, tokens},
    provider::{answer, chat},
    world::{Answer, World, chat_request},
};
use crate::{
    jwt::tests as jwt,
    keys::tests::{KEY, record},
};

fn policy(identity: IdentityRules) -> CompiledPolicy {
    compile(PolicyParts { budgets: vec![tokens("per-user", 250)], identity, ..PolicyParts::default() })
}

fn explicit() -> IdentityRules {
    IdentityRules { keys: true, anonymous: Anonymous::Refuse, explicit: true, ..IdentityRules::default() }
}

/// Nothing on this machine is trusted.
fn from_outside() -> IdentityRules {
    IdentityRules { trusted_sources: vec!["10.0.0.0/8".parse().unwrap()], ..explicit() }
}

async fn world(identity: IdentityRules, more: &str) -> World {
    let world =
        World::compiled(policy(identity), |url| super::policies::config(&[("fake", url)], more)).await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world
}

/// Without the world's own `x-user-id`.
async fn ask(world: &World, headers: &[(&str, &str)]) -> Answer {
    world.ask_bare("/v1/chat/completions", &chat_request(r#","max_tokens":50"#), headers).await
}

fn refused(answer: &Answer) -> (u16, Option<String>) {
    (answer.status.as_u16(), answer.error()["code"].as_str().map(str::to_owned))
}

fn code(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test]
async fn a_key_says_who_pays_and_goes_no_further() {
    let world = world(from_outside(), "").await;
    world.put_key(record());
    let bearer = format!("Bearer {KEY}");
    for header in [("authorization", bearer.as_str()), ("x-api-key", KEY)] {
        assert_eq!(ask(&world, &[header]).await.status.as_u16(), 200);
    }
    // The Distinct header is the key's user, in the key's tenant.
    let account = world.keeper.account("acme", "per-user", "alice").unwrap();
    assert_eq!(account.spent.units_floor(), 60);
    for got in world.provider.got() {
        assert!(!got.head.contains("qk_") && !got.head.contains("authorization"), "{}", got.head);
    }
    assert!(!format!("{:?}", world.core).contains(KEY));
}

#[tokio::test]
async fn who_proves_to_be_one_cannot_claim_to_be_another() {
    // Also where the source is trusted.
    let world = world(explicit(), "").await;
    world.put_key(record());
    for (header, value, expected) in [
        ("x-user-id", "bob", 403),
        ("x-tenant-id", "other", 403),
        ("x-team-id", "red", 403),
        ("x-user-id", "alice", 200),
        ("x-tenant-id", "acme", 200),
    ] {
        let answer = ask(&world, &[("x-api-key", KEY), (header, value)]).await;
        assert_eq!(answer.status.as_u16(), expected, "{header}: {value}");
        if expected == 403 {
            assert_eq!(refused(&answer), code(403, "identity_mismatch"));
        }
    }
}

#[tokio::test]
async fn keys_that_are_over_wrong_or_for_other_models() {
    let world = world(explicit(), "").await;
    let at = |ms| Some(TimestampMs(ms));
    for (key, expected, said) in [
        (KeyRecord { revoked_at: at(1), ..record() }, code(401, "invalid_api_key"), "revoked"),
        (KeyRecord { expires_at: at(1), ..record() }, code(401, "invalid_api_key"), "expired"),
        (KeyRecord { hash: [7; 32], ..record() }, code(401, "invalid_api_key"), "not known"),
        (
            KeyRecord { models: vec!["gpt-4o".to_owned()], ..record() },
            code(403, "model_not_allowed"),
            "may ask for: gpt-4o",
        ),
    ] {
        world.put_key(key);
        let answer = ask(&world, &[("x-api-key", KEY)]).await;
        assert_eq!(refused(&answer), expected);
        assert!(answer.text().contains(said) && !answer.text().contains("AAAA"), "{}", answer.text());
    }
    // Revoked between two requests: the next one hears of it.
    world.put_key(record());
    assert_eq!(ask(&world, &[("x-api-key", KEY)]).await.status.as_u16(), 200);
    world.put_key(KeyRecord { revoked_at: at(1), ..record() });
    assert_eq!(ask(&world, &[("x-api-key", KEY)]).await.status.as_u16(), 401);
    assert_eq!(world.provider.got().len(), 1);
}

#[tokio::test]
async fn headers_are_believed_from_trusted_sources_only() {
    let world = world(from_outside(), "").await;
    let answer = ask(&world, &[("x-user-id", "alice")]).await;
    assert_eq!(refused(&answer), code(401, "identity_missing"));
    assert!(answer.text().contains("qk_"), "{}", answer.text());
    assert_eq!(refused(&world.ask_bare("/v1/models", "", &[]).await), code(401, "identity_missing"));
    // Whoever may be nobody is nobody, whatever they claim.
    let anonymous = IdentityRules { anonymous: Anonymous::Allow, ..from_outside() };
    world.put_policy(2, policy(anonymous));
    assert_eq!(ask(&world, &[("x-user-id", "alice"), ("x-tenant-id", "acme")]).await.status.as_u16(), 200);
    assert_eq!(world.keeper.account("default", "per-user", "").unwrap().spent.units_floor(), 30);
    // This machine, where the policy names no other.
    world.put_policy(3, policy(explicit()));
    assert_eq!(ask(&world, &[("x-user-id", "alice"), ("x-tenant-id", "acme")]).await.status.as_u16(), 200);
    assert_eq!(world.keeper.account("acme", "per-user", "alice").unwrap().spent.units_floor(), 30);
    assert_eq!(refused(&ask(&world, &[]).await), code(401, "identity_missing"));
}

fn with_tokens() -> IdentityRules {
    let path = |parts: &[&str]| Some(parts.iter().map(|part| (*part).to_owned()).collect());
    IdentityRules {
        jwt: Some(JwtRules {
            jwks: JwksSource::Inline(jwt::hs256_jwks()),
            issuer: Some("https://idp".to_owned()),
            audiences: vec!["quorate".to_owned()],
            tenant_claim: path(&["org", "id"]),
            team_claim: None,
            user_claim: path(&["sub"]),
        }),
        ..from_outside()
    }
}

#[tokio::test]
async fn a_token_says_who_pays() {
    let world = world(with_tokens(), "").await;
    let bearer = format!("Bearer {}", jwt::hs256(jwt::claims()));
    assert_eq!(ask(&world, &[("authorization", &bearer)]).await.status.as_u16(), 200);
    assert_eq!(world.keeper.account("acme", "per-user", "alice").unwrap().spent.units_floor(), 30);
    assert!(!world.provider.got()[0].head.contains("authorization"));
    let mut late = jwt::claims();
    late["exp"] = 1.into();
    let late = format!("Bearer {}", jwt::hs256(late));
    let answer = ask(&world, &[("authorization", &late)]).await;
    assert_eq!(refused(&answer), code(401, "invalid_token"));
    assert!(answer.text().contains("has expired") && !answer.text().contains("eyJ"), "{}", answer.text());
    for claim in [("x-user-id", "bob"), ("x-team-id", "red")] {
        let answer = ask(&world, &[("authorization", &bearer), claim]).await;
        assert_eq!(refused(&answer), code(403, "identity_mismatch"), "{claim:?}");
    }
    // What is no token of anybody's proves nothing.
    assert_eq!(
        refused(&ask(&world, &[("authorization", "Bearer sk-abc")]).await),
        code(401, "identity_missing")
    );
}

#[tokio::test]
async fn a_key_set_that_cannot_be_read_lets_nobody_in() {
    let mut rules = with_tokens();
    let file = JwksSource::File("/no/such/jwks.json".to_owned());
    rules.jwt = rules.jwt.map(|jwt| JwtRules { jwks: file, ..jwt });
    let world = world(rules, "").await;
    let bearer = format!("Bearer {}", jwt::hs256(jwt::claims()));
    let answer = ask(&world, &[("authorization", &bearer)]).await;
    assert_eq!(refused(&answer), code(401, "invalid_token"));
    world.put_key(record());
    assert_eq!(ask(&world, &[("x-api-key", KEY)]).await.status.as_u16(), 200, "keys go on working");
}

#[tokio::test]
async fn what_proves_an_identity_here_never_goes_to_a_backend() {
    let world = World::compiled(policy(with_tokens()), |url| {
        super::policies::config(&[("fake", url)], "").replace("base_url:", "pass_client_key: true, base_url:")
    })
    .await;
    world.provider.plays([answer("200 OK", &chat(10, 20))]);
    world.put_key(record());
    let token = format!("Bearer {}", jwt::hs256(jwt::claims()));
    // The key says who pays; the token beside it is no provider's key either.
    let both = [("x-api-key", KEY), ("authorization", token.as_str())];
    assert_eq!(ask(&world, &both).await.status.as_u16(), 200);
    let got = world.provider.got();
    assert!(!got[0].head.contains("authorization") && !got[0].head.contains("qk_"), "{}", got[0].head);
    // Of several, the gateway would look at one and pass on all.
    let own = format!("Bearer {KEY}");
    let several = [("authorization", "Bearer sk-other"), ("authorization", own.as_str())];
    let answer = world.ask("/v1/chat/completions", &chat_request(""), &several).await;
    assert_eq!(refused(&answer), code(401, "invalid_api_key"));
    assert_eq!(world.provider.got().len(), 1);
}

#[tokio::test]
async fn before_it_is_known_who_may_ask_nobody_is_shown_a_backends_models() {
    let world = world(explicit(), "").await;
    world.policies.send_replace(None);
    for path in ["/v1/models", "/v1/models/gpt-4o"] {
        let answer = world.ask_bare(path, "", &[("x-api-key", KEY)]).await;
        assert_eq!(refused(&answer), code(503, "no_policy"), "{path}");
    }
    assert!(world.provider.got().is_empty());
}
