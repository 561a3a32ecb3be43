//! kind: Identity. Where tenant, team and user of a request come from.

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{Anonymous, IdentityField, IdentityRules, JwksSource, JwtRules};

#[derive(Debug, Clone)]
pub(crate) struct IdentitySpec {
    pub rules: IdentityRules,
}

const SOURCES_MAX: usize = 64;
const AUDIENCES_MAX: usize = 16;
const CLAIM_PARTS_MAX: usize = 8;
const JWKS_MAX_BYTES: usize = 64 * 1024;
const PATH_MAX_BYTES: usize = 1024;

impl IdentitySpec {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let usual = IdentityRules::default();
        let tenant = fields.get("tenant").map_or(Some(usual.tenant.clone()), |tenant| {
            let read = field(&tenant)?;
            Some(IdentityField { header: read.header.or(usual.tenant.header), default: read.default })
        });
        let team = fields.get("team").map_or(Some(IdentityField::default()), |team| field(&team));
        let user = fields.get("user").map_or(Some(IdentityField::default()), |user| field(&user));
        let trusted_sources =
            fields.list("trustedSources", SOURCES_MAX).iter().filter_map(values::cidr).collect();
        let keys = fields.get("apiKeys").map_or(Some(false), |keys| api_keys(&keys));
        let jwt = fields.get("jwt").map(|jwt| read_jwt(&jwt));
        let anonymous = fields.get("anonymous").map_or(Some(Anonymous::Allow), |anonymous| {
            anonymous.choice(&[("Allow", Anonymous::Allow), ("Refuse", Anonymous::Refuse)])
        });
        fields.done();
        let jwt = match jwt {
            Some(jwt) => Some(jwt?),
            None => None,
        };
        let (keys, anonymous) = (keys?, anonymous?);
        if anonymous == Anonymous::Refuse && !keys && jwt.is_none() {
            return spec.refuse("anonymous: Refuse needs apiKeys or jwt, or every request would be refused");
        }
        let rules = IdentityRules {
            tenant: tenant?,
            team: team?,
            user: user?,
            trusted_sources,
            keys,
            jwt,
            anonymous,
            explicit: true,
        };
        Some(Self { rules })
    }
}

/// `{header, default}`
fn field(at: &Cursor<'_>) -> Option<IdentityField> {
    let fields = at.fields()?;
    let header = fields.get("header").map(|header| values::header(&header));
    let default = fields.get("default").map(|default| values::name(&default));
    fields.done();
    let known = |value: Option<Option<String>>| match value {
        Some(value) => Some(Some(value?)),
        None => Some(None),
    };
    Some(IdentityField { header: known(header)?, default: known(default)? })
}

/// `true`, or `{enabled: true}`
fn api_keys(at: &Cursor<'_>) -> Option<bool> {
    if at.scalar().is_some() {
        return at.flag();
    }
    let fields = at.fields()?;
    let enabled = fields.get("enabled").map_or(Some(true), |enabled| enabled.flag());
    fields.done();
    enabled
}

/// `{jwks: {file | inline}, issuer, audiences, claims: {tenant, team, user}}`
fn read_jwt(at: &Cursor<'_>) -> Option<JwtRules> {
    let fields = at.fields()?;
    let jwks = fields.need("jwks").and_then(|jwks| read_jwks(&jwks));
    let issuer = fields.get("issuer").and_then(|issuer| values::match_value(&issuer));
    let audiences = fields.list("audiences", AUDIENCES_MAX).iter().filter_map(values::match_value).collect();
    let claims = fields.need("claims").and_then(|claims| claims.fields());
    fields.done();
    let claims = claims?;
    let tenant_claim = claim(&claims, "tenant");
    let team_claim = claim(&claims, "team");
    let user_claim = claim(&claims, "user");
    claims.done();
    if tenant_claim.is_none() && team_claim.is_none() && user_claim.is_none() {
        return claims.cursor().refuse("no claims; map at least one of tenant, team and user");
    }
    Some(JwtRules { jwks: jwks?, issuer, audiences, tenant_claim, team_claim, user_claim })
}

/// `org.team`, or a list for names that hold dots themselves.
fn claim(fields: &Fields<'_>, name: &'static str) -> Option<Vec<String>> {
    let at = fields.get(name)?;
    if at.scalar().is_some() {
        let path = values::name(&at)?;
        let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        if parts.iter().any(String::is_empty) {
            return at.refuse(format!("`{path}` is no path of claims; wanted something like org.team"));
        }
        return Some(parts);
    }
    let parts: Vec<String> = at.items(CLAIM_PARTS_MAX).iter().filter_map(values::name).collect();
    (!parts.is_empty()).then_some(parts)
}

/// `{file}` on the gateways, or `{inline}`: the JSON itself.
fn read_jwks(at: &Cursor<'_>) -> Option<JwksSource> {
    let fields = at.fields()?;
    let file = fields.get("file");
    let inline = fields.get("inline").map(Cursor::secret);
    fields.done();
    match (file, inline) {
        (Some(file), None) => {
            let path = file.text()?;
            if path.is_empty() || path.len() > PATH_MAX_BYTES || path.chars().any(char::is_control) {
                return file.refuse("no path of a file");
            }
            Some(JwksSource::File(path.to_owned()))
        }
        (None, Some(inline)) => {
            let text = inline.text()?;
            if text.len() > JWKS_MAX_BYTES {
                return inline.refuse(format!("{} bytes, at most {JWKS_MAX_BYTES} are allowed", text.len()));
            }
            let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            if !packed.starts_with('{') || !packed.contains("\"keys\":") {
                return inline.refuse("no JSON Web Key Set; wanted {\"keys\": […]}");
            }
            if packed.contains("\"d\":") || packed.contains("\"k\":") {
                return inline.refuse("holds a private or symmetric key; the document is replicated and shown, give public keys only");
            }
            Some(JwksSource::Inline(text.to_owned()))
        }
        _ => at.refuse("wanted: either file: PATH or inline: JSON"),
    }
}
