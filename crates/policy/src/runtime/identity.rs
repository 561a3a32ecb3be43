//! Where tenant, team and user of a request come from. Rules only: the gateway reads headers, keys and tokens.

use super::{Cidr, Identity};

/// Where clients name themselves if the policy does not say.
const TENANT_HEADER: &str = "x-tenant-id";
const TEAM_HEADER: &str = "x-team-id";
const USER_HEADER: &str = "x-user-id";

/// The default: tenant from header `x-tenant-id`, else `default`; no team and no user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRules {
    pub tenant: IdentityField,
    pub team: IdentityField,
    pub user: IdentityField,
    /// Identity headers count only from these addresses. Empty: from the gateway's own machine.
    pub trusted_sources: Vec<Cidr>,
    /// Whether API keys issued by Quorate are accepted.
    pub keys: bool,
    pub jwt: Option<JwtRules>,
    /// What becomes of a request without key and without token, where either is accepted.
    pub anonymous: Anonymous,
    /// Whether the policy says so itself; `false`: nothing but defaults.
    pub explicit: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityField {
    /// In lower case.
    pub header: Option<String>,
    pub default: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    Allow,
    Refuse,
}

/// Claims are paths: `["realm", "team"]` is `{"realm": {"team": …}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRules {
    pub jwks: JwksSource,
    pub issuer: Option<String>,
    /// Any of these; empty: not checked.
    pub audiences: Vec<String>,
    pub tenant_claim: Option<Vec<String>>,
    pub team_claim: Option<Vec<String>>,
    pub user_claim: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A path on the gateway.
    File(String),
    /// The JSON itself: public keys only.
    Inline(String),
}

impl IdentityRules {
    /// The headers that carry tenant, team and user.
    pub fn headers(&self) -> [String; 3] {
        let name =
            |field: &IdentityField, usual: &str| field.header.clone().unwrap_or_else(|| usual.to_owned());
        [name(&self.tenant, TENANT_HEADER), name(&self.team, TEAM_HEADER), name(&self.user, USER_HEADER)]
    }
}

impl Identity {
    /// What selectors and subjects see in a header that carries a part of the identity: what is known, whatever the
    /// client sent. Outer `None`: it carries none. `headers`: those of [`IdentityRules::headers`].
    pub fn header(&self, headers: &[String; 3], name: &str) -> Option<Option<&str>> {
        let [tenant, team, user] = headers;
        if name == tenant {
            Some(Some(&self.tenant))
        } else if name == team {
            Some(self.team.as_deref())
        } else if name == user {
            Some(self.user.as_deref())
        } else {
            None
        }
    }
}

impl Default for IdentityRules {
    fn default() -> Self {
        let tenant =
            IdentityField { header: Some(TENANT_HEADER.to_owned()), default: Some("default".to_owned()) };
        Self {
            tenant,
            team: IdentityField::default(),
            user: IdentityField::default(),
            trusted_sources: Vec::new(),
            keys: false,
            jwt: None,
            anonymous: Anonymous::Allow,
            explicit: false,
        }
    }
}
