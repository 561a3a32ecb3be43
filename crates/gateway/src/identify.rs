//! The first stage: whose request this is. An API key of Quorate, else a token, else headers from a trusted source, else
//! nobody. Whoever proves who they are cannot claim to be another.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderMap, header};
use quorate_ledger::TimestampMs;
use quorate_policy::runtime::{Anonymous, Identity, IdentityRules, JwtRules};
use quorate_rpc::Keys;

use crate::{
    jwt::{self, Expected},
    keys::PresentedKey,
    policy::ActivePolicy,
    refusal::Refusal,
    request::value,
};

const API_KEY_HEADER: &str = "x-api-key";
/// As the ledger's.
const TENANT_BYTES_MAX: usize = 128;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) identity: Identity,
    /// Models that the key may ask for; empty: all.
    pub(crate) models: Vec<String>,
    /// The `authorization` header was for this gateway: it goes no further.
    pub(crate) consumed: bool,
    names: Arc<[String; 3]>,
}

/// What is known of one part of an identity.
enum Part {
    /// Verified, also that there is none.
    Verified(Option<String>),
    /// Neither key nor token speaks of it.
    Open,
}

impl Who {
    /// What selectors see of an identity header. `None`: it is none.
    pub(crate) fn header(&self, name: &str) -> Option<Option<&str>> {
        self.identity.header(&self.names, name)
    }

    /// Refuses a model that the key may not ask for.
    pub(crate) fn may_ask_for(&self, model: &str) -> Result<(), Refusal> {
        if self.models.is_empty() || self.models.iter().any(|allowed| allowed == model) {
            return Ok(());
        }
        Err(Refusal::ModelNotAllowed { model: crate::route::shown(model), allowed: self.models.join(", ") })
    }
}

/// Applies the rules of the policy to the headers of a request.
pub(crate) fn identify(
    active: &ActivePolicy,
    keys: &Keys,
    now: TimestampMs,
    headers: &HeaderMap,
    source: IpAddr,
) -> Result<Who, Refusal> {
    let rules = active.policy.identity();
    let claimed = Claimed { headers, names: &active.identity_headers, trusted: trusts(rules, source) };
    // Only one would be looked at here, and all could go on to a backend.
    if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Refusal::WrongKey("there are several `authorization` headers; send one".to_owned()));
    }
    if let Some(key) = presented_key(headers) {
        return by_key(rules, key, keys, now, &claimed);
    }
    if let (Some(jwt), Some(token)) = (&rules.jwt, bearer(headers).filter(|text| jwt::is_token(text))) {
        return by_token(active, jwt, token, &claimed);
    }
    if !claimed.trusted {
        // Before the policy says anything about identity, only what nobody claims can pass.
        let passes = rules.anonymous == Anonymous::Allow && (rules.explicit || !claimed.any());
        if !passes {
            return Err(Refusal::NotIdentified { remedy: remedy(rules) });
        }
        if claimed.any() {
            tracing::debug!(%source, "identity headers from a source that is not trusted are not believed");
        }
    }
    let nobody =
        rules.anonymous == Anonymous::Refuse && (rules.keys || rules.jwt.is_some()) && !claimed.any();
    if nobody {
        return Err(Refusal::NotIdentified { remedy: remedy(rules) });
    }
    claimed.complete(rules, [Part::Open, Part::Open, Part::Open], Proof::None)
}

/// The sources whose headers are believed. None named: this machine.
fn trusts(rules: &IdentityRules, source: IpAddr) -> bool {
    if rules.trusted_sources.is_empty() {
        return source.to_canonical().is_loopback();
    }
    rules.trusted_sources.iter().any(|network| network.contains(source))
}

fn remedy(rules: &IdentityRules) -> String {
    let mut ways = Vec::new();
    if rules.keys {
        ways.push("an API key (authorization: Bearer qk_…)");
    }
    if rules.jwt.is_some() {
        ways.push("a token (authorization: Bearer …)");
    }
    if ways.is_empty() {
        ways.push("a request from a trusted source (`trustedSources` of the policy's kind Identity), or an API key where that kind accepts keys");
    }
    ways.join(" or ")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

fn presented_key(headers: &HeaderMap) -> Option<PresentedKey<'_>> {
    let of_header = || headers.get(API_KEY_HEADER)?.to_str().ok().map(str::trim);
    bearer(headers).and_then(PresentedKey::of).or_else(|| of_header().and_then(PresentedKey::of))
}

fn by_key(
    rules: &IdentityRules,
    key: PresentedKey<'_>,
    keys: &Keys,
    now: TimestampMs,
    claimed: &Claimed<'_>,
) -> Result<Who, Refusal> {
    // Where the policy says nothing, a key that was issued is good: it is the stronger proof.
    if rules.explicit && !rules.keys {
        return Err(Refusal::WrongKey(
            "the policy does not accept API keys; set `apiKeys: true` in its kind Identity".to_owned(),
        ));
    }
    let record = key.find(keys, now).map_err(|error| Refusal::WrongKey(error.to_string()))?;
    let text = |text: &str| Part::Verified((!text.is_empty()).then(|| text.to_owned()));
    let parts = [text(&record.tenant), text(&record.team), text(&record.user)];
    // A key in the other header leaves a token here, which was for this gateway too.
    let own = |text: &str| PresentedKey::of(text).is_some() || rules.jwt.is_some() && jwt::is_token(text);
    let consumed = bearer(claimed.headers).is_some_and(own);
    claimed.complete(
        rules,
        parts,
        Proof::Key { id: record.id.clone(), models: record.models.clone(), consumed },
    )
}

fn by_token(
    active: &ActivePolicy,
    rules: &JwtRules,
    token: &str,
    claimed: &Claimed<'_>,
) -> Result<Who, Refusal> {
    let Some(Ok(keys)) = &active.jwks else {
        return Err(Refusal::WrongToken("cannot be verified: this gateway has no usable key set".to_owned()));
    };
    let expected = Expected {
        issuer: rules.issuer.as_deref(),
        audiences: &rules.audiences,
        tenant: rules.tenant_claim.as_deref(),
        team: rules.team_claim.as_deref(),
        user: rules.user_claim.as_deref(),
    };
    let claims = keys.verify(token, &expected).map_err(|error| Refusal::WrongToken(error.to_string()))?;
    let part = |claim: Option<String>| claim.map_or(Part::Open, |text| Part::Verified(Some(text)));
    let parts = [part(claims.tenant), part(claims.team), part(claims.user)];
    claimed.complete(active.policy.identity(), parts, Proof::Token)
}

enum Proof {
    None,
    Token,
    Key { id: String, models: Vec<String>, consumed: bool },
}

/// What the headers say, and whether they are believed.
struct Claimed<'a> {
    headers: &'a HeaderMap,
    names: &'a Arc<[String; 3]>,
    trusted: bool,
}

impl<'a> Claimed<'a> {
    fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        value(self.headers, name).filter(|value| !value.is_empty())
    }

    fn any(&self) -> bool {
        self.names.iter().any(|name| self.headers.contains_key(name.as_str()))
    }

    /// Puts verified parts, believed headers and defaults together.
    fn complete(&self, rules: &IdentityRules, parts: [Part; 3], proof: Proof) -> Result<Who, Refusal> {
        let proven = !matches!(proof, Proof::None);
        let [tenant_name, team_name, user_name] = &**self.names;
        let [tenant, team, user] = parts;
        let of = |part: Part, name: &str, default: &Option<String>| self.one(part, name, default, proven);
        let tenant = of(tenant, tenant_name, &rules.tenant.default)?
            .ok_or_else(|| Refusal::NoTenant { header: tenant_name.clone() })?;
        if tenant.len() > TENANT_BYTES_MAX || tenant.chars().any(char::is_control) {
            return Err(Refusal::WrongTenant { header: tenant_name.clone(), bytes: tenant.len() });
        }
        let identity = Identity {
            tenant,
            team: of(team, team_name, &rules.team.default)?,
            user: of(user, user_name, &rules.user.default)?,
            key: if let Proof::Key { id, .. } = &proof { Some(id.clone()) } else { None },
        };
        let (models, consumed) = match proof {
            Proof::None => (Vec::new(), false),
            Proof::Token => (Vec::new(), true),
            Proof::Key { models, consumed, .. } => (models, consumed),
        };
        Ok(Who { identity, models, consumed, names: Arc::clone(self.names) })
    }

    fn one(
        &self,
        part: Part,
        name: &str,
        default: &Option<String>,
        proven: bool,
    ) -> Result<Option<String>, Refusal> {
        let said = self.value(name);
        match part {
            Part::Verified(known) => match said {
                Some(said) if known.as_deref() != Some(&*said) => {
                    Err(Refusal::ClaimsAnother { header: name.to_owned() })
                }
                _ => Ok(known),
            },
            Part::Open if self.trusted => Ok(said.map(Cow::into_owned).or_else(|| default.clone())),
            Part::Open if proven && said.is_some() => Err(Refusal::ClaimsAnother { header: name.to_owned() }),
            Part::Open => Ok(default.clone()),
        }
    }
}
