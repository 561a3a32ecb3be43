//! Where tenant, team and user of a request come from. Rules only: the gateway reads headers, keys and tokens.

use super::Cidr;

/// Where clients name themselves if the policy does not say: what gateways before this one have used.
const HEADERS: [&str; 3] = ["x-tenant-id", "x-team-id", "x-user-id"];

/// The default: tenant from header `x-tenant-id`, else `default`; no team and no user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRules {
    pub tenant: IdentityField,
    pub team: IdentityField,
    pub user: IdentityField,
    /// Identity headers count only from these addresses. Empty: from the gateway's own machine (loopback) only.
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
    /// The headers of tenant, team and user, in this order; in lower case.
    pub fn headers(&self) -> [&str; 3] {
        let named = [&self.tenant, &self.team, &self.user].map(|field| field.header.as_deref());
        let [tenant, team, user] = named;
        let [default_tenant, default_team, default_user] = HEADERS;
        [tenant.unwrap_or(default_tenant), team.unwrap_or(default_team), user.unwrap_or(default_user)]
    }
}

impl Default for IdentityRules {
    fn default() -> Self {
        let tenant =
            IdentityField { header: Some("x-tenant-id".to_owned()), default: Some("default".to_owned()) };
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
