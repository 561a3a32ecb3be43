//! kind: BackendSecurityPolicy. How gateways prove themselves to backends: references to secrets, never a value.

use crate::manifests::kinds::Targets;
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{AuthSpec, SecretRef};

#[derive(Debug, Clone)]
pub(crate) struct SecurityPolicy {
    pub targets: Targets,
    pub auth: AuthSpec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthType {
    ApiKey,
    Aws,
    AzureApiKey,
    Azure,
    Gcp,
    AnthropicApiKey,
}

/// Type, its name, the field of its block.
const TYPES: [(&str, AuthType, &str); 6] = [
    ("APIKey", AuthType::ApiKey, "apiKey"),
    ("AWSCredentials", AuthType::Aws, "awsCredentials"),
    ("AzureAPIKey", AuthType::AzureApiKey, "azureAPIKey"),
    ("AzureCredentials", AuthType::Azure, "azureCredentials"),
    ("GCPCredentials", AuthType::Gcp, "gcpCredentials"),
    ("AnthropicAPIKey", AuthType::AnthropicApiKey, "anthropicAPIKey"),
];
const NO_EXCHANGE: &str = "give a secret, or let the gateway's surroundings provide the credentials";

impl SecurityPolicy {
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        let targets = Targets::read(&fields, &["AIServiceBackend", "AIBackend", "InferencePool"]);
        let choices = TYPES.map(|(name, kind, _)| (name, kind));
        let kind = fields.need("type").and_then(|kind| kind.choice(&choices));
        let blocks = TYPES.map(|(_, kind, field)| (kind, field, fields.get(field)));
        fields.unsupported("credentialOverride", "give each credential a backend of its own");
        fields.done();
        let kind = kind?;
        let mut auth = None;
        for (block_kind, field, block) in blocks {
            match (block_kind == kind, block) {
                (true, Some(block)) => auth = auth_of(kind, &block, namespace),
                (true, None) => spec.error(format!("field {field} is missing; the type needs it")),
                (false, Some(block)) => block.error("does not fit the type; leave it out or change the type"),
                (false, None) => {}
            }
        }
        Some(Self { targets, auth: auth? })
    }
}

fn auth_of(kind: AuthType, block: &Cursor<'_>, namespace: &str) -> Option<AuthSpec> {
    let fields = block.fields()?;
    let text = |name: &'static str| fields.need(name).and_then(|value| values::name(&value));
    let auth = match kind {
        AuthType::ApiKey | AuthType::AzureApiKey | AuthType::AnthropicApiKey => {
            let secret = fields.need("secretRef").and_then(|secret| secret_ref(&secret, namespace, "apiKey"));
            AuthSpec::ApiKey { secret: secret? }
        }
        AuthType::Aws => {
            let secret = credentials_file(&fields, namespace, "credentials");
            fields.unsupported("oidcExchangeToken", NO_EXCHANGE);
            let (region, (secret, profile)) = (text("region"), secret?);
            AuthSpec::Aws { region: region?, secret, profile }
        }
        AuthType::Azure => {
            fields.unsupported("oidcExchangeToken", NO_EXCHANGE);
            let secret =
                fields.get("clientSecretRef").map(|secret| secret_ref(&secret, namespace, "client-secret"));
            let (client_id, tenant_id) = (text("clientID"), text("tenantID"));
            let secret = match secret {
                Some(secret) => Some(secret?),
                None => None,
            };
            AuthSpec::Azure { client_id: client_id?, tenant_id: tenant_id?, secret }
        }
        AuthType::Gcp => {
            let secret = credentials_file(&fields, namespace, "service_account.json");
            fields.unsupported("workloadIdentityFederationConfig", NO_EXCHANGE);
            let (project, region) = (text("projectName"), text("region"));
            let (secret, _) = secret?;
            AuthSpec::Gcp { project: project?, region: region?, secret }
        }
    };
    fields.done();
    Some(auth)
}

/// `credentialsFile: {secretRef, profile}`. `None`: wrong; without the block, neither is there.
fn credentials_file(
    fields: &Fields<'_>,
    namespace: &str,
    key: &str,
) -> Option<(Option<SecretRef>, Option<String>)> {
    let Some(file) = fields.get("credentialsFile") else { return Some((None, None)) };
    let file = file.fields()?;
    let secret = file.need("secretRef").and_then(|secret| secret_ref(&secret, namespace, key));
    let profile = file.get("profile").map(|profile| values::name(&profile));
    file.done();
    let profile = match profile {
        Some(profile) => Some(profile?),
        None => None,
    };
    Some((Some(secret?), profile))
}

/// `{name, namespace, key}`. `key`: where the reference names none.
pub(crate) fn secret_ref(at: &Cursor<'_>, namespace: &str, key: &str) -> Option<SecretRef> {
    let fields = at.fields()?;
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    let own = fields.get("namespace").map(|namespace| values::object_name(&namespace));
    let named = fields.get("key").map(|key| values::name(&key));
    if let Some(kind) = fields.get("kind") {
        kind.choice(&[("Secret", ())]);
    }
    if let Some(group) = fields.get("group") {
        group.choice(&[("", ())]);
    }
    fields.done();
    let namespace = own.unwrap_or_else(|| Some(namespace.to_owned()))?;
    let key = named.unwrap_or_else(|| Some(key.to_owned()))?;
    Some(SecretRef { namespace, name: name?, key })
}
